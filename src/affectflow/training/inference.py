"""Run a model over faces without training it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from affectflow.training.crops import Uncropped, cut_crops

#: Turns a batch (B, 3, H, W) uint8 on the device into what the network expects, float.
Normalise = Callable[[Tensor], Tensor]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Outputs:
    """What a model says of N faces.

    Attributes:
        logits: (N, C) float32 on the CPU.
        features: (N, D) float32 on the CPU.
        target: (N,) int64 on the CPU.
    """

    logits: Tensor
    features: Tensor
    target: Tensor

    @property
    def probability(self) -> Tensor:
        """Softmax of the logits in float64, (N, C); rows sum to 1."""
        return self.logits.double().softmax(dim=1)


def best_device() -> torch.device:
    """Return the first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which forward passes run at ``precision``, one of :data:`PRECISIONS`."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)


def to_device(images: Tensor | Uncropped, device: torch.device) -> Tensor:
    """Return a batch (B, 3, H, W) uint8 on the device, where it is cut if it is not yet."""
    if not isinstance(images, Uncropped):
        return images.to(device, non_blocking=True)
    whole, boxes = (part.to(device, non_blocking=True) for part in (images.images, images.boxes))
    return cut_crops(Uncropped(whole, boxes, images.image_size))


@torch.inference_mode()
def run_model(
    model: nn.Module,
    batches: Iterable[tuple[Tensor | Uncropped, Tensor]],
    *,
    normalise: Normalise,
    device: torch.device,
    precision: str,
) -> Outputs:
    """Return the logits and features of all faces, in the order of ``batches``; the model is left in eval mode."""
    model.eval()
    logits, features, targets = [], [], []
    for images, target in batches:
        pixels = to_device(images, device)  # not in autocast, which would cut them in less than 8 bits
        with autocast(device, precision):
            batch_logits, batch_features = model(normalise(pixels))
        logits.append(batch_logits.float())  # on the device to the end: a copy would wait for every batch
        features.append(batch_features.float())
        targets.append(target)
    return Outputs(torch.cat(logits).cpu(), torch.cat(features).cpu(), torch.cat(targets))
