"""From settings to the parts of a training run: the network, the loss, the trainer."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from affectflow.artifacts import sha256_file
from affectflow.errors import ArtifactError, DataError, SettingsError, WeightsError, what_got_wanted
from affectflow.labels import EXPRESSIONS
from affectflow.losses import JointLoss, build_loss
from affectflow.models import (
    ExpressionModel,
    InputNorm,
    Normalize,
    choose_input_norm,
    create_backbone,
    load_pretrained,
    merge_backbone_args,
    model_spec,
)
from affectflow.progress import say, warn
from affectflow.storage import open_storage
from affectflow.training.checkpoints import CheckpointStore
from affectflow.training.compiling import check_compiler
from affectflow.training.distributed import num_processes, rank
from affectflow.training.inputs import Inputs
from affectflow.training.loading import EpochBatches, TrainingFaces, WholeFaces, loader
from affectflow.training.loop import Row, Trainer
from affectflow.training.precision import choose_precision
from affectflow.training.recipe import Recipe
from components.fine_tune.settings import Settings

#: Validation batches are larger than training's: nothing is kept for a backward pass.
_VAL_BATCH_FACTOR = 2

#: The paper's first learning rates (Section 4.3).
_PRETRAINED_RATE, _SCRATCH_RATE = 1e-3, 1e-2


class Network(NamedTuple):
    """A network to train.

    Attributes:
        model: with its weights loaded and its first stages frozen.
        input_norm: how its pixels are normalised.
        spec: the fields of ``model.json`` that build it again.
    """

    model: ExpressionModel
    input_norm: InputNorm
    spec: dict[str, Any]


def checked_weights_digest(chosen: Settings) -> str:
    """Return the SHA-256 of the weights file, ``""`` without one.

    Raises:
        WeightsError: it is not the file with which the pipeline was started.
    """
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


def check_inputs(chosen: Settings, inputs: Inputs, class_weights: dict[str, Any]) -> None:
    """Check that the class weights are those of the splits, and that there are faces for every process.

    Args:
        chosen: the settings.
        inputs: faces and splits.
        class_weights: the header of the artifact.

    Raises:
        ArtifactError: the weights were computed from other splits.
        DataError: there are fewer training or validation faces than processes.
    """
    train = inputs.splits["train"]
    if class_weights["counts"] != train.counts:
        raise ArtifactError(
            what_got_wanted(
                "class weights",
                got=f"those of {class_weights['counts']} training faces by expression",
                wanted=f"those of {train.counts}, as these splits have",
                do="run compute_class_weights on these splits",
            )
        )
    for split, name in (("train", "training"), ("val", "validation")):
        if len(inputs.splits[split]) < num_processes():
            raise DataError(
                what_got_wanted(
                    f"{name} faces",
                    got=str(len(inputs.splits[split])),
                    wanted=f"one or more for each of the {num_processes()} processes",
                    do="lower --processes",
                )
            )


def build_network(chosen: Settings) -> Network:
    """Build the network, load its weights and freeze its first stages.

    Raises:
        SettingsError: there is no such backbone, or it does not take its arguments.
        WeightsError: the weights do not fit it.
    """
    backbone_args, info = chosen.backbone_args, None
    with _bad_settings():
        if chosen.weights:
            backbone_args = merge_backbone_args(chosen.weights, chosen.backbone, backbone_args)
        backbone = create_backbone(chosen.backbone, backbone_args)
        if chosen.weights:
            info = load_pretrained(backbone, chosen.weights, chosen.backbone)
            say(f"loaded {info.entries} entries of {chosen.weights} ({info.format})")
        model = ExpressionModel(backbone, len(EXPRESSIONS), chosen.feature_dim)
        keep_batchnorm = chosen.keep_batchnorm
        if keep_batchnorm == "auto":
            keep_batchnorm = "all" if info is not None and info.folded_batchnorm else "frozen"
        _check_it_takes_faces(model, chosen)
        model.freeze(chosen.frozen_stages, keep_batchnorm)
        input_norm = choose_input_norm(chosen.input_norm, info)
    if keep_batchnorm == "all":
        say("BatchNorm keeps its statistics in all stages" + (" (folded in these weights)" if info else ""))
    _warn_of_unusual(chosen)
    spec = model_spec(
        backbone=chosen.backbone,
        backbone_args=backbone_args,
        classes=EXPRESSIONS,
        feature_dim=chosen.feature_dim,
        dropout=0.0,
        activation="relu",
    )
    return Network(model, input_norm, spec)


def _check_it_takes_faces(model: ExpressionModel, chosen: Settings) -> None:
    """Send one black image through, which shows a network made for another size or number of colours at once."""
    model.eval()
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 3, chosen.image_size, chosen.image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise SettingsError(
            what_got_wanted(
                f"--backbone {chosen.backbone}",
                got=" ".join(str(error).split()),
                wanted=f"a network that takes colour images of {chosen.image_size} x {chosen.image_size} px",
                do="pass another --image-size, or arguments of the network in --backbone-args",
            )
        ) from None
    model.train()


def build_joint_loss(chosen: Settings, class_weights: list[float]) -> JointLoss:
    """Build the loss with the settings of the auxiliary part that it has.

    Raises:
        SettingsError: there is no such loss, or its settings do not go together.
    """
    centers = chosen.loss.startswith("center+")
    with _bad_settings():
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


def build_trainer(
    chosen: Settings,
    inputs: Inputs,
    network: Network,
    loss: JointLoss,
    *,
    device: torch.device,
    run_key: str,
    on_epoch: Callable[[Row, float | None], None],
) -> Trainer:
    """Put network and loss on the device and build what trains them.

    Args:
        chosen: the settings.
        inputs: faces and splits.
        network: from :func:`build_network`.
        loss: from :func:`build_joint_loss`.
        device: where to train.
        run_key: digest of inputs, settings and code, after which the folder of the checkpoints is named.
        on_epoch: see :class:`~affectflow.training.loop.Trainer`.

    Raises:
        SettingsError: float16 without a GPU, or nothing can be compiled here.
    """
    if chosen.precision == "float16" and device.type == "cpu":
        raise SettingsError(
            what_got_wanted("--precision", got="float16 on a CPU", wanted="a GPU", do="pass bfloat16 or float32")
        )
    train, val = inputs.splits["train"], inputs.splits["val"]
    train_faces = TrainingFaces(
        inputs.faces,
        train.rows,
        train.target,
        image_size=chosen.image_size,
        crop_scale_min=chosen.crop_scale_min,
        seed=chosen.seed,
        crops_on_device=device.type != "cpu",
    )
    val_faces = WholeFaces(
        inputs.faces, val.rows, val.target, image_size=chosen.image_size, crops_on_device=device.type != "cpu"
    )
    model = network.model.to(
        device, memory_format=torch.channels_last if chosen.channels_last else torch.contiguous_format
    )
    if chosen.compile_model:
        check_compiler(device)
    checkpoints = None
    if chosen.checkpoint_dir:
        checkpoints = CheckpointStore(open_storage(chosen.checkpoint_dir), f"fine_tune-{run_key[:16]}")
    return Trainer(
        model,
        loss.to(device),
        train_loader=loader(
            train_faces,
            workers=chosen.workers,
            batch_sampler=EpochBatches(
                len(train),
                batch_size=chosen.batch_size,
                seed=chosen.seed,
                rank=rank(),
                processes=num_processes(),
            ),
        ),
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
            precision=choose_precision(chosen.precision, device),
            select=chosen.select,
            checkpoint_every=chosen.checkpoint_every,
            lambda_warmup_epochs=chosen.lambda_warmup_epochs,
            stop_on_collapse=chosen.stop_on_collapse,
            seed=chosen.seed,
        ),
        normalise=Normalize(network.input_norm).to(device),
        device=device,
        checkpoints=checkpoints,
        compiled=chosen.compile_model,
        on_epoch=on_epoch,
    )


@contextlib.contextmanager
def _bad_settings() -> Iterator[None]:
    """Report an argument that the models or losses refuse as what it is here: a setting of the user's."""
    try:
        yield
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _warn_of_unusual(chosen: Settings) -> None:
    if chosen.weights:
        return
    if chosen.frozen_stages:
        warn(
            f"Stages 1 to {chosen.frozen_stages} are frozen at random values, since no weights were given; "
            "pass --freeze-stages 0 to train them"
        )
    if chosen.learning_rate == _PRETRAINED_RATE:
        warn(
            "no weights were given, and the learning rate is the paper's for pre-trained ones; from scratch it "
            f"takes --learning-rate {_SCRATCH_RATE:g} --batch-size 30"
        )
