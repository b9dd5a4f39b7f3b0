"""How pixels become the numbers that a network's weights expect."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from affectflow.errors import ArtifactError, what_got_wanted


@dataclass(frozen=True)
class InputNorm:
    """``(pixel − mean) / std`` by channel, pixels from 0 to 255.

    Attributes:
        mean: one a channel, in the order in which the network takes them.
        std: likewise, above 0.
        bgr: the network takes blue, green, red; False for red, green, blue.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return the norm that :meth:`to_json` gave.

        Raises:
            ArtifactError: the value is not one.
        """
        try:
            mean, std = (tuple(float(number) for number in value[key]) for key in ("mean", "std"))
            red, green, blue = mean
            if len(std) != 3 or min(std) <= 0 or not isinstance(value["bgr"], bool):
                raise ValueError("std")
        except (KeyError, TypeError, ValueError):
            raise ArtifactError(
                what_got_wanted(
                    "input_norm",
                    got=repr(value),
                    wanted="mean and std of 3 numbers each, std above 0, and bgr true or false",
                    do="write the model again",
                )
            ) from None
        return cls((red, green, blue), std, value["bgr"])


#: The paper's: ImageNet's mean and standard deviation, RGB.
IMAGENET = InputNorm((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


class Normalize(nn.Module):
    """Normalise a batch of uint8 RGB images on its device.

    Args:
        norm: mean, standard deviation and channel order.
        dtype: of the result; the arithmetic is float32.

    Shape:
        images (N, 3, H, W) uint8, RGB; returns (N, 3, H, W) ``dtype``, in the images' memory format.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, norm: InputNorm, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.norm, self.dtype = norm, dtype
        self.register_buffer("mean", torch.tensor(norm.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", 1 / torch.tensor(norm.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the normalised images.

        Raises:
            ValueError: images of another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            got = f"{tuple(images.shape)} {images.dtype}"
            wanted = "(N, 3, H, W) uint8"
            raise ValueError(what_got_wanted("images", got=got, wanted=wanted, do="pass decoded RGB images"))
        if self.norm.bgr:
            images = images.flip(1)
        return images.float().sub_(self.mean).mul_(self.scale).to(self.dtype)


def normalize_batch(images: Tensor, norm: InputNorm, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return :class:`Normalize`'s result; in a loop keep the module, whose constants stay on the device.

    Example:
        >>> white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
        >>> normalize_batch(white, InputNorm((5.0, 5.0, 5.0), (2.0, 2.0, 2.0))).flatten().tolist()
        [125.0, 125.0, 125.0]
    """
    result: Tensor = Normalize(norm, dtype).to(images.device)(images)
    return result
