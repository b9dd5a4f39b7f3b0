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
from torchvision.transforms.v2 import functional as transforms

from affectflow.data.faces import Faces, decode_image
from affectflow.training.distributed import num_processes

_MAX_WORKERS = 8
#: Seconds after which a batch counts as lost: a worker without memory may drop one and say so to nobody.
_PATIENCE = 300
_CROP_RATIOS = (3 / 4, 4 / 3)
_CROP_TRIES = 10


class Sample(NamedTuple):
    """A face as the network gets it: image (3, H, W) uint8, and its expression code."""

    image: Tensor
    target: int


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
    ) -> None:
        self.faces = faces
        self.rows = rows
        self.target = target
        self.image_size = image_size
        self.crop_scale_min = crop_scale_min
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        random = np.random.default_rng([self.seed, epoch, index])
        image = _to_tensor(self.faces, self.rows[index])
        top, left, height, width = random_crop(
            image.shape[-2], image.shape[-1], scale_min=self.crop_scale_min, random=random
        )
        size = [self.image_size, self.image_size]
        image = transforms.resized_crop(image, top, left, height, width, size, antialias=True)
        if random.random() < 0.5:
            image = transforms.horizontal_flip(image)
        return Sample(image, int(self.target[index]))


class WholeFaces(Dataset[Sample]):
    """Faces as they are, resized to a square: what validation, test and prediction see.

    Args:
        faces: the dataset.
        rows: which rows of its manifest, (N,).
        target: their expression codes, (N,).
        image_size: side of the returned square in pixels.
    """

    def __init__(
        self, faces: Faces, rows: NDArray[np.int64], target: NDArray[np.int64], *, image_size: int
    ) -> None:
        self.faces = faces
        self.rows = rows
        self.target = target
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        image = resize_whole(_to_tensor(self.faces, self.rows[index]), self.image_size)
        return Sample(image, int(self.target[index]))


def resize_whole(image: Tensor, image_size: int) -> Tensor:
    """Resize a whole image (3, H, W) uint8 to a square, with antialiasing."""
    resized: Tensor = transforms.resize(image, [image_size, image_size], antialias=True)
    return resized


def random_crop(
    height: int, width: int, *, scale_min: float, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw a crop of ``scale_min`` to 1 of the area and a side ratio of 3/4 to 4/3.

    Returns:
        top, left, height, width in pixels; the whole image where no draw fits.
    """
    for _ in range(_CROP_TRIES):
        area = height * width * random.uniform(scale_min, 1.0)
        ratio = math.exp(random.uniform(math.log(_CROP_RATIOS[0]), math.log(_CROP_RATIOS[1])))
        crop_height, crop_width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < crop_height <= height and 0 < crop_width <= width:
            top = int(random.integers(0, height - crop_height + 1))
            left = int(random.integers(0, width - crop_width + 1))
            return top, left, crop_height, crop_width
    return 0, 0, height, width


def loader(dataset: Dataset[Sample], *, workers: int, **order: Any) -> DataLoader[Sample]:
    """Return a loader of ``(images (B, 3, H, W) uint8, target (B,) int64)``.

    Its workers live for one pass. Where several processes train they are forked from a server that holds nothing
    but the imports, since a process that is forked beside the threads of a process group can hang.

    Args:
        dataset: of faces; can be pickled.
        workers: processes that decode for this process; 0 for its share of the cores, at most 8.
        order: ``batch_sampler``, or ``batch_size`` and ``sampler``, as torch's DataLoader takes them.
    """
    cores = os.cpu_count() or 1
    served = num_processes() > 1
    return DataLoader(
        dataset,
        num_workers=workers or min(max(1, cores // num_processes()), _MAX_WORKERS),
        multiprocessing_context="forkserver" if served else None,
        worker_init_fn=_end_with_parent if served else None,
        timeout=_PATIENCE,
        generator=torch.Generator(),  # else each epoch draws from the generator that dropout uses
        pin_memory=torch.cuda.is_available(),
        collate_fn=_collate,
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


def _collate(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    images = torch.stack([sample.image for sample in samples])
    return images, torch.tensor([sample.target for sample in samples], dtype=torch.int64)


def _to_tensor(faces: Faces, row: int) -> Tensor:
    pixels = decode_image(faces.image_bytes(int(row)))
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
