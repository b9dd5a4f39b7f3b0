"""Images a second of our training step, beside the loop that one writes down with torchvision and timm.

Both sides train SE-ResNet-50 with a new head at 224 px, batch 36, Stages 1 to 3 frozen, from the same JPEG bytes
with as many loading processes. The stock loop: ImageFolder with Pillow, float32, NCHW, plain SGD, weighted
cross-entropy. Ours: the step ``fine_tune`` itself with its joint loss, in float32 and in bfloat16, and with the
batches in memory already. The stock loop has a process of its own, since ours changes how its process takes
memory. A turn begins with two steps that do not count, but have a row of their own: an epoch's first ones wait for
loading processes and for memory. It ends before the loaders run dry.
A quick run takes pictures of half the side: its ratios are those of another problem, and have no bars.

    python -m benchmarks.fine_tune_step --json out.json [--quick]
"""

import contextlib
import functools
import inspect
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from torchvision.datasets import ImageFolder

from affectflow.data.class_weights import read_class_weights
from affectflow.errors import SettingsError
from affectflow.models import IMAGENET, freeze_stages
from affectflow.steps import check_settings
from affectflow.training.distributed import training_device
from affectflow.training.inference import to_device
from affectflow.training.inputs import Inputs, open_inputs
from affectflow.training.loop import Trainer
from affectflow.training.memory import keep_freed_memory
from benchmarks.measure import Report, Turn, in_turns, main, side_in_own_process
from benchmarks.pictures import make_dataset
from components.fine_tune.build import build_joint_loss, build_network, build_trainer
from components.fine_tune.component import fine_tune
from components.fine_tune.settings import Settings

BACKBONE, IMAGE_SIZE, BATCH_SIZE, FROZEN_STAGES, WORKERS = "legacy_seresnet50", 224, 36, 3, 2
#: Steps of a turn before those that count, and what loaders have ready ahead of a step.
WARM_UP, AHEAD = 2, 2 * WORKERS
PEAK_SIDE = 4096

#: A training loop of an epoch: calls back before its first step and after every step.
Loop = Callable[[Callable[[], None]], None]


def measure(report: Report) -> None:
    """Time all sides in turns, and compare them."""
    steps, rounds = (1, 2) if report.quick else (4, 5)
    side = IMAGE_SIZE // 2 if report.quick else IMAGE_SIZE
    device = training_device()
    seconds, starts = seconds_of_turns(device, side=side, steps=steps, rounds=rounds, every_side=not report.quick)
    flops = flops_of_a_step(device, side)
    rates = {name: steps * BATCH_SIZE / statistics.median(turns) for name, turns in seconds.items()}
    peaks = {name: 2 * PEAK_SIDE**3 / statistics.median(seconds[f"peak_{name}"]) for name in PEAKS}
    report.figures |= {
        "images_per_second": {name: rate for name, rate in rates.items() if not name.startswith("peak")},
        "peak_flops_per_second": peaks,
        "flops_of_a_step": flops,
        "seconds": seconds,
    }
    fast = bfloat16_is_fast(peaks)
    bars = {} if report.quick else {"bfloat16": 2.1 if fast else None, "float32": 1.4}
    for name in PEAKS:
        report.add_ratio(
            f"step_{name}",
            f"training in {name} end to end, beside the stock loop",
            seconds["stock"],
            seconds[f"ours_{name}"],
            at_least=bars.get(name),
            note=f"{rates[f'ours_{name}']:.3g} beside {rates['stock']:.3g} images/s",
        )
    for name in PEAKS:
        if f"in_memory_{name}" not in seconds:
            continue
        report.add_ratio(
            f"end_to_end_{name}",
            f"training in {name} end to end, as a share of the rate on batches in memory",
            seconds[f"in_memory_{name}"],
            seconds[f"ours_{name}"],
            at_least=None if report.quick else 0.95,
            note=f"{rates[f'in_memory_{name}']:.3g} images/s in memory",
        )
    if "compiled_bfloat16" in seconds:
        report.add_ratio(
            "compiled",
            "a step through torch.compile in bfloat16, beside the plain one, on batches in memory",
            seconds["in_memory_bfloat16"],
            seconds["compiled_bfloat16"],
            note=f"compiled in {max(starts['compiled_bfloat16']):.0f} s",
        )
    for name in PEAKS:
        turns = zip(starts[f"ours_{name}"], seconds[f"ours_{name}"], strict=True)
        extra = [start - WARM_UP * turn / steps for start, turn in turns]
        report.add(
            f"epoch_start_{name}",
            f"what an epoch's first {WARM_UP} steps take in {name} beyond that many later ones",
            statistics.median(extra),
            low=min(extra),
            high=max(extra),
            unit="s",
        )
    for name in PEAKS:
        least = [flops * steps / (2 * PEAK_SIDE**3) * turn for turn in seconds[f"peak_{name}"]]
        report.add_ratio(
            f"of_peak_{name}",
            f"FLOP/s of a step in {name}, as a share of the matrix product's peak",
            least,
            seconds[f"ours_{name}"],
            unit="",
            at_least=0.5 if name == "bfloat16" and fast and not report.quick else None,
            note=f"peak {peaks[name] / 1e9:,.0f} GFLOP/s",
        )


def seconds_of_turns(
    device: torch.device, *, side: int, steps: int, rounds: int, every_side: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Run all sides in turns.

    Args:
        device: where to train.
        side: of the pictures that the network gets, in pixels.
        steps: of a turn that count.
        rounds: turns of each side.
        every_side: whether batches in memory are trained in float32 too, and through torch.compile.

    Returns:
        By name, the seconds of each side's turns, and those of our sides' warm-ups.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-step-") as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        # Of every expression one face validates and one tests; the others train.
        make_dataset(root, (WARM_UP + steps + AHEAD) * BATCH_SIZE + 16, held_out=1)
        inputs = open_inputs(root / "faces", root / "splits")
        weights, _ = read_class_weights(root / "class_weights")
        peer = stack.enter_context(side_in_own_process("benchmarks.fine_tune_step", "stock", root, side, steps))
        if device.type == "cpu":
            keep_freed_memory()
        make = functools.partial(our_trainer, inputs, weights, device, image_size=side)
        loops: dict[str, Loop] = {
            "ours_float32": ours(make(precision="float32")),
            "ours_bfloat16": ours(make(precision="bfloat16")),
            "in_memory_bfloat16": ours_in_memory(make(precision="bfloat16"), stack),
        }
        if every_side:
            loops["in_memory_float32"] = ours_in_memory(make(precision="float32"), stack)
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(root / "compiled")  # without what an earlier run compiled
            with contextlib.suppress(SettingsError):  # nothing can be compiled here
                compiled = make(precision="bfloat16", compile_model=True)
                loops["compiled_bfloat16"] = ours_in_memory(compiled, stack)
        starts: dict[str, list[float]] = {name: [] for name in loops}
        sides = {"stock": peer} | {
            name: timed_steps(loop, steps, device, starts[name]) for name, loop in loops.items()
        }
        sides |= {f"peak_{name}": peak(dtype, device) for name, dtype in PEAKS.items()}
        return in_turns(sides, rounds=rounds, warm_up=False), starts


PEAKS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def bfloat16_is_fast(peaks: dict[str, float]) -> bool:
    """Return whether the device multiplies bfloat16 matrices clearly faster than float32's."""
    return peaks["bfloat16"] > 1.5 * peaks["float32"]


class _EnoughStepsError(Exception):
    """Ends a loop in the middle of an epoch."""


def timed_steps(loop: Loop, steps: int, device: torch.device, warm_up: list[float] | None = None) -> Turn:
    """Return a turn that runs a loop and counts the seconds of ``steps`` steps after the warm-up's.

    The seconds of its warm-up are added to ``warm_up``.
    """

    def turn() -> float:
        stamps: list[float] = []

        def stamp() -> None:
            if len(stamps) in (0, WARM_UP, WARM_UP + steps) and device.type == "cuda":
                torch.cuda.synchronize(device)
            stamps.append(time.perf_counter())
            if len(stamps) == 1 + WARM_UP + steps:
                raise _EnoughStepsError

        try:
            loop(stamp)
        except _EnoughStepsError:
            if warm_up is not None:
                warm_up.append(stamps[WARM_UP] - stamps[0])
            return stamps[-1] - stamps[WARM_UP]
        raise SystemExit("the loop ended before the turn's last step: too few pictures")

    return turn


def stock_side(root: str, side: str, steps: str) -> Turn:
    """Return the stock loop's turn over the pictures that :func:`make_dataset` wrote."""
    device, folder = training_device(), Path(root)
    weights, _ = read_class_weights(folder / "class_weights")
    return timed_steps(stock_loop(folder / "folder", weights, device, int(side)), int(steps), device)


def stock_loop(folder: Path, class_weights: list[float], device: torch.device, side: int) -> Loop:
    """Return the loop that one writes down for faces of ``side`` px: torchvision's folder and transforms, SGD."""
    means, deviations = ([value / 255 for value in values] for values in (IMAGENET.mean, IMAGENET.std))
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(side, scale=(0.7, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(means, deviations),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(folder), transform),
        BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        pin_memory=device.type == "cuda",
    )
    model = stock_model().to(device)
    criterion = nn.CrossEntropyLoss(torch.tensor(class_weights)).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.001, momentum=0.9, weight_decay=5e-4)

    def loop(stamp: Callable[[], None]) -> None:
        running = 0.0
        stamp()
        for images, target in loader:
            images, target = images.to(device, non_blocking=True), target.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = criterion(model(images), target)
            loss.backward()
            optimizer.step()
            running += loss.item()
            stamp()

    return loop


def stock_model() -> nn.Module:
    """Return the network in training mode, its frozen stages without gradient and in evaluation mode."""
    backbone = timm.create_model(BACKBONE, num_classes=0, drop_rate=0.0)
    model = nn.Sequential(backbone, nn.Linear(2048, 512), nn.ReLU(), nn.Linear(512, 8)).train()
    for name in freeze_stages(backbone, FROZEN_STAGES).batch_norms:
        backbone.get_submodule(name).eval()
    return model


def our_trainer(inputs: Inputs, class_weights: list[float], device: torch.device, **changes: Any) -> Trainer:
    """Build what ``fine_tune`` trains with, from its own defaults."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(fine_tune.python_func).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    settings = {"freeze_stages": FROZEN_STAGES, "workers": WORKERS, "epochs": 1, **changes}
    chosen = check_settings(Settings, **{**defaults, **settings})
    return build_trainer(
        chosen,
        inputs,
        build_network(chosen),
        build_joint_loss(chosen, class_weights),
        device=device,
        run_key="benchmark",
        on_epoch=lambda row, rate: None,
    )


def ours(trainer: Trainer) -> Loop:
    """Return our loop, as it runs in the step."""
    step = trainer._train_step

    def loop(stamp: Callable[[], None]) -> None:
        def stepped(images: Tensor, target: Tensor) -> dict[str, Tensor]:
            values = step(images, target)
            stamp()
            return values

        trainer._train_step = stepped  # type: ignore[method-assign]
        trainer.progress.batches_done = 0  # a turn ends in the middle of an epoch
        with trainer._folded():
            stamp()
            trainer._train_epoch()

    return loop


def ours_in_memory(trainer: Trainer, folded: contextlib.ExitStack) -> Loop:
    """Return our step on batches that are on the device already; its frozen stages stay folded until the end."""
    folded.enter_context(trainer._folded())
    kept = [
        (to_device(images, trainer.device), target.to(trainer.device))
        for images, target in itertools.islice(trainer.train_loader, 2)
    ]

    def loop(stamp: Callable[[], None]) -> None:
        trainer.model.train()
        trainer.loss.train()
        batches: Iterator[tuple[Tensor, Tensor]] = itertools.cycle(kept)
        stamp()
        for images, target in batches:
            trainer._train_step(images, target)
            stamp()

    return loop


def peak(dtype: torch.dtype, device: torch.device) -> Turn:
    """Return a turn that multiplies two large matrices: the most that the device does."""
    left, right = (torch.randn(PEAK_SIDE, PEAK_SIDE, device=device).to(dtype) for _ in range(2))

    def turn() -> float:
        seconds = []
        for _ in range(3):
            begun = time.perf_counter()
            left @ right
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - begun)
        return min(seconds)

    return turn


def flops_of_a_step(device: torch.device, side: int) -> float:
    """Return the operations of convolutions and matrix products in a step of the stock loop, at ``side`` px."""
    model = stock_model().to(device)
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(2, 3, side, side, device=device)).sum().backward()
    return counter.get_total_flops() / 2 * BATCH_SIZE


if __name__ == "__main__":
    sys.exit(main("fine_tune_step", __doc__, measure, sides={"stock": stock_side}))
