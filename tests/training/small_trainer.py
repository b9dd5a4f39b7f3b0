"""A trainer of a tiny network; equal arguments give equal trainers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from affectflow.losses import build_loss
from affectflow.models import IMAGENET, ExpressionModel, Normalize, create_backbone
from affectflow.storage import open_storage
from affectflow.training.checkpoints import CheckpointStore
from affectflow.training.distributed import num_processes, rank
from affectflow.training.inputs import Inputs
from affectflow.training.loading import EpochBatches, TrainingFaces, WholeFaces, loader
from affectflow.training.loop import Trainer
from affectflow.training.recipe import Recipe

IMAGE_SIZE = 32
BATCH_SIZE = 12

RECIPE: dict[str, Any] = {
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


def build_trainer(
    inputs: Inputs,
    *,
    checkpoints: str | Path | None = None,
    loss: str = "weighted_cluster+weighted_softmax",
    center_init: str = "normal",
    center_update: str = "paper",
    freeze: tuple[int, str] = (0, "none"),
    dropout: float = 0.2,
    dtype: torch.dtype = torch.float32,
    feature_dim: int = 16,
    class_weights: list[float] | None = None,
    compiled: bool = False,
    on_step: Callable[[int], None] = lambda step: None,
    on_epoch: Callable[[dict[str, Any], float | None], None] = lambda row, rate: None,
    **changes: Any,
) -> Trainer:
    """Build a trainer from nothing.

    Args:
        inputs: the dataset.
        checkpoints: folder or s3:// address for them; None for none.
        loss: one of the five.
        center_init: where centers start.
        center_update: how they move.
        freeze: arguments of ``ExpressionModel.freeze``.
        dropout: before the output layer.
        dtype: of the network, the images and the loss.
        feature_dim: of the network and the loss.
        class_weights: W; None for 1 / N_j.
        compiled: whether the network is compiled.
        on_step: called with the number of steps done before each.
        on_epoch: as the trainer takes it.
        changes: of the recipe.
    """
    torch.manual_seed(0)
    model = ExpressionModel(create_backbone("test_resnet"), feature_dim=feature_dim, dropout=dropout)
    model.freeze(*freeze)
    train, val = inputs.splits["train"], inputs.splits["val"]
    normalise = Normalize(IMAGENET)

    def as_dtype(images: Tensor) -> Tensor:
        return normalise(images).to(dtype)

    trainer = Trainer(
        model.to(dtype),
        build_loss(
            loss,
            class_weights=class_weights or [1 / count for count in train.counts],
            num_classes=8,
            feature_dim=feature_dim,
            center_init=center_init,
            center_update=center_update,
            seed=0,
        ).to(dtype),
        train_loader=loader(
            TrainingFaces(
                inputs.faces, train.rows, train.target, image_size=IMAGE_SIZE, crop_scale_min=0.5, seed=0
            ),
            workers=1,
            batch_sampler=EpochBatches(
                len(train), batch_size=BATCH_SIZE, seed=0, rank=rank(), processes=num_processes()
            ),
        ),
        val_loader=loader(
            WholeFaces(inputs.faces, val.rows, val.target, image_size=IMAGE_SIZE),
            workers=1,
            sampler=range(rank(), len(val), num_processes()),
            batch_size=16,
        ),
        val_size=len(val),
        recipe=Recipe(**{**RECIPE, **changes}),
        normalise=as_dtype,
        device=torch.device("cpu"),
        checkpoints=CheckpointStore(open_storage(str(checkpoints)), "run") if checkpoints else None,
        compiled=compiled,
        on_epoch=on_epoch,
    )
    step = trainer._train_step
    done = 0

    def counted(images: Tensor, target: Tensor) -> dict[str, Tensor]:
        nonlocal done
        on_step(done)
        done += 1
        return step(images, target)

    trainer._train_step = counted  # type: ignore[method-assign]
    return trainer
