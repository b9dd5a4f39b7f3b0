"""Batches depend on seed, epoch and face alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from affectflow.errors import ArtifactError
from affectflow.training.inputs import Inputs, open_inputs
from affectflow.training.loading import EpochBatches, TrainingFaces, WholeFaces, loader, random_crop


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


def test_crops_stay_inside_and_keep_at_least_the_share() -> None:
    random = np.random.default_rng(0)
    for _ in range(500):
        height, width = random.integers(20, 200, size=2)
        top, left, crop_height, crop_width = random_crop(int(height), int(width), scale_min=0.5, random=random)
        assert 0 <= top <= top + crop_height <= height
        assert 0 <= left <= left + crop_width <= width
        assert crop_height * crop_width >= 0.45 * height * width  # rounding to pixels costs a little


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
