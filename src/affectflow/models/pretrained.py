"""Load pre-trained weights into a backbone, entry for entry."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from affectflow.artifacts import sha256_file
from affectflow.errors import WeightsError, what_got_wanted
from affectflow.models.backbones import architecture
from affectflow.models.input_norm import IMAGENET, InputNorm
from affectflow.models.weight_files import read_weights, read_weights_metadata
from affectflow.models.weight_names import WeightForm, recognise, to_timm_names

INPUT_NORMS = ("paper", "native")

#: What the metadata field ``input`` of a safetensors file may say.
_METADATA_INPUTS = {"RGB, ImageNet mean/std": IMAGENET}


@dataclass(frozen=True)
class PretrainedInfo:
    """Where a backbone's weights came from.

    Attributes:
        format: ``"timm"``, ``"dag"``, ``"oxford"`` or ``"numpy-pickle"``.
        sha256: of the file.
        entries: how many of the backbone's entries came from the file.
        classifier_left_out: entries of a classifier that only the file, or only the backbone, has.
        native_norm: the input that the weights expect; None where nothing says.
        timm_kwargs: arguments of the backbone that the file's metadata gives.
        folded_batchnorm: every BatchNorm has mean 0 and variance 1: it was folded into the convolutions.
    """

    format: str
    sha256: str
    entries: int
    classifier_left_out: tuple[str, ...]
    native_norm: InputNorm | None
    timm_kwargs: dict[str, Any]
    folded_batchnorm: bool


def merge_backbone_args(path: str | Path, name: str, backbone_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return a backbone's arguments with those that its weights' metadata asks for; call it before creating it.

    No parameter's shape depends on ``pad_type``, so that a wrong one would pass silently.

    Args:
        path: the weights file.
        name: the backbone's name.
        backbone_args: the user's own.

    Raises:
        WeightsError: the metadata names another model, or contradicts ``backbone_args``.
    """
    metadata = read_weights_metadata(path)
    _check_backbone(path, metadata.get("timm"), name)
    asked = parse_timm_kwargs(metadata.get("timm_kwargs", ""))
    for key, value in asked.items():
        if key in backbone_args and backbone_args[key] != value:
            raise _wrong(
                path,
                f"{key}={backbone_args[key]!r} in backbone_args",
                f"{key}={value!r}, with which these weights were trained",
                f"leave {key} out of backbone_args",
            )
    return {**backbone_args, **asked}


def parse_timm_kwargs(text: str) -> dict[str, Any]:
    """Return the arguments of a text such as ``pad_type=same, drop_rate=0.1``, values as JSON where they are.

    Raises:
        WeightsError: a part without ``=``.

    Example:
        >>> parse_timm_kwargs("pad_type=same,output_stride=32")
        {'pad_type': 'same', 'output_stride': 32}
    """
    result: dict[str, Any] = {}
    for part in filter(None, text.replace(",", " ").split()):
        key, separator, value = part.partition("=")
        if not separator or not key.isidentifier():
            raise _wrong("timm_kwargs", repr(part), "name=value, …", "mend the file's metadata")
        try:
            result[key] = json.loads(value)
        except json.JSONDecodeError:
            result[key] = {"True": True, "False": False, "None": None}.get(value, value)
    return result


def load_pretrained(backbone: nn.Module, path: str | Path, name: str) -> PretrainedInfo:
    """Load a weights file into a backbone: each entry of the file to one of the backbone, and the reverse.

    Only these may lack: BatchNorm's ``num_batches_tracked`` (set to 0 by construction; files from Caffe have
    none) and the classifier, in the file or in the backbone. float16 becomes the backbone's
    float32.

    Args:
        backbone: from :func:`~affectflow.models.backbones.create_backbone`, with the arguments of
            :func:`merge_backbone_args`.
        path: safetensors, a state dict of torch, or a pickle of numpy arrays, under the names of timm (which
            are torchvision's for ``resnet50``) or of one of the VGGFace2 SE-ResNet-50 files.
        name: the backbone's name.

    Raises:
        WeightsError: the file is unsafe or unreadable, or an entry is missing, left over or of another shape.
    """
    metadata = read_weights_metadata(path)
    weights = read_weights(path)
    form = recognise(weights)
    _check_backbone(path, form.backbone or metadata.get("timm"), name)
    mapped = to_timm_names(form, weights)
    if len(mapped) != len(weights):
        raise _wrong(path, "two entries of the same name", "one of each", "check that it is the right file")
    entries, left_out = _match(Path(path), backbone, mapped)
    backbone.load_state_dict(entries, strict=False)
    return PretrainedInfo(
        format=form.name,
        sha256=sha256_file(Path(path)),
        entries=len(entries),
        classifier_left_out=left_out,
        native_norm=_native_norm(form, metadata, backbone),
        timm_kwargs=parse_timm_kwargs(metadata.get("timm_kwargs", "")),
        folded_batchnorm=_is_folded(entries),
    )


def choose_input_norm(setting: str, info: PretrainedInfo | None) -> InputNorm:
    """Return how to normalise the input.

    Args:
        setting: ``"paper"``: ImageNet's mean and standard deviation, whatever the weights expect;
            ``"native"``: what the weights expect (ImageNet's for a backbone without pre-trained weights).
        info: from :func:`load_pretrained`; None without weights.

    Raises:
        ValueError: another setting.
        WeightsError: ``"native"``, and the weights do not say what they expect.
    """
    if setting not in INPUT_NORMS:
        wanted = f"one of {', '.join(INPUT_NORMS)}"
        raise ValueError(what_got_wanted("input_norm", got=repr(setting), wanted=wanted, do="pass one of them"))
    if setting == "paper" or info is None:
        return IMAGENET
    if info.native_norm is None:
        raise _wrong("input_norm", "'native' for weights that do not say", "weights that say", "pass 'paper'")
    return info.native_norm


def _check_backbone(path: str | Path, model: str | None, name: str) -> None:
    """Check that weights of timm's ``model`` (None: any) are for the backbone ``name``."""
    if model and model.partition(".")[0] != architecture(name):
        wanted = f"weights of {architecture(name)}"
        raise _wrong(path, f"weights of {model}", wanted, "choose the other backbone, or other weights")


def _match(
    path: Path, backbone: nn.Module, mapped: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the entries to load and the names of the classifier's that are left out."""
    own = backbone.state_dict()
    prefixes = _classifier_prefixes(backbone)
    both = [name for name in mapped if name in own]
    fitting = [name for name in both if mapped[name].shape == own[name].shape]
    left_out = {
        name for name in mapped.keys() ^ own.keys() | (set(both) - set(fitting)) if name.startswith(prefixes)
    }
    missing = [n for n in own if n not in mapped and n not in left_out and not n.endswith("num_batches_tracked")]
    extra = [n for n in mapped if n not in own and n not in left_out]
    shapes = [n for n in both if n not in fitting and n not in left_out]
    faults = [
        f"{len(names)} {what}, e.g. {', '.join(names[:3])}"
        for what, names in (("missing", missing), ("left over", extra), ("of another shape", shapes))
        if names
    ]
    if faults:
        raise _wrong(
            path,
            f"entries {'; '.join(faults)}",
            "each entry of the backbone",
            "check the backbone's name and the file",
        )
    return {name: mapped[name] for name in fitting if name not in left_out}, tuple(sorted(left_out))


def _is_folded(entries: Mapping[str, Tensor]) -> bool:
    means = [tensor for name, tensor in entries.items() if name.endswith("running_mean")]
    variances = [tensor for name, tensor in entries.items() if name.endswith("running_var")]
    return bool(means) and all((m == 0).all() for m in means) and all((v == 1).all() for v in variances)


def _classifier_prefixes(backbone: nn.Module) -> tuple[str, ...]:
    """Return the beginnings of the names that timm gives to a model's classifier."""
    names = getattr(backbone, "pretrained_cfg", {}).get("classifier") or ()
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def _native_norm(form: WeightForm, metadata: Mapping[str, str], backbone: nn.Module) -> InputNorm | None:
    if form.input_norm is not None:
        return form.input_norm
    if "input" in metadata:
        return _METADATA_INPUTS.get(metadata["input"])
    config = getattr(backbone, "pretrained_cfg", {})
    mean, std = ([round(255 * value, 6) for value in config.get(key, ())] for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3:
        return None
    return InputNorm((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def _wrong(what: str | Path, got: str, wanted: str, do: str) -> WeightsError:
    return WeightsError(what_got_wanted(str(what), got=got, wanted=wanted, do=do))
