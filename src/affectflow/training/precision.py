"""Which precision a device is fast in: measured, not assumed."""

import statistics
import time

import torch
from torch.nn import functional

from affectflow.progress import say
from affectflow.training.distributed import rank
from affectflow.training.inference import PRECISIONS

AUTO = "auto"
#: How many times as fast as in float32 a convolution in bfloat16 has to be.
WORTHWHILE = 1.3
_ROUNDS = 7
#: Batch, channels and side of a convolution as networks have them in the middle: large enough for a GPU, and a
#: few hundredths of a second on a core.
_SHAPES = {"cpu": (4, 256, 14), "cuda": (64, 256, 28)}


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return the precision to train in; ``"auto"`` is ``"bfloat16"`` where the device is fast in it.

    Rank 0 measures, and every process takes its choice.

    Args:
        wanted: ``"auto"``, or one of :data:`~affectflow.training.inference.PRECISIONS`, which is returned.
        device: where to train.
    """
    if wanted != AUTO:
        return wanted
    ratio = torch.zeros(1)
    if rank() == 0:
        ratio[0] = bfloat16_speed(device)
    if torch.distributed.is_initialized():
        torch.distributed.broadcast(ratio, src=0)
    chosen = "bfloat16" if float(ratio) >= WORTHWHILE else "float32"
    say(f"precision auto: bfloat16 is {float(ratio):.2f} times as fast as float32 on {device}, so {chosen}")
    return chosen


def bfloat16_speed(device: torch.device) -> float:
    """Return how many times as fast as in float32 a convolution is in bfloat16: the median of pairs."""
    batch, channels, side = _SHAPES.get(device.type, _SHAPES["cuda"])
    images = torch.randn(batch, channels, side, side, device=device).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, device=device).to(memory_format=torch.channels_last)
    sides = {name: (images.to(PRECISIONS[name]), weight.to(PRECISIONS[name])) for name in ("float32", "bfloat16")}
    for inputs in sides.values():
        _seconds(*inputs)
    pairs = [(_seconds(*sides["float32"]), _seconds(*sides["bfloat16"])) for _ in range(_ROUNDS)]
    return statistics.median(slow / fast for slow, fast in pairs)


@torch.inference_mode()
def _seconds(images: torch.Tensor, weight: torch.Tensor) -> float:
    _wait(images.device)
    begun = time.perf_counter()
    for _ in range(3):
        functional.conv2d(images, weight, padding=1)
    _wait(images.device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
