"""Batches depend on seed, epoch and face alone."""

import functools
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from affectflow.data.faces import Faces, decode_image
from affectflow.errors import ArtifactError
from affectflow.training.crops import crop_key, draw_crops, uniform
from affectflow.training.inference import to_device
from affectflow.training.inputs import Inputs, open_inputs
from affectflow.training.loading import EpochBatches, TrainingFaces, WholeFaces, loader


def training_faces(inputs: Inputs, seed: int = 0) -> TrainingFaces:
    part = inputs.splits["train"]
    return TrainingFaces(inputs.faces, part.rows, part.target, image_size=32, crop_scale_min=0.5, seed=seed)


def all_batches(inputs: Inputs, *, workers: int, start: int = 0, epoch: int = 0) -> list[torch.Tensor]:
    batches = EpochBatches(len(inputs.splits["train"]), batch_size=12, seed=0)
    batches.epoch, batches.start = epoch, start
    return [images for images, _ in loader(training_faces(inputs), workers=workers, batch_sampler=batches)]


def test_batches_do_not_depend_on_the_number_of_workers(inputs: Inputs) -> None:
    one, two = all_batches(inputs, workers=1), all_batches(inputs, workers=2)
    assert len(one) == len(two)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_resumed_epoch_gives_the_batches_that_were_left(inputs: Inputs) -> None:
    whole, rest = all_batches(inputs, workers=1), all_batches(inputs, workers=1, start=2)
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))


def test_epochs_differ_in_order_and_crops(inputs: Inputs) -> None:
    first, second = all_batches(inputs, workers=1)[0], all_batches(inputs, workers=1, epoch=1)[0]
    assert not torch.equal(first, second)
    faces = training_faces(inputs)
    assert not torch.equal(faces[0, 0].image, faces[1, 0].image)
    assert torch.equal(faces[1, 0].image, training_faces(inputs)[1, 0].image)


def test_every_full_batch_of_an_epoch_holds_other_faces() -> None:
    batches = EpochBatches(100, batch_size=30, seed=1)
    indices = [index for batch in batches for _, index in batch]
    assert len(batches) == 3
    assert len(set(indices)) == 90


def test_fewer_faces_than_a_batch_make_one_batch() -> None:
    assert [len(batch) for batch in EpochBatches(5, batch_size=36, seed=0)] == [5]


def test_crops_stay_inside_keep_at_least_the_share_and_are_spread_evenly() -> None:
    heights = widths = np.random.default_rng(0).integers(20, 200, size=4000)
    boxes = draw_crops(heights, widths, np.arange(4000), scale_min=0.5, key=crop_key(0, 0))
    top, left, height, width, mirrored = boxes.T
    assert (top >= 0).all() and (top + height <= heights).all() and (height > 0).all()
    assert (left >= 0).all() and (left + width <= widths).all() and (width > 0).all()
    share = height * width / (heights * widths)
    assert (share >= 0.45).all()  # rounding to pixels costs a little
    whole = share == 1
    assert whole.mean() < 0.01
    assert abs(share[~whole].mean() - 0.71) < 0.03  # large crops fit less often
    ratio = (width / height)[~whole]
    assert 0.7 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.45
    assert abs(mirrored.mean() - 0.5) < 0.03
    room = heights > height
    assert abs((top / np.maximum(heights - height, 1))[room].mean() - 0.5) < 0.03


def test_the_numbers_drawn_for_a_face_are_uniform_and_its_own() -> None:
    drawn = uniform(crop_key(1, 2), np.arange(2000), 23)
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert np.abs(np.corrcoef(drawn.T) - np.eye(23)).max() < 0.1
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert np.abs(counts / drawn.size * 20 - 1).max() < 0.1
    assert np.array_equal(drawn[[7, 3]], uniform(crop_key(1, 2), np.array([7, 3]), 23))
    assert len(np.unique([uniform(crop_key(*key), np.arange(9), 3) for key in ((0, 0), (0, 1), (1, 0))])) == 81


def test_crops_that_the_device_cuts_are_those_of_the_cpu(inputs: Inputs) -> None:
    """To 1 of 255, since the CPU rounds once more between its two passes; faces of several sizes in one batch."""
    part = inputs.splits["train"]
    random = np.random.default_rng(0)
    faces = VariedFaces(inputs.faces, [int(side) for side in random.integers(20, 90, len(part))])
    for image_size in (32, 80):
        make = functools.partial(
            TrainingFaces,
            faces,
            np.arange(len(part)),
            part.target,
            image_size=image_size,
            crop_scale_min=0.5,
            seed=0,
        )
        keys = [(3, index) for index in range(24)]
        wanted, target = make().__getitems__(keys)
        batch, same_target = make(crops_on_device=True).__getitems__(keys)
        images = to_device(batch, torch.device("cpu"))
        assert torch.equal(target, same_target)
        difference = images.int() - wanted.int()
        assert difference.abs().max() <= 1
        assert abs(difference.float().mean()) < 0.02  # neither side is brighter
        assert batch.boxes[:, 4].sum() not in (0, 24)  # some are mirrored and some are not


class VariedFaces:
    """Faces of other sides than those stored."""

    def __init__(self, faces: Faces, sides: list[int]) -> None:
        self.manifest = pd.DataFrame({"height": sides, "width": sides})
        self._faces, self._sides = faces, sides

    def image_bytes(self, row: int) -> memoryview:
        picture = Image.fromarray(decode_image(self._faces.image_bytes(row)))
        stream = io.BytesIO()
        picture.resize((self._sides[row], self._sides[row])).save(stream, "PNG")
        return memoryview(stream.getvalue())


@pytest.mark.parametrize("crops_on_device", [False, True])
def test_validation_sees_the_same_on_either_path(inputs: Inputs, crops_on_device: bool) -> None:
    part = inputs.splits["val"]
    faces = WholeFaces(inputs.faces, part.rows, part.target, image_size=32, crops_on_device=crops_on_device)
    images, _ = next(iter(loader(faces, workers=1, batch_size=len(part))))
    pixels = to_device(images, torch.device("cpu"))
    for image, row in zip(pixels, part.rows, strict=True):
        whole = torch.from_numpy(decode_image(inputs.faces.image_bytes(row)).copy()).permute(2, 0, 1)
        wanted = transforms.resize(whole, [32, 32], antialias=True)
        assert (image.int() - wanted.int()).abs().max() <= crops_on_device


def test_validation_sees_whole_faces_in_order(inputs: Inputs) -> None:
    part = inputs.splits["val"]
    faces = WholeFaces(inputs.faces, part.rows, part.target, image_size=32)
    images, target = next(iter(loader(faces, workers=1, batch_size=len(part))))
    assert images.dtype == torch.uint8
    assert target.tolist() == part.target.tolist()
    assert torch.equal(images[3], faces[3].image)


def test_splits_of_other_faces_are_refused(dataset: tuple[Path, Path], tmp_path: Path) -> None:
    import json
    import shutil

    faces, splits = dataset
    shutil.copytree(splits, tmp_path / "splits")
    header = json.loads((tmp_path / "splits" / "splits.json").read_text())
    (tmp_path / "splits" / "splits.json").write_text(json.dumps({**header, "faces_digest": "0" * 64}))
    with pytest.raises(ArtifactError, match="drawn from"):
        open_inputs(faces, tmp_path / "splits")
