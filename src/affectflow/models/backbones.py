"""Backbones: timm models without a classifier."""

import difflib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import timm
from torch import nn

from affectflow.errors import what_got_wanted
from affectflow.models.squeeze_excite import SqueezeExciteBottleneck

#: The paper's backbones → timm's name for them. ``legacy_seresnet50`` is the Caffe form, which the VGGFace2
#: weights have (the stride in a stage's first 1×1 convolution); timm's ``seresnet50`` is another network.
PAPER_BACKBONES = MappingProxyType({"se_resnet50": "legacy_seresnet50", "resnet50": "resnet50"})

_DEFAULT_ARGS: dict[str, dict[str, Any]] = {
    "legacy_seresnet50": {"drop_rate": 0.0, "block": SqueezeExciteBottleneck},
}


def timm_name(name: str) -> str:
    """Return timm's name of a backbone.

    Args:
        name: ``"se_resnet50"``, ``"resnet50"`` or any name of timm's.

    Raises:
        ValueError: timm has no such model; the message lists names that are close.

    Example:
        >>> timm_name("se_resnet50")
        'legacy_seresnet50'
    """
    known = PAPER_BACKBONES.get(name, name)
    if not timm.is_model(known):
        close = difflib.get_close_matches(name, [*PAPER_BACKBONES, *timm.list_models()], n=5)
        raise ValueError(
            what_got_wanted(
                "backbone",
                got=repr(name),
                wanted=f"{', '.join(PAPER_BACKBONES)} or a name of timm's",
                do=f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()",
            )
        )
    return known


def create_backbone(name: str, backbone_args: Mapping[str, Any] | None = None) -> nn.Module:
    """Create a backbone with random weights whose output is the pooled feature; nothing is downloaded.

    Args:
        name: ``"se_resnet50"`` (Ngo & Yoon 2020, Table 2; Caffe form, without dropout), ``"resnet50"``, or any
            name of timm's.
        backbone_args: further arguments of the timm model, e.g. ``{"pad_type": "same"}``.

    Returns:
        a module from images (N, 3, H, W) to features (N, :func:`feature_width`).

    Raises:
        ValueError: an unknown name, or an argument that the model does not take.
    """
    known = timm_name(name)
    asked = dict(backbone_args or {})
    args = {**_DEFAULT_ARGS.get(architecture(name), {}), **asked}
    reserved = sorted({"pretrained", "num_classes", "checkpoint_path"} & set(asked))
    if reserved:
        raise _wrong_args(asked, f"no {reserved[0]!r}, which is set here", "leave it out")
    try:
        backbone: nn.Module = timm.create_model(known, pretrained=False, num_classes=0, **args)
    except TypeError as error:
        raise _wrong_args(asked, f"arguments of timm's {known} ({error})", "mend or leave them out") from None
    return backbone


def architecture(name: str) -> str:
    """Return timm's name of a backbone without the tag of its weights.

    Example:
        >>> architecture("resnet50.a1_in1k"), architecture("se_resnet50")
        ('resnet50', 'legacy_seresnet50')
    """
    return timm_name(name).partition(".")[0]


def feature_width(backbone: nn.Module) -> int:
    """Return the width of a backbone's pooled feature (2048 for the paper's)."""
    # Some of timm's models widen the feature after pooling; head_hidden_size is the width after that.
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type]


def _wrong_args(args: Mapping[str, Any], wanted: str, do: str) -> ValueError:
    return ValueError(what_got_wanted("backbone_args", got=json.dumps(args, default=str), wanted=wanted, do=do))
