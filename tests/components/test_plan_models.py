"""The plan: which rows and seeds, from which weights, under which keys."""

from pathlib import Path
from typing import Any

import pytest

from affectflow.errors import AffectflowError
from affectflow.report import PUBLISHED_ROWS
from components.plan_models import step
from components.plan_models.component import plan_models

DEFAULTS = {name: spec.default for name, spec in plan_models.component_spec.inputs.items() if spec.optional}


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, Any]:
    for source in ("vggface2", "imagenet"):
        (tmp_path / source).write_bytes(b"w")
    return {f"weights_{source}": str(tmp_path / source) for source in ("vggface2", "imagenet")}


def plan(tmp_path: Path, **settings: Any) -> list[dict[str, Any]]:
    return step.run(summary=str(tmp_path / "summary.md"), **{**DEFAULTS, **settings})


def test_by_default_all_rows_are_planned_with_the_papers_recipe(tmp_path: Path, weights: dict[str, Any]) -> None:
    models = plan(tmp_path, **weights)
    assert [model["row"] for model in models] == list(range(1, 21))
    for model in models:
        row = PUBLISHED_ROWS[model["row"]]
        for name in ("backbone", "pretrained", "loss", "learning_rate", "batch_size"):
            assert model[name] == getattr(row, name), (model["row"], name)
        assert model["weights"] == weights.get(f"weights_{row.pretrained}", "")


def test_every_seed_trains_every_chosen_row_seed_by_seed(tmp_path: Path, weights: dict[str, Any]) -> None:
    models = plan(tmp_path, rows="13, 6-7", seeds="0,3-4", **weights)
    assert [(model["seed"], model["row"]) for model in models] == [
        (seed, row) for seed in (0, 3, 4) for row in (6, 7, 13)
    ]


def test_mapped_backbone_stands_in_for_the_papers(tmp_path: Path) -> None:
    models = plan(tmp_path, rows="1,11", backbone_map='{"resnet50": "resnet10t"}')
    assert [model["backbone"] for model in models] == ["se_resnet50", "resnet10t"]


def test_weights_come_with_the_digest_of_their_source(tmp_path: Path, weights: dict[str, Any]) -> None:
    models = plan(tmp_path, rows="6,16,1", weights_vggface2_digest="aa", weights_imagenet_digest="bb", **weights)
    assert [model["weights_digest"] for model in models] == ["", "aa", "bb"]


def test_plan_of_a_pipeline_wants_a_server_for_its_comparison(tmp_path: Path) -> None:
    with pytest.raises(AffectflowError, match="MLFLOW_TRACKING_URI"):
        plan(tmp_path, rows="1", images=["a:1"])


def test_key_follows_all_that_decides_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.com")
    base = {"rows": "1", "settings": {"train": {"epochs": 1}}, "images": ["a:1"]}
    [first] = plan(tmp_path, **base)
    assert plan(tmp_path, **base) == [first]
    changes = [
        {"rows": "2"},
        {"seeds": "1"},
        {"settings": {"train": {"epochs": 2}}},
        {"images": ["a:2"]},
        {"learning_rate_scratch": 0.1},
        {"backbone_map": '{"se_resnet50": "x"}'},
        {"backbone_args": '{"pad_type": "same"}'},
    ]
    keys = {first["plan_key"], *(plan(tmp_path, **{**base, **change})[0]["plan_key"] for change in changes)}
    assert len(keys) == 1 + len(changes)
    [other] = plan(tmp_path, **{**base, "learning_rate_pretrained": 0.5})
    assert other["plan_key"] == first["plan_key"], "row 1 is trained from scratch"


REFUSED = {
    "an unknown row": ({"rows": "21"}, "row of Tables 5 and 6: got 21, wanted 1 to 20"),
    "row 0": ({"rows": "0-2"}, "got 0"),
    "rows that are no numbers": ({"rows": "all"}, "--rows: got 'all', wanted numbers and ranges"),
    "no row": ({"rows": ""}, "--rows: got ''"),
    "a falling range": ({"rows": "9-6"}, "from the smaller to the larger"),
    "a huge range": ({"seeds": "0-999999999999"}, "--seeds"),
    "more models than a plan can hold": ({"rows": "1-5", "seeds": "0-99"}, "500 models, wanted 200 or fewer"),
    "no weights": (
        {"rows": "5-7,20"},
        "--weights-imagenet: got no file, wanted the weights that row 20 start from",
    ),
    "weights that are not there": (
        {"rows": "5-7", "weights_vggface2": "/none.pth"},
        "--weights-vggface2: got /none.pth, wanted the weights that rows 6, 7 start from",
    ),
    "a map of something else": ({"rows": "1", "backbone_map": '{"vgg16": "resnet18"}'}, "not vgg16"),
    "a map that is no JSON": ({"rows": "1", "backbone_map": "resnet18"}, "--backbone-map"),
    "a map to a number": ({"rows": "1", "backbone_map": '{"resnet50": 18}'}, "--backbone-map"),
    "arguments that are no JSON": ({"rows": "1", "backbone_args": "same"}, "--backbone-args"),
    "a learning rate of 0": ({"rows": "1", "learning_rate_scratch": 0}, "--learning-rate-scratch"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_plan_refuses(case: str, tmp_path: Path) -> None:
    settings, says = REFUSED[case]
    with pytest.raises(AffectflowError) as caught:
        plan(tmp_path, **settings)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "summary.md").exists()
