from affectflow.models.backbones import PAPER_BACKBONES, create_backbone, feature_width, timm_name
from affectflow.models.folding import folded_batchnorms
from affectflow.models.freezing import NUM_STAGES, FrozenStages, freeze_stages, stage_of_parameters
from affectflow.models.input_norm import IMAGENET, InputNorm, Normalize, normalize_batch
from affectflow.models.model import ACTIVATIONS, KEEP_BATCHNORM, ExpressionModel
from affectflow.models.pretrained import (
    INPUT_NORMS,
    PretrainedInfo,
    choose_input_norm,
    load_pretrained,
    merge_backbone_args,
)
from affectflow.models.serialization import (
    WEIGHTS_FILE,
    build_from_spec,
    check_same_entries,
    load_model,
    load_weights,
    model_spec,
    write_weights,
)
from affectflow.models.weight_files import read_weights_metadata

__all__ = [
    "ACTIVATIONS",
    "IMAGENET",
    "INPUT_NORMS",
    "KEEP_BATCHNORM",
    "NUM_STAGES",
    "PAPER_BACKBONES",
    "WEIGHTS_FILE",
    "ExpressionModel",
    "FrozenStages",
    "InputNorm",
    "Normalize",
    "PretrainedInfo",
    "build_from_spec",
    "check_same_entries",
    "choose_input_norm",
    "create_backbone",
    "feature_width",
    "folded_batchnorms",
    "freeze_stages",
    "load_model",
    "load_pretrained",
    "load_weights",
    "merge_backbone_args",
    "model_spec",
    "normalize_batch",
    "read_weights_metadata",
    "stage_of_parameters",
    "timm_name",
    "write_weights",
]
