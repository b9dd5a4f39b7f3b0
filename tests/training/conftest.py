"""A small dataset, made here, and a small trainer of it."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_trainer import build_trainer

from affectflow.artifacts import new_artifact
from affectflow.data.faces import Faces
from affectflow.data.ingest import CropSettings, ingest
from affectflow.data.listing import list_faces
from affectflow.data.splits import write_splits
from affectflow.data.synthetic import write_synthetic_affectnet
from affectflow.training.inputs import Inputs, open_inputs
from affectflow.training.loop import Trainer


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a faces and a splits artifact with 96 drawn faces."""
    root = tmp_path_factory.mktemp("data")
    source = root / "source"
    source.mkdir()
    write_synthetic_affectnet(source, images=96, seed=0)
    header: dict[str, Any] = {}
    with new_artifact(root / "faces", "faces", header) as folder:
        listing = list_faces(source, "manual")
        header |= ingest(listing, folder, CropSettings(64, 0.1, 90), max_quarantined=0.0, workers=1)
    header = {}
    with new_artifact(root / "splits", "splits", header) as folder:
        header |= write_splits(folder, Faces.open(root / "faces"), val_per_class=2, test_per_class=2, seed=0)
    return root / "faces", root / "splits"


@pytest.fixture(scope="session")
def inputs(dataset: tuple[Path, Path]) -> Inputs:
    return open_inputs(*dataset)


@pytest.fixture
def make_trainer(inputs: Inputs) -> Callable[..., Trainer]:
    """Return :func:`small_trainer.build_trainer` for the small dataset."""
    return functools.partial(build_trainer, inputs)
