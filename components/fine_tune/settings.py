"""What the step takes: its settings with their ranges, and the paths of what it reads and writes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from affectflow.steps import StepSettings
from affectflow.storage import file_exists, open_storage

#: Stages that the paper freezes in a pre-trained network; from scratch it freezes none (Table 2).
_PAPER_FROZEN_STAGES = 3

#: Settings that change where things lie, how they are called or how fast it goes, but not the result.
_ASIDE = frozenset(
    {
        "weights",
        "weights_digest",
        "pretrained",
        "row",
        "freeze_stages",  # resolved as frozen_stages
        "processes",
        "workers",
        "channels_last",
        "compile_model",
        "checkpoint_dir",
        "checkpoint_every",
    }
)


@dataclass(frozen=True)
class Paths:
    """Folders of artifacts, the first three to read, ``model`` and ``history`` to write; two pages to write."""

    faces: str
    splits: str
    class_weights: str
    model: str
    history: str
    learning_curves: str
    summary: str


class Settings(StepSettings):
    """What the step is told; see ``component.py`` for meanings, defaults and the paper's values."""

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
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    deterministic: bool
    channels_last: bool
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
        if value and not file_exists(value):
            raise ValueError("a file of pre-trained weights that exists")
        return value

    @field_validator("checkpoint_dir")
    @classmethod
    def _must_be_storage(cls, value: str) -> str:
        if value:
            open_storage(value)
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
        """Return the settings that the result depends on."""
        return {**self.model_dump(exclude=set(_ASIDE)), "frozen_stages": self.frozen_stages}
