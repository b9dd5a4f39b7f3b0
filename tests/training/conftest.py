"""A small dataset and a small trainer, both made here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from affectflow.artifacts import new_artifact
from affectflow.data.faces import Faces
from affectflow.data.ingest import CropSettings, ingest
from affectflow.data.listing import list_faces
from affectflow.data.splits import write_splits
from affectflow.data.synthetic import write_synthetic_affectnet
from affectflow.losses import build_loss
from affectflow.models import IMAGENET, ExpressionModel, Normalize, create_backbone
from affectflow.training.checkpoints import CheckpointStore
from affectflow.training.inputs import Inputs, open_inputs
from affectflow.training.loading import EpochBatches, TrainingFaces, WholeFaces, loader
from affectflow.training.loop import Recipe, Trainer

IMAGE_SIZE = 32


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
    """Return a function that builds a trainer from nothing; equal arguments give equal trainers."""

    def make(
        *,
        checkpoints: Path | None = None,
        loss: str = "weighted_cluster+weighted_softmax",
        center_init: str = "normal",
        on_step: Callable[[int], None] = lambda step: None,
        **changes: Any,
    ) -> Trainer:
        torch.manual_seed(0)
        model = ExpressionModel(create_backbone("test_resnet"), feature_dim=16, dropout=0.2)
        train, val = inputs.splits["train"], inputs.splits["val"]
        weights = [1 / count for count in train.counts]
        recipe = {
            "epochs": 2,
            "learning_rate": 0.01,
            "halve_every": 1,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "precision": "float32",
            "select": "best_uar",
            "checkpoint_every": 0,
            "lambda_warmup_epochs": 0,
            "stop_on_collapse": False,
            "seed": 0,
        }
        trainer = Trainer(
            model,
            build_loss(
                loss, class_weights=weights, num_classes=8, feature_dim=16, center_init=center_init, seed=0
            ),
            train_loader=loader(
                TrainingFaces(
                    inputs.faces, train.rows, train.target, image_size=IMAGE_SIZE, crop_scale_min=0.5, seed=0
                ),
                workers=1,
                batch_sampler=EpochBatches(len(train), batch_size=12, seed=0),
            ),
            val_loader=loader(
                WholeFaces(inputs.faces, val.rows, val.target, image_size=IMAGE_SIZE), workers=1, batch_size=16
            ),
            recipe=Recipe(**{**recipe, **changes}),
            normalise=Normalize(IMAGENET),
            device=torch.device("cpu"),
            checkpoints=CheckpointStore(checkpoints) if checkpoints else None,
            on_epoch=lambda row, rate: None,
        )
        step = trainer._train_step
        done = 0

        def counted(images: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
            nonlocal done
            on_step(done)
            done += 1
            return step(images, target)

        trainer._train_step = counted  # type: ignore[method-assign]
        return trainer

    return make
