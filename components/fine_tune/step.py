"""Fine-tune a model: settings → inputs → network, loss, loaders → training → model, history, MLflow run."""

import contextlib
import functools
import json
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import Field, field_validator

from affectflow import __version__
from affectflow.artifacts import artifact_digest, canonical_digest, new_artifact, sha256_file
from affectflow.data.class_weights import read_class_weights
from affectflow.errors import SettingsError, WeightsError, what_got_wanted
from affectflow.html import Page
from affectflow.labels import EXPRESSIONS
from affectflow.losses import JointLoss, build_loss
from affectflow.metrics.drawing import png_bytes
from affectflow.metrics.figures import learning_curves as learning_curves_figure
from affectflow.models import (
    ExpressionModel,
    InputNorm,
    Normalize,
    choose_input_norm,
    create_backbone,
    load_pretrained,
    merge_backbone_args,
    model_spec,
    write_weights,
)
from affectflow.progress import say, warn
from affectflow.serving import input_example, signature
from affectflow.steps import StepSettings, check_settings
from affectflow.tracking import Run, model_run, write_sidecar
from affectflow.training.checkpoints import CheckpointStore
from affectflow.training.determinism import use_deterministic_algorithms
from affectflow.training.distributed import (
    count_processes,
    in_processes,
    num_processes,
    rank,
    training_device,
)
from affectflow.training.inputs import Inputs, open_inputs
from affectflow.training.loading import EpochBatches, TrainingFaces, WholeFaces, loader
from affectflow.training.loop import Recipe, Row, Trainer
from components.code_digest import code_digest

#: Stages that the paper freezes in a pre-trained network; from scratch it freezes none (Table 2).
_PAPER_FROZEN_STAGES = 3

#: Validation batches are larger than training's: nothing is kept for a backward pass.
_VAL_BATCH_FACTOR = 2


class Settings(StepSettings):
    """What :func:`run` takes; see ``component.py`` for meanings, defaults and the paper's values."""

    backbone: str = Field(min_length=1)
    backbone_args: dict[str, Any]
    weights: str
    input_norm: Literal["paper", "native"]
    freeze_stages: int = Field(ge=-1, le=5)
    keep_batchnorm: Literal["auto", "frozen", "all", "none"]
    feature_dim: int = Field(ge=1, le=65536)
    image_size: int = Field(ge=32, le=1024)
    loss: str
    center_lambda: float = Field(ge=0)
    center_gamma: float = Field(gt=0)
    cluster_lambda: float = Field(ge=0)
    cluster_gamma: float = Field(gt=0)
    cluster_alpha: float = Field(gt=0)
    center_init: Literal["normal", "zeros", "class_means"]
    center_update: Literal["paper", "gradient"]
    center_step_limit: float = Field(ge=0)
    feature_norm: Literal["none", "l2"]
    alpha_scale: Literal["absolute", "features"]
    lambda_warmup_epochs: int = Field(ge=0)
    stop_on_collapse: bool
    reduction: Literal["weighted_mean", "mean", "sum"]
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    halve_learning_rate_every: int = Field(ge=1)
    crop_scale_min: float = Field(gt=0, le=1)
    select: Literal["best_uar", "best_loss", "last"]
    precision: Literal["float32", "bfloat16", "float16"]
    deterministic: bool
    compile_model: bool
    processes: int = Field(ge=0, le=64)
    workers: int = Field(ge=0, le=128)
    seed: int = Field(ge=0, lt=2**31)
    checkpoint_dir: str
    checkpoint_every: int = Field(ge=0)
    row: int = Field(ge=0, le=20)
    pretrained: str
    weights_digest: str

    @field_validator("backbone_args", mode="before")
    @classmethod
    def _parse_json(cls, value: str) -> Any:
        try:
            return json.loads(value or "{}")
        except json.JSONDecodeError:
            raise ValueError('a JSON object such as {"pad_type": "same"}') from None

    @field_validator("weights")
    @classmethod
    def _must_exist(cls, value: str) -> str:
        if value and not Path(value).is_file():
            raise ValueError("a file of pre-trained weights that exists")
        return value

    @property
    def frozen_stages(self) -> int:
        """Stages to freeze, the paper's rule resolved."""
        if self.freeze_stages >= 0:
            return self.freeze_stages
        return _PAPER_FROZEN_STAGES if self.weights else 0

    @property
    def source(self) -> str:
        """What the weights are called: by what they were trained on or by their file's name; or ``none``."""
        return (self.pretrained or Path(self.weights).stem) if self.weights else "none"

    def deciding(self) -> dict[str, Any]:
        """Return the settings that the result depends on, where files lie and how fast it goes left out."""
        aside = {
            "weights",
            "weights_digest",
            "processes",
            "workers",
            "checkpoint_dir",
            "checkpoint_every",
            "row",
            "pretrained",
            "freeze_stages",
        }
        return {**self.model_dump(exclude=aside), "frozen_stages": self.frozen_stages}


def run(
    *,
    faces: str,
    splits: str,
    class_weights: str,
    model: str,
    history: str,
    learning_curves: str,
    summary: str,
    **settings: Any,
) -> None:
    """Train one model and write it; see ``component.py`` for what each path holds."""
    chosen = check_settings(Settings, **settings)
    paths = {
        "faces": faces,
        "splits": splits,
        "class_weights": class_weights,
        "model": model,
        "history": history,
        "learning_curves": learning_curves,
        "summary": summary,
    }
    count = count_processes(chosen.processes, batch_size=chosen.batch_size)
    in_processes(count, functools.partial(_train, chosen, **paths))


def _train(
    chosen: Settings,
    *,
    faces: str,
    splits: str,
    class_weights: str,
    model: str,
    history: str,
    learning_curves: str,
    summary: str,
) -> None:
    """What each process does; rank 0 alone tracks and writes."""
    inputs = open_inputs(faces, splits)
    weights, weights_header = read_class_weights(class_weights)
    digests = {
        "faces": inputs.faces_digest,
        "splits": inputs.splits_digest,
        "class_weights": artifact_digest(weights_header),
        "weights": _checked_weights_digest(chosen),
    }
    code = code_digest("fine_tune")
    row_key = canonical_digest({"inputs": digests, "settings": chosen.deciding(), "code": code})

    if chosen.deterministic:
        use_deterministic_algorithms()
    device = training_device()
    torch.manual_seed(chosen.seed)
    with _bad_settings():
        network, input_norm, spec = _build_network(chosen)
        loss = _build_loss(chosen, weights)
    say(_describe(chosen, inputs, network, device))

    with _tracked(chosen, row_key, _tags(chosen, inputs, code)) as tracked:
        tracked.log_params(chosen.deciding(), prefix="train")
        tracked.log_dataset(
            name="faces",
            digest=inputs.splits_digest,
            source=faces,
            context="training",
            counts=inputs.splits["train"].counts,
        )
        trainer = _build_trainer(chosen, inputs, network, loss, input_norm, device, row_key, tracked)
        rows = trainer.fit()
        if rank() > 0:
            return
        _name_cluster_state(chosen, rows, tracked)

        header = {
            **spec,
            "image_size": chosen.image_size,
            "input_norm": input_norm.to_json(),
            "loss": chosen.loss,
            "pretrained": chosen.source,
            "row": chosen.row,
            "seed": chosen.seed,
            "settings": chosen.deciding(),
            "selected_epoch": int(trainer.best_row["epoch"]),
            "inputs": digests,
            "versions": {name: version(name) for name in ("torch", "torchvision", "timm")}
            | {"affectflow": __version__, "python": platform.python_version(), "code": code},
        }
        _write_history(history, rows)
        with new_artifact(model, "model", header) as folder:
            write_weights(folder, network)
            write_sidecar(folder, tracked)
        if trainer.checkpoints:
            trainer.checkpoints.clear()

        curves = png_bytes(_curves(rows, chosen, trainer))
        page = Page(_run_name(chosen))
        page.images((curves, "Loss, accuracy and UAR by epoch"))
        Path(learning_curves).write_text(page.render(), encoding="utf-8")
        Path(summary).write_text(_summary(chosen, trainer.best_row, tracked), encoding="utf-8")
        _log_training(tracked, model, history, curves)
    say(
        f"kept epoch {trainer.best_row['epoch']:.0f}: validation UAR {trainer.best_row['val_uar']:.3f}, "
        f"accuracy {trainer.best_row['val_accuracy']:.3f} (chance {1 / len(EXPRESSIONS):.3f}); model in {model}"
    )


def _tracked(chosen: Settings, row_key: str, tags: dict[str, str]) -> contextlib.AbstractContextManager[Run]:
    """Return the model's run, or an untracked one where another process has it."""
    if rank() > 0:
        return contextlib.nullcontext(Run())
    return model_run(name=_run_name(chosen), row_key=row_key, tags=tags)


@contextlib.contextmanager
def _bad_settings() -> Iterator[None]:
    """Report an argument that the models or losses refuse as what it is here: a setting of the user's."""
    try:
        yield
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _checked_weights_digest(chosen: Settings) -> str:
    if not chosen.weights:
        return ""
    digest = sha256_file(Path(chosen.weights))
    if chosen.weights_digest not in ("", digest):
        raise WeightsError(
            what_got_wanted(
                chosen.weights,
                got=f"SHA-256 {digest[:12]}…",
                wanted=f"{chosen.weights_digest[:12]}…, as when the pipeline was started",
                do="start it again, or put the file back",
            )
        )
    return digest


def _build_network(chosen: Settings) -> tuple[ExpressionModel, InputNorm, dict[str, Any]]:
    """Return the network with its weights loaded and its first stages frozen, its input norm, and its header."""
    backbone_args, info = chosen.backbone_args, None
    if chosen.weights:
        backbone_args = merge_backbone_args(chosen.weights, chosen.backbone, backbone_args)
    backbone = create_backbone(chosen.backbone, backbone_args)
    if chosen.weights:
        info = load_pretrained(backbone, chosen.weights, chosen.backbone)
        say(f"loaded {info.entries} entries of {chosen.weights} ({info.format})")
    network = ExpressionModel(backbone, len(EXPRESSIONS), chosen.feature_dim)
    keep_batchnorm = chosen.keep_batchnorm
    if keep_batchnorm == "auto":
        keep_batchnorm = "all" if info is not None and info.folded_batchnorm else "frozen"
    network.freeze(chosen.frozen_stages, keep_batchnorm)
    if keep_batchnorm == "all":
        say("BatchNorm keeps its statistics in all stages" + (" (folded in these weights)" if info else ""))
    if chosen.frozen_stages and not chosen.weights:
        warn(
            f"Stages 1 to {chosen.frozen_stages} are frozen at random values, since no weights were given; "
            "pass --freeze-stages 0 to train them"
        )
    spec = model_spec(
        backbone=chosen.backbone,
        backbone_args=backbone_args,
        classes=EXPRESSIONS,
        feature_dim=chosen.feature_dim,
        dropout=0.0,
        activation="relu",
    )
    return network, choose_input_norm(chosen.input_norm, info), spec


def _build_loss(chosen: Settings, class_weights: list[float]) -> JointLoss:
    centers = chosen.loss.startswith("center+")
    return build_loss(
        chosen.loss,
        class_weights=class_weights,
        num_classes=len(EXPRESSIONS),
        feature_dim=chosen.feature_dim,
        lambda_=chosen.center_lambda if centers else chosen.cluster_lambda,
        alpha=chosen.cluster_alpha,
        gamma=chosen.center_gamma if centers else chosen.cluster_gamma,
        center_update=chosen.center_update,
        center_init=chosen.center_init,
        center_step_limit=chosen.center_step_limit or None,
        feature_norm=chosen.feature_norm,
        alpha_scale=chosen.alpha_scale,
        reduction=chosen.reduction,
        seed=chosen.seed,
    )


def _build_trainer(
    chosen: Settings,
    inputs: Inputs,
    network: ExpressionModel,
    loss: JointLoss,
    input_norm: InputNorm,
    device: torch.device,
    row_key: str,
    tracked: Run,
) -> Trainer:
    train, val = inputs.splits["train"], inputs.splits["val"]
    train_faces = TrainingFaces(
        inputs.faces,
        train.rows,
        train.target,
        image_size=chosen.image_size,
        crop_scale_min=chosen.crop_scale_min,
        seed=chosen.seed,
    )
    val_faces = WholeFaces(inputs.faces, val.rows, val.target, image_size=chosen.image_size)
    batches = EpochBatches(
        len(train), batch_size=chosen.batch_size, seed=chosen.seed, rank=rank(), processes=num_processes()
    )
    if chosen.compile_model:
        network.compile()

    def report(row: Row, images_per_second: float) -> None:
        numbers = {name: value for name, value in row.items() if isinstance(value, float)}
        tracked.log_metrics({**numbers, "images_per_second": images_per_second}, step=int(row["epoch"]))
        say(
            f"epoch {row['epoch']:.0f}/{chosen.epochs}: train loss {row['train_loss']:.4f}, "
            f"val loss {row['val_loss']:.4f}, val accuracy {row['val_accuracy']:.3f}, "
            f"val UAR {row['val_uar']:.3f}, {images_per_second:.0f} images/s"
        )

    return Trainer(
        network.to(device, memory_format=torch.channels_last),
        loss.to(device),
        train_loader=loader(train_faces, workers=chosen.workers, batch_sampler=batches),
        val_loader=loader(
            val_faces,
            workers=chosen.workers,
            sampler=range(rank(), len(val), num_processes()),
            batch_size=_VAL_BATCH_FACTOR * chosen.batch_size // num_processes(),
        ),
        val_size=len(val),
        recipe=Recipe(
            epochs=chosen.epochs,
            learning_rate=chosen.learning_rate,
            halve_every=chosen.halve_learning_rate_every,
            momentum=chosen.momentum,
            weight_decay=chosen.weight_decay,
            precision=chosen.precision,
            select=chosen.select,
            checkpoint_every=chosen.checkpoint_every,
            lambda_warmup_epochs=chosen.lambda_warmup_epochs,
            stop_on_collapse=chosen.stop_on_collapse,
            seed=chosen.seed,
        ),
        normalise=Normalize(input_norm).to(device),
        device=device,
        checkpoints=(
            CheckpointStore(Path(chosen.checkpoint_dir) / f"fine_tune-{row_key[:16]}")
            if chosen.checkpoint_dir
            else None
        ),
        on_epoch=report,
    )


def _write_history(path: str, rows: list[Row]) -> None:
    with new_artifact(path, "history", {"epochs": len(rows)}) as folder:
        pq.write_table(pa.Table.from_pylist(rows), folder / "history.parquet")


def _curves(rows: list[Row], chosen: Settings, trainer: Trainer) -> Any:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return learning_curves_figure(columns, title=_run_name(chosen), chosen_epoch=int(trainer.best_row["epoch"]))


def _log_training(tracked: Run, model: str, history: str, curves: bytes) -> None:
    if not tracked.run_id:
        return
    tracked.log_bytes(curves, name="learning_curves.png", folder="training")
    tracked.log_folder(history, folder="training/history")
    tracked.log_file(Path(model) / "model.json", folder="training")
    tracked.log_model(model, signature=signature(), input_example=input_example())


def _name_cluster_state(chosen: Settings, rows: list[Row], tracked: Run) -> None:
    """Say and tag what the cluster term came to where that is not what it is for (see docs/method.md)."""
    state = rows[-1]["cluster_state"]
    tracked.set_tags({"cluster_state": state})
    if state == "collapsed":
        warn(
            "the features have collapsed: every face has nearly the same one, so one class is predicted; "
            "try --center-init normal, --feature-norm l2 or a smaller lambda"
        )
    elif state == "off" and chosen.loss.startswith("weighted_cluster"):
        warn(
            "the weighted-cluster term is off: the centers are so far apart that it pulls next to nothing "
            "(the paper's letter does that); --feature-norm l2 or --alpha-scale features may mend it"
        )


def _run_name(chosen: Settings) -> str:
    row = [str(chosen.row)] if chosen.row else []
    return " · ".join([*row, chosen.backbone, chosen.source, chosen.loss, f"seed {chosen.seed}"])


def _tags(chosen: Settings, inputs: Inputs, code: str) -> dict[str, str]:
    return {
        "affectflow.kind": "model",
        "row": str(chosen.row or ""),
        "backbone": chosen.backbone,
        "pretrained": chosen.source,
        "loss": chosen.loss,
        "seed": str(chosen.seed),
        "dataset": inputs.splits_digest[:16],
        "code": code[:16],
    }


def _describe(chosen: Settings, inputs: Inputs, network: ExpressionModel, device: torch.device) -> str:
    trainable = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    start = f"from {chosen.source}" if chosen.weights else "from scratch"
    frozen = f", stages 1 to {chosen.frozen_stages} frozen" if chosen.frozen_stages else ""
    return (
        f"fine-tuning {chosen.backbone} {start}{frozen} with {chosen.loss} on "
        f"{len(inputs.splits['train']):,} faces at {chosen.image_size} px on {device}: "
        f"{trainable:,} parameters train"
    )


def _summary(chosen: Settings, best: Row, tracked: Run) -> str:
    link = f"\n[The run in MLflow]({tracked.url()})\n" if tracked.url() else ""
    return (
        f"## {_run_name(chosen)}\n\nKept epoch {best['epoch']:.0f} of {chosen.epochs} ({chosen.select}).\n\n"
        "| on validation | |\n|---|---:|\n"
        f"| UAR | {best['val_uar']:.4f} |\n| accuracy | {best['val_accuracy']:.4f} |\n"
        f"| F1 macro | {best['val_f1_macro']:.4f} |\n| loss | {best['val_loss']:.4f} |\n"
        f"| cluster term | {best['cluster_state']} |\n{link}"
    )
