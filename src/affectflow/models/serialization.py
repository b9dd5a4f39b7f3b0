"""The model as an artifact: its weights in safetensors, and the fields that rebuild it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from affectflow.artifacts import open_artifact
from affectflow.errors import ArtifactError, what_got_wanted
from affectflow.models.backbones import create_backbone
from affectflow.models.model import ExpressionModel

WEIGHTS_FILE = "model.safetensors"

#: The widest feature that a model may have.
MAX_FEATURE_DIM = 65_536

#: The fields of ``model.json`` that :func:`build_from_spec` needs.
SPEC_FIELDS = ("backbone", "backbone_args", "classes", "feature_dim", "dropout", "activation")


def model_spec(
    *,
    backbone: str,
    backbone_args: Mapping[str, Any],
    classes: tuple[str, ...],
    feature_dim: int,
    dropout: float,
    activation: str,
) -> dict[str, Any]:
    """Return the fields of ``model.json`` from which :func:`build_from_spec` builds the same architecture."""
    return {
        "backbone": backbone,
        "backbone_args": dict(backbone_args),
        "classes": list(classes),
        "feature_dim": feature_dim,
        "dropout": dropout,
        "activation": activation,
    }


def build_from_spec(spec: Mapping[str, Any]) -> ExpressionModel:
    """Build the model that a header describes, with random weights.

    Args:
        spec: a header with at least :data:`SPEC_FIELDS`.

    Raises:
        ArtifactError: a field lacks, or no model can be built from them.
    """
    missing = [field for field in SPEC_FIELDS if field not in spec]
    if missing:
        raise _wrong("model.json", f"no field {missing[0]!r}", f"the fields {', '.join(SPEC_FIELDS)}")
    for field, kind in (("backbone", str), ("backbone_args", dict), ("classes", list), ("feature_dim", int)):
        if not isinstance(spec[field], kind):
            raise _wrong("model.json", f"{field} {spec[field]!r}", f"a {kind.__name__}")
    if not 1 <= spec["feature_dim"] <= MAX_FEATURE_DIM:
        raise _wrong("model.json", f"feature_dim {spec['feature_dim']}", f"1 to {MAX_FEATURE_DIM}")
    try:
        return ExpressionModel(
            create_backbone(spec["backbone"], spec["backbone_args"]),
            num_classes=len(spec["classes"]),
            feature_dim=spec["feature_dim"],
            dropout=spec["dropout"],
            activation=spec["activation"],
        )
    except Exception as error:  # timm's models raise almost anything for arguments that they do not take
        raise _wrong("model.json", f"fields that build no model ({error})", "those of fine_tune") from None


def write_weights(folder: Path, model: nn.Module) -> None:
    """Write ``model.safetensors`` into an artifact's folder: the state dict on the CPU, names in order.

    Equal weights give equal bytes.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def load_model(path: str | Path) -> tuple[ExpressionModel, dict[str, Any]]:
    """Return the model of an artifact of kind ``model``, in evaluation mode on the CPU, and its header.

    Raises:
        ArtifactError: the artifact is not whole, or its weights do not fit the architecture of its header.
    """
    header = open_artifact(path, "model")
    model = build_from_spec(header)
    load_weights(model, Path(path) / WEIGHTS_FILE)
    return model.eval(), header


def load_weights(model: nn.Module, file: Path) -> None:
    """Load what :func:`write_weights` wrote into a model of the same architecture.

    Raises:
        ArtifactError: the file is missing or broken, or names or shapes differ.
    """
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise _wrong(str(file), str(error), "a safetensors file") from None
    check_same_entries(str(file), model, state)
    model.load_state_dict(state)


def check_same_entries(what: str, model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Check that a state dict has the model's names and shapes.

    Args:
        what: the file that it comes from.
        model: the model that it is for.
        state: name → tensor.

    Raises:
        ArtifactError: naming a few entries that differ.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in state.items()}
    differing = sorted(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))
    if differing:
        shown = {name: [got.get(name), wanted.get(name)] for name in differing[:3]}
        raise _wrong(
            what,
            f"{len(differing)} entries that do not fit, e.g. [got, wanted] {json.dumps(shown)}",
            "the names and shapes of the model that its header describes",
        )


def _wrong(what: str, got: str, wanted: str) -> ArtifactError:
    return ArtifactError(what_got_wanted(what, got=got, wanted=wanted, do="write the model again with fine_tune"))
