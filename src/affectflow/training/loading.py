"""From stored faces to batches: order, decoding, random crops.

What a sample looks like depends on the seed, the epoch and the face alone, never on the number of workers or on
where a stopped run went on.
"""

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import parent_process
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from affectflow.data.faces import Faces, decode_image
from affectflow.training.crops import Uncropped, crop_key, cut_crops, draw_crops, resized_crop
from affectflow.training.distributed import num_processes
from affectflow.training.memory import give_back_freed_memory

_MAX_WORKERS = 8
#: Seconds after which a batch counts as lost: a worker without memory may drop one and say so to nobody.
_PATIENCE = 300


class Sample(NamedTuple):
    """A face as the network gets it: image (3, H, W) uint8, and its expression code."""

    image: Tensor
    target: int


#: What a loader gives: images, (B, 3, H, W) uint8 or still to be cut on the device; and expression codes (B,).
Batch = tuple[Tensor | Uncropped, Tensor]


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """The batches of one epoch as lists of ``(epoch, index)``, in an order drawn from the seed and the epoch.

    The last batch is left out where it would not be full, so that every step averages over as many images;
    ``keep_last`` keeps it, for a pass that trains nothing.

    Args:
        size: number of samples.
        batch_size: samples a batch, over all processes; all of them where there are fewer.
        seed: of the order.
        rank: which process this is; of each batch it gets every ``processes``-th sample, from ``rank`` on.
        processes: how many divide each batch.

    Attributes:
        epoch: which epoch comes, from 0; set before iterating.
        start: batches of it that are done already; set where a stopped run goes on.
        keep_last: whether a last batch that is not full is kept.
    """

    def __init__(self, size: int, *, batch_size: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        self.size = size
        self.batch_size = min(batch_size, size)
        self.seed = seed
        self.rank, self.processes = rank, processes
        self.epoch = 0
        self.start = 0
        self.keep_last = False

    def __len__(self) -> int:
        return math.ceil(self.size / self.batch_size) if self.keep_last else self.size // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        for number in range(self.start, len(self)):
            indices = order[number * self.batch_size : (number + 1) * self.batch_size]
            share = indices[self.rank :: self.processes]
            if len(share):  # a last batch can be smaller than the number of processes
                yield [(self.epoch, int(index)) for index in share]


class TrainingFaces(Dataset[Sample]):
    """Faces with a random crop, resized, and a horizontal flip (Section 4.3); indexed by ``(epoch, index)``.

    Args:
        faces: the dataset.
        rows: which rows of its manifest, (N,).
        target: their expression codes, (N,).
        image_size: side of the returned square in pixels.
        crop_scale_min: smallest share of the face's area that a crop keeps, in (0, 1]. The paper does not give it.
        seed: of the crops and flips.
        crops_on_device: leave cutting to the device: batches are :class:`~affectflow.training.crops.Uncropped`.
    """

    def __init__(
        self,
        faces: Faces,
        rows: NDArray[np.int64],
        target: NDArray[np.int64],
        *,
        image_size: int,
        crop_scale_min: float,
        seed: int,
        crops_on_device: bool = False,
    ) -> None:
        self.pixels = _Pixels(faces, rows, target, image_size, crops_on_device)
        self.crop_scale_min = crop_scale_min
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pixels.rows)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        return _only(self.__getitems__([key]))

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """Return a batch of faces of one epoch."""
        index = np.array([index for _, index in keys])
        heights, widths = self.pixels.sides(index)
        key = crop_key(self.seed, keys[0][0])
        boxes = draw_crops(heights, widths, index, scale_min=self.crop_scale_min, key=key)
        return self.pixels.batch(index, boxes)


class WholeFaces(Dataset[Sample]):
    """Faces as they are, resized to a square: what validation, test and prediction see.

    Args:
        faces: the dataset.
        rows: which rows of its manifest, (N,).
        target: their expression codes, (N,).
        image_size: side of the returned square in pixels.
        crops_on_device: leave resizing to the device: batches are :class:`~affectflow.training.crops.Uncropped`.
    """

    def __init__(
        self,
        faces: Faces,
        rows: NDArray[np.int64],
        target: NDArray[np.int64],
        *,
        image_size: int,
        crops_on_device: bool = False,
    ) -> None:
        self.pixels = _Pixels(faces, rows, target, image_size, crops_on_device)

    def __len__(self) -> int:
        return len(self.pixels.rows)

    def __getitem__(self, index: int) -> Sample:
        return _only(self.__getitems__([index]))

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return a batch of faces."""
        index = np.array(indices)
        heights, widths = self.pixels.sides(index)
        none = np.zeros_like(heights)
        return self.pixels.batch(index, np.stack([none, none, heights, widths, none], axis=1))


class _Pixels:
    """Decodes chosen faces and cuts boxes from them, here or as the device will."""

    def __init__(
        self, faces: Faces, rows: NDArray[np.int64], target: NDArray[np.int64], image_size: int, on_device: bool
    ) -> None:
        self.faces, self.rows, self.target = faces, rows, target
        self.image_size, self.on_device = image_size, on_device
        self._sides = faces.manifest[["height", "width"]].to_numpy(np.int64)[rows]

    def sides(self, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return heights and widths (B,) in pixels."""
        return self._sides[index, 0], self._sides[index, 1]

    def batch(self, index: NDArray[np.int64], boxes: NDArray[np.int64]) -> Batch:
        """Return faces, of each what its box (top, left, height, width, mirrored) says, and their codes."""
        target = torch.from_numpy(self.target[index])
        if self.on_device:
            return Uncropped(self._whole(index), torch.from_numpy(boxes), self.image_size), target
        images = torch.empty(len(index), 3, self.image_size, self.image_size, dtype=torch.uint8)
        for image, row, (*box, mirrored) in zip(images, self.rows[index].tolist(), boxes.tolist(), strict=True):
            pixels = np.require(decode_image(self.faces.image_bytes(row)), requirements="W")
            face = torch.from_numpy(pixels).permute(2, 0, 1)
            crop = resized_crop(face, box, self.image_size)
            image.copy_(crop.flip(-1) if mirrored else crop)
        return images, target

    def _whole(self, index: NDArray[np.int64]) -> Tensor:
        height, width = self._sides[index].max(axis=0).tolist()
        pixels = np.empty((len(index), height, width, 3), np.uint8)
        for place, row, (tall, wide) in zip(
            pixels, self.rows[index].tolist(), self._sides[index].tolist(), strict=True
        ):
            place[:tall, :wide] = decode_image(self.faces.image_bytes(row))
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _only(batch: Batch) -> Sample:
    images, target = batch
    return Sample(cut_crops(images)[0] if isinstance(images, Uncropped) else images[0], int(target[0]))


def resize_whole(image: Tensor, image_size: int) -> Tensor:
    """Resize a whole image (3, H, W) uint8 to a square, with antialiasing."""
    height, width = image.shape[-2:]
    return resized_crop(image, (0, 0, height, width), image_size)


class _Loader(DataLoader[Sample]):
    """Gives freed memory back before workers are forked from this process.

    They would share it, and this process's next write to each page copy it.
    """

    def __iter__(self) -> Any:
        if self.multiprocessing_context is None:
            give_back_freed_memory()
        return super().__iter__()


def loader(dataset: Dataset[Sample], *, workers: int, **order: Any) -> DataLoader[Sample]:
    """Return a loader of :data:`Batch`.

    Its workers live for one pass. Where several processes train they are forked from a server that holds nothing
    but the imports, since a process that is forked beside the threads of a process group can hang.

    Args:
        dataset: of faces; can be pickled.
        workers: processes that decode for this process; 0 for its share of the cores, at most 8.
        order: ``batch_sampler``, or ``batch_size`` and ``sampler``, as torch's DataLoader takes them.
    """
    cores = os.cpu_count() or 1
    served = num_processes() > 1
    return _Loader(
        dataset,
        num_workers=workers or min(max(1, cores // num_processes()), _MAX_WORKERS),
        multiprocessing_context="forkserver" if served else None,
        worker_init_fn=_end_with_parent if served else None,
        timeout=_PATIENCE,
        generator=torch.Generator(),  # else each epoch draws from the generator that dropout uses
        pin_memory=torch.cuda.is_available(),
        collate_fn=_as_it_is,
        **order,
    )


def _end_with_parent(_worker: int) -> None:
    """Let a worker end when the process that it decodes for is killed.

    A worker notices by itself only the end of the fork server, which in turn waits for its workers.
    """
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.join,), daemon=True).start()


def _exit_after(wait: Callable[[], None]) -> None:
    wait()
    os._exit(1)


def _as_it_is(batch: Any) -> Any:
    """Keep a batch as its dataset made it."""
    return batch
