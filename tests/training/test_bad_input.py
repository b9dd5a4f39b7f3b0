"""What fine_tune refuses, before it trains: each is one line that names it."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from affectflow.artifacts import new_artifact
from affectflow.data.class_weights import class_weights_fields
from affectflow.errors import AffectflowError, ArtifactError, DataError, SettingsError, WeightsError
from affectflow.labels import EXPRESSIONS
from affectflow.steps import check_settings
from affectflow.training.inputs import SplitFaces, open_inputs
from affectflow.training.loop import Trainer
from components.fine_tune.build import check_inputs
from components.fine_tune.component import fine_tune
from components.fine_tune.settings import Paths, Settings
from components.fine_tune.step import run

DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(fine_tune.python_func).parameters.items()
    if name not in Paths.__annotations__
}
TINY = {"backbone": "test_resnet", "freeze_stages": 0, "image_size": 32, "feature_dim": 16, "epochs": 1}


@pytest.fixture
def paths(dataset: tuple[Path, Path], tmp_path: Path) -> dict[str, str]:
    faces, splits = dataset
    counts = dict(zip(EXPRESSIONS, open_inputs(faces, splits).splits["train"].counts, strict=True))
    with new_artifact(tmp_path / "class_weights", "class_weights", class_weights_fields(counts)):
        pass
    written = {name: str(tmp_path / "out" / name) for name in ("model", "history", "learning_curves", "summary")}
    return {
        "faces": str(faces),
        "splits": str(splits),
        "class_weights": str(tmp_path / "class_weights"),
        **written,
    }


def refusal(paths: dict[str, str], error: type[AffectflowError], **changes: Any) -> str:
    with pytest.raises(error) as caught:
        run(**{**DEFAULTS, **TINY, **paths, **changes})
    assert "\n" not in str(caught.value)
    assert not Path(paths["model"]).exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"center_lambda": -1.0}, "--center-lambda: got -1.0, wanted greater than or equal to 0"),
        ({"cluster_lambda": -0.1}, "--cluster-lambda: got -0.1, wanted greater than or equal to 0"),
        ({"cluster_alpha": 0.0}, "--cluster-alpha: got 0.0, wanted greater than 0"),
        ({"center_gamma": float("nan")}, "--center-gamma: got nan"),
        ({"learning_rate": float("inf")}, "--learning-rate: got inf"),
        ({"center_init": "ones"}, "--center-init: got 'ones', wanted 'normal', 'zeros' or 'class_means'"),
        ({"backbone_args": "pad_type=same"}, "--backbone-args: got 'pad_type=same', wanted a JSON object"),
        ({"backbone_args": '{"pad": 1}'}, 'backbone_args: got {"pad": 1}'),
        ({"backbone": "resnet-50"}, "backbone: got 'resnet-50', wanted se_resnet50, resnet50 or a name of timm's"),
        ({"loss": "island"}, "loss: got 'island', wanted one of softmax, center+softmax"),
        ({"freeze_stages": 6}, "--freeze-stages: got 6"),
        ({"backbone": "convnext_atto", "freeze_stages": 5}, "stages of ConvNeXt to freeze: got 5, wanted 0 to 4"),
        ({"backbone_args": '{"in_chans": 1}'}, "--backbone test_resnet: got Given groups=1"),
        ({"backbone": "vit_tiny_patch16_224", "freeze_stages": 0}, "--backbone vit_tiny_patch16_224: got Input"),
        ({"precision": "float16"}, "--precision: got float16 on a CPU, wanted a GPU"),
        ({"checkpoint_dir": "ftp://host/a"}, "storage: got 'ftp://host/a', wanted a folder or s3://bucket/prefix"),
        (
            {"feature_norm": "l2", "center_update": "gradient", "center_init": "zeros"},
            "center_init: got 'zeros' with feature_norm 'l2'",
        ),
        ({"weights": "/nowhere/file.pth"}, "--weights: got '/nowhere/file.pth', wanted a file"),
        ({"processes": 5}, "--batch-size: got 36, wanted a multiple of the 5 processes"),
    ],
)
def test_a_bad_setting(paths: dict[str, str], changes: dict[str, Any], line: str) -> None:
    assert refusal(paths, SettingsError, **changes).startswith(line)


def test_one_image_a_step_where_batchnorm_trains(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    trainer.model.train()
    with pytest.raises(
        SettingsError, match="--batch-size: got 1 image in a process, wanted 2 or more, for BatchNorm"
    ):
        trainer._train_step(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))


def test_fewer_validation_faces_than_processes(dataset: tuple[Path, Path]) -> None:
    inputs = open_inputs(*dataset)
    train, val = inputs.splits["train"], inputs.splits["val"]
    none = SplitFaces(val.rows[:0], val.image_id[:0], val.group[:0], val.target[:0])
    chosen = check_settings(Settings, **{**DEFAULTS, **TINY})
    with pytest.raises(DataError, match="validation faces: got 0, wanted one or more for each of the 1 processes"):
        check_inputs(
            chosen, replace(inputs, splits={**inputs.splits, "val": none}), class_weights={"counts": train.counts}
        )


def test_class_weights_of_other_splits(paths: dict[str, str], tmp_path: Path) -> None:
    with new_artifact(tmp_path / "other", "class_weights", class_weights_fields(dict.fromkeys(EXPRESSIONS, 9))):
        pass
    line = refusal(paths, ArtifactError, class_weights=str(tmp_path / "other"))
    assert line.startswith("class weights: got those of [9, 9, 9, 9, 9, 9, 9, 9] training faces")


@pytest.mark.parametrize("weight", [0, -1, "heavy", None])
def test_class_weights_that_are_not_positive_numbers(paths: dict[str, str], tmp_path: Path, weight: Any) -> None:
    fields = class_weights_fields(dict.fromkeys(EXPRESSIONS, 9))
    fields["weights"][3] = weight
    with new_artifact(tmp_path / "other", "class_weights", fields):
        pass
    assert "wanted 8 positive numbers" in refusal(paths, ArtifactError, class_weights=str(tmp_path / "other"))


def test_weights_that_changed_since_the_pipeline_was_started(paths: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"other")
    line = refusal(paths, WeightsError, weights=str(file), weights_digest="0" * 64)
    assert "wanted 000000000000…, as when the pipeline was started" in line
