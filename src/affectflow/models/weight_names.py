"""The names that published weight files give to a network's entries, mapped to timm's.

The VGGFace2 files are all the same Caffe network (``legacy_seresnet50``) under three sets of names; each form
also fixes what the network expects as input.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from affectflow.models.input_norm import InputNorm

_VGGFACE2_RGB = (131.0912, 103.8827, 91.4953)
_ONES = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class WeightForm:
    """A set of names.

    Attributes:
        name: ``"timm"``, ``"dag"``, ``"oxford"`` or ``"numpy-pickle"``.
        input_norm: what its network expects; None where the form does not say (``timm``).
        backbone: the only timm model that it fits; None for any.
    """

    name: str
    input_norm: InputNorm | None = None
    backbone: str | None = None


_TIMM = WeightForm("timm")
_DAG = WeightForm("dag", InputNorm(_VGGFACE2_RGB, _ONES), "legacy_seresnet50")
_OXFORD = WeightForm("oxford", InputNorm(_VGGFACE2_RGB, _ONES), "legacy_seresnet50")
_NUMPY_PICKLE = WeightForm("numpy-pickle", InputNorm(_VGGFACE2_RGB[::-1], _ONES, bgr=True), "legacy_seresnet50")

_CAFFE_STEM = re.compile(r"conv1_7x7_s2(?P<bn>_bn)?\.(?P<entry>\w+)")
_CAFFE_BLOCK = re.compile(
    r"conv(?P<stage>[2-5])_(?P<block>\d+)_(?P<part>1x1_reduce|3x3|1x1_increase|1x1_proj|1x1_down|1x1_up)"
    r"(?P<bn>_bn)?\.(?P<entry>\w+)"
)
_CAFFE_CLASSIFIER = re.compile(r"classifier(_1)?\.(?P<entry>\w+)")
_CAFFE_PARTS = {
    "1x1_reduce": ("conv1", "bn1"),
    "3x3": ("conv2", "bn2"),
    "1x1_increase": ("conv3", "bn3"),
    "1x1_proj": ("downsample.0", "downsample.1"),
    "1x1_down": ("se_module.fc1", ""),
    "1x1_up": ("se_module.fc2", ""),
}
_PICKLE_BLOCK = re.compile(r"(?P<block>layer[1-4]\.\d+)\.(?P<part>conv4|conv5)\.(?P<entry>\w+)")
_PICKLE_PARTS = {"conv4": "se_module.fc1", "conv5": "se_module.fc2"}


def recognise(weights: Mapping[str, Tensor]) -> WeightForm:
    """Return the form whose names a file has; ``timm`` where it is none of the others."""
    if "conv1_7x7_s2.weight" in weights:
        return _OXFORD if "classifier_1.weight" in weights else _DAG
    if "conv1.weight" in weights and "layer1.0.conv4.weight" in weights:
        return _NUMPY_PICKLE
    return _TIMM


def to_timm_names(form: WeightForm, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries under timm's names; a name that the form does not know keeps its own.

    The classifier of the Caffe forms is a 1×1 convolution whose output is flattened: its weight loses its two
    last dimensions.
    """
    mapped = {}
    for name, tensor in weights.items():
        known = _from_caffe(name) if form in (_DAG, _OXFORD) else name
        if form is _NUMPY_PICKLE:
            known = _from_pickle(name)
        if known == "last_linear.weight" and tensor.ndim == 4:
            tensor = tensor.flatten(1)
        mapped[known] = tensor
    return mapped


def _from_caffe(name: str) -> str:
    if found := _CAFFE_STEM.fullmatch(name):
        return f"layer0.{'bn1' if found['bn'] else 'conv1'}.{found['entry']}"
    if found := _CAFFE_BLOCK.fullmatch(name):
        part = _CAFFE_PARTS[found["part"]][1 if found["bn"] else 0]
        return f"layer{int(found['stage']) - 1}.{int(found['block']) - 1}.{part}.{found['entry']}"
    if found := _CAFFE_CLASSIFIER.fullmatch(name):
        return f"last_linear.{found['entry']}"
    return name


def _from_pickle(name: str) -> str:
    if name.startswith(("conv1.", "bn1.")):
        return f"layer0.{name}"
    if found := _PICKLE_BLOCK.fullmatch(name):
        return f"{found['block']}.{_PICKLE_PARTS[found['part']]}.{found['entry']}"
    if name.startswith("fc."):
        return f"last_linear.{name.removeprefix('fc.')}"
    return name
