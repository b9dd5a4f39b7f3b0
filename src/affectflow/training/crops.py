"""Random crops and flips: how they are drawn, and how a batch of them is cut on its device.

What is drawn depends on the seed, the epoch and the face alone: never on the batch that a face is in, on the
process that loads it, or on where a stopped run went on.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_RATIOS = (3 / 4, 4 / 3)
_TRIES = 10
_DRAWS = 2 * _TRIES + 3

# Of SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195).
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


class Uncropped(NamedTuple):
    """A batch of whole faces and what is to be cut from each on the device.

    Attributes:
        images: (B, 3, H, W) uint8, channels last in memory; a face that is smaller fills the upper left corner.
        boxes: (B, 5) int64: top, left, height and width of the crop in pixels, and 1 where it is mirrored.
        image_size: side of the square that each crop becomes.
    """

    images: Tensor
    boxes: Tensor
    image_size: int


def draw_crops(
    heights: NDArray[np.int64], widths: NDArray[np.int64], index: NDArray[np.int64], *, scale_min: float, key: int
) -> NDArray[np.int64]:
    """Draw a crop and a flip for each of B faces.

    A crop has ``scale_min`` to 1 of the area and a side ratio of 3/4 to 4/3; it is the whole face where none of
    ten draws fits into it.

    Args:
        heights: of the faces in pixels, (B,).
        widths: likewise.
        index: which faces they are, (B,).
        scale_min: in (0, 1].
        key: from :func:`crop_key`.

    Returns:
        (B, 5): top, left, height, width, and 1 for mirrored.
    """
    drawn = uniform(key, index, _DRAWS)
    share, ratio = drawn[:, :_TRIES], drawn[:, _TRIES : 2 * _TRIES]
    area = (heights * widths)[:, None] * (scale_min + share * (1 - scale_min))
    low, high = map(math.log, _RATIOS)
    ratio = np.exp(low + ratio * (high - low))
    tall, wide = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
    fits = (tall > 0) & (tall <= heights[:, None]) & (wide > 0) & (wide <= widths[:, None])
    first = fits.argmax(axis=1)[:, None]
    found = fits.any(axis=1)
    height = np.where(found, np.take_along_axis(tall, first, 1)[:, 0], heights).astype(np.int64)
    width = np.where(found, np.take_along_axis(wide, first, 1)[:, 0], widths).astype(np.int64)
    top, left, flip = drawn[:, 2 * _TRIES], drawn[:, 2 * _TRIES + 1], drawn[:, 2 * _TRIES + 2]
    return np.stack(
        [
            (top * (heights - height + 1)).astype(np.int64),
            (left * (widths - width + 1)).astype(np.int64),
            height,
            width,
            (flip < 0.5).astype(np.int64),
        ],
        axis=1,
    )


def crop_key(seed: int, epoch: int) -> int:
    """Return the key from which the crops of an epoch are drawn."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])


def uniform(key: int, index: NDArray[np.int64], draws: int) -> NDArray[np.float64]:
    """Return numbers in [0, 1), (N, ``draws``): always the same ones for a key and an index (SplitMix64)."""
    counter = index.astype(np.uint64)[:, None] * np.uint64(draws) + np.arange(1, draws + 1, dtype=np.uint64)
    bits = np.asarray(np.uint64(key) + counter * _GAMMA, np.uint64)
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    bits ^= bits >> np.uint64(31)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def resized_crop(image: Tensor, box: tuple[int, int, int, int], image_size: int) -> Tensor:
    """Cut one face and resize it to a square, with antialiasing.

    Args:
        image: (3, H, W) uint8; fastest where it is channels last in memory, as decoders give it.
        box: top, left, height, width.
        image_size: side of the result in pixels.
    """
    top, left, height, width = box
    region = image[None, :, top : top + height, left : left + width]
    resized: Tensor = functional.interpolate(region, (image_size, image_size), mode="bilinear", antialias=True)
    return resized[0]


def cut_crops(batch: Uncropped) -> Tensor:
    """Cut, resize (with antialiasing) and mirror all faces of a batch at once, on the device where they are.

    The same triangle filter as :func:`resized_crop`'s, as two batched matrix products; the results differ by 1 of
    255 at most, since the other rounds to whole numbers between its two passes as well.

    Returns:
        (B, 3, image_size, image_size) uint8.
    """
    images, boxes, size = batch
    top, left, height, width, mirrored = boxes.to(images.device, torch.float32).unbind(dim=1)
    rows = _filter(top, height, images.shape[2], size)
    columns = _filter(left, width, images.shape[3], size)
    columns = torch.where(mirrored[:, None, None] > 0, columns.flip(1), columns)
    pixels = images.permute(0, 2, 3, 1).float()  # (B, H, W, 3)
    tall = (rows @ pixels.flatten(2)).view(len(images), size, *pixels.shape[2:])  # (B, S, W, 3)
    both = columns @ tall.transpose(1, 2).flatten(2)  # (B, S across, S down × 3)
    crops = both.view(len(images), size, size, 3).permute(0, 3, 2, 1)
    return (crops + 0.5).clamp_(0, 255).to(torch.uint8, memory_format=torch.contiguous_format)


def _filter(begin: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Return the triangle filters (B, ``size``, ``side``) that resize from ``begin`` on to ``size``."""
    scale = length / size
    support = scale.clamp(min=1.0)
    center = (torch.arange(size, device=begin.device) + 0.5) * scale[:, None]  # (B, S), from the crop's begin
    pixel = torch.arange(side, device=begin.device) + 0.5 - begin[:, None]  # (B, side)
    distance = (pixel[:, None, :] - center[:, :, None]).abs() / support[:, None, None]
    inside = (pixel > 0) & (pixel < length[:, None])
    weight = (1 - distance).clamp(min=0) * inside[:, None, :]
    return weight / weight.sum(dim=2, keepdim=True)
