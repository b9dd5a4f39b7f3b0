"""Evaluations, champions and planned models in a real MLflow on SQLite."""

import html
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from affectflow.artifacts import artifact_digest, new_artifact, open_artifact, samples_digest
from affectflow.errors import AffectflowError, TrackingError
from affectflow.labels import EXPRESSIONS
from affectflow.metrics import METRICS, evaluate_all
from affectflow.predictions import PREDICTIONS_SCHEMA
from affectflow.tracked_models import current_champion, download_model, find_failed, find_planned
from affectflow.tracked_run import Run
from affectflow.tracking import evaluation_folder, evaluation_reference, mark_evaluated, model_run
from components.compare_runs import step as compare

SAMPLES = 160
TARGET = np.arange(SAMPLES) % 8
KEY = "ab" * 32


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests here, which keep apart by their names: making it takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def tracked(untracked: None, server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    monkeypatch.chdir(tmp_path)


def model_folder(folder: Path, seed: int = 0) -> Path:
    from affectflow.models import ExpressionModel, InputNorm, create_backbone, model_spec, write_weights

    spec = model_spec(
        backbone="test_resnet",
        backbone_args={},
        classes=EXPRESSIONS,
        feature_dim=16,
        dropout=0.0,
        activation="relu",
    )
    norm = InputNorm(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)).to_json()
    about = {
        "row": 10,
        "pretrained": "none",
        "loss": "softmax",
        "seed": seed,
        "selected_epoch": 1,
        "image_size": 32,
    }
    about |= {"settings": {"select": "last"}, "inputs": {"splits": "s"}, "input_norm": norm}
    with new_artifact(folder, "model", {**spec, **about}) as temporary:
        write_weights(temporary, ExpressionModel(create_backbone("test_resnet", {}), 8, 16))
    return folder


def train(name: str, *, row: int = 10, seed: int = 0, fail: bool = False, model: bool = False) -> Run:
    tags = {"row": str(row), "backbone": "b", "pretrained": "p", "loss": name, "seed": str(seed)}
    with model_run(name=name, row_key=name, tags=tags) as run:
        if fail:
            raise AffectflowError("the loss is no longer finite")
        if model:
            run.log_model(model_folder(Path("model")))
    return run


def evaluate(run: Run, name: str, *, skill: float, seed: int = 0, plan_key: str = "", shift: int = 0) -> str:
    """Log an evaluation as the step does and return its address."""
    target = (TARGET + shift) % 8
    logits = np.random.default_rng(seed).normal(size=(SAMPLES, 8))
    logits[np.arange(SAMPLES), target] += skill
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = [f"face-{number}" for number in range(SAMPLES)]
    scores = {name: {"value": value, "low": 0.0, "high": 1.0} for name, value in _metrics(target, probability)}
    table = pa.table(
        {
            "image_id": ids,
            "group": ids,
            "split": ["test"] * SAMPLES,
            "target": target.astype(np.int8),
            "probability": list(probability),
        },
        schema=PREDICTIONS_SCHEMA,
    )
    folder = Path(f"{name}-{seed}-{skill}")
    with new_artifact(folder / "predictions", "predictions", {"rows": SAMPLES}) as temporary:
        pq.write_table(table, temporary / "predictions.parquet")
    model = {"row": 10, "backbone": "b", "pretrained": "p", "loss": name, "seed": 0, "settings": {"of": name}}
    model |= {"selected_epoch": 1, "image_size": 32}
    scores = {"n": SAMPLES, "per_class": {}, **scores}
    header = {"model": model, "test_set_digest": samples_digest(ids, target), "val": scores, "test": scores}
    with new_artifact(folder / "metrics", "metrics", header):
        pass
    digest = artifact_digest(open_artifact(folder / "metrics", "metrics"))
    for part in ("predictions", "metrics"):
        run.log_folder(folder / part, folder=f"{evaluation_folder(digest)}/{part}")
    mark_evaluated(run, digest, plan_key)
    return evaluation_reference(run, digest)


def _metrics(target: np.ndarray, probability: np.ndarray) -> list[tuple[str, float]]:
    everything = evaluate_all(target, probability)
    return [(name, everything[name]) for name in METRICS]


def test_a_model_evaluated_again_keeps_both_evaluations() -> None:
    run = train("again")
    first = evaluate(run, "again", skill=0.5)
    second = evaluate(run, "again", skill=2.5)
    uars = [compare.read_run(reference).metrics["uar"]["value"] for reference in (first, second, run.run_id)]
    assert uars[0] < uars[1] == uars[2]  # a bare id means the newest


def test_a_planned_evaluation_is_found_by_its_key_in_any_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    run = train("planned")
    planned = evaluate(run, "planned", skill=0.5, plan_key="cd" * 32)
    evaluate(run, "planned", skill=2.5)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    assert find_planned("cd" * 32) == planned
    assert find_planned("ef" * 32) == ""


def test_a_failed_model_is_shown_with_its_run_and_reason() -> None:
    with pytest.raises(AffectflowError, match="no longer finite"):
        train("fails", row=7, fail=True)
    model = {"row": 7.0, "seed": 0.0, "backbone": "b", "pretrained": "p", "loss": "fails", "plan_key": "12" * 32}
    run = compare.read_planned(model)
    assert (run.status, run.number, run.reason) == ("failed", 7, "the loss is no longer finite")
    assert compare.read_run(run.run_id).reason == run.reason
    train("fails", row=7)
    assert find_failed({"row": "7", "loss": "fails"}) == ("", "")
    assert "error" not in download_model(run.run_id, Path()).tags  # the attempt after it went on with its run


def test_a_model_that_never_started_is_shown_as_failed() -> None:
    model = {"row": 9, "seed": 3, "backbone": "b", "pretrained": "p", "loss": "never", "plan_key": "34" * 32}
    run = compare.read_planned(model)
    assert (run.name, run.status, run.run_id) == ("9 · b · p · never · seed 3", "failed", "")
    assert "log" in run.reason


@pytest.mark.parametrize(
    ("reference", "says"),
    [("0123456789abcdef", "not found"), ("runs:/0123456789abcdef/evaluation/1", "not found")],
)
def test_a_run_that_does_not_exist_is_named_in_one_line(reference: str, says: str) -> None:
    with pytest.raises(TrackingError) as caught:
        compare.read_run(reference)
    assert says in str(caught.value) and "0123456789abcdef" in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_without_an_evaluation_is_named_in_one_line() -> None:
    run = train("unscored")
    with pytest.raises(
        AffectflowError, match=rf"run {run.run_id}: got 'unscored', finished, without an evaluation"
    ):
        compare.read_run(run.run_id)
    with pytest.raises(TrackingError, match="no evaluation evaluation/77"):
        compare.read_run(f"runs:/{run.run_id}/evaluation/77")


def test_without_a_server_a_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI"):
        compare.read_run("0123")


def test_predictions_of_other_images_than_the_metrics_are_refused() -> None:
    run = train("mixed")
    evaluate(run, "mixed", skill=0.5)
    evaluate(run, "mixed", skill=1.0, shift=1)
    metrics, predictions = Path("mixed-0-0.5/metrics"), Path("mixed-0-1.0/predictions")
    Path("both").mkdir()
    metrics.rename("both/metrics"), predictions.rename("both/predictions")
    with pytest.raises(AffectflowError, match="predictions of the test set"):
        compare.read_run("both")


def compare_all(*runs: str, model: str) -> str:
    settings = {"resamples": 200, "seed": 0, "registered_model": model, "champion_metric": "uar"}
    return compare.run(
        runs=list(runs), plan=[], comparison="comparison", report="r.html", summary="s.md", **settings
    )


def champion_of(model: str) -> str:
    champion = current_champion(model)
    assert champion is not None
    return champion.reference.split("/")[1]


def test_champion_is_replaced_only_by_a_model_that_beats_it_on_the_same_test_set() -> None:
    weak, strong = (train(name, model=True) for name in ("weak", "strong"))
    same, other = (train(name, model=True) for name in ("same", "other"))
    evaluate(weak, "weak", skill=0.8)
    compare_all(weak.run_id, model="faces")
    assert champion_of("faces") == weak.run_id

    evaluate(same, "same", skill=0.81)
    compare_all(same.run_id, model="faces")
    assert champion_of("faces") == weak.run_id, "within noise"

    evaluate(other, "other", skill=5.0, shift=1)
    compare_all(other.run_id, model="faces")
    assert champion_of("faces") == weak.run_id, "another test set"

    evaluate(strong, "strong", skill=3.0)
    compare_all(strong.run_id, weak.run_id, model="faces")
    assert champion_of("faces") == strong.run_id
    words = json.loads(Path("comparison/comparison.json").read_text())["champion"]
    assert words.startswith("strong is the best here by validation uar") and "It replaces weak" in words
    compare_all(strong.run_id, model="faces")
    assert champion_of("faces") == strong.run_id


def make_champion(model: str, run_id: str) -> None:
    """Register a run's model and name it champion, as one does by hand in MLflow."""
    from mlflow import MlflowClient

    client = MlflowClient()
    client.create_registered_model(model)
    [output] = client.get_run(run_id).outputs.model_outputs
    client.create_model_version(model, f"models:/{output.model_id}", run_id, model_id=output.model_id)
    client.set_registered_model_alias(model, "champion", "1")


def test_a_champion_that_was_chosen_by_hand_is_compared_by_the_evaluation_of_its_run() -> None:
    strong, weak = (train(name, model=True) for name in ("strong by hand", "weak by hand"))
    evaluate(strong, "strong", skill=3.0)
    evaluate(weak, "weak", skill=0.8)
    Path("metrics").mkdir()  # what lies in the working directory is no champion
    make_champion("by hand", strong.run_id)
    compare_all(weak.run_id, model="by hand")
    words = json.loads(Path("comparison/comparison.json").read_text())["champion"]
    assert "The champion stays strong by hand: test uar -" in words and words.endswith("worse.")


def test_a_champion_that_cannot_be_compared_stays_and_the_report_says_why() -> None:
    from mlflow import MlflowClient

    bare, weak = (train(name, model=True) for name in ("never evaluated", "evaluated"))
    evaluate(weak, "evaluated", skill=0.8)
    make_champion("bare", bare.run_id)
    compare_all(weak.run_id, model="bare")
    words = json.loads(Path("comparison/comparison.json").read_text())["champion"]
    assert words.startswith("The one before stays, since it cannot be compared") and bare.run_id in words
    assert words in html.unescape(Path("comparison/report.html").read_text())
    assert MlflowClient().get_model_version_by_alias("bare", "champion").run_id == bare.run_id


def test_champion_is_chosen_on_validation_not_on_test() -> None:
    from affectflow.report.champion import choose_candidate

    good, bad = (compare.read_run(evaluate(train(name), name, skill=2.0)) for name in ("good", "bad"))
    better = {name: {**bad.val_metrics[name], "value": 0.99} for name in METRICS}
    assert choose_candidate([good, replace(bad, val_metrics=better)], "uar").name == "bad"
    assert choose_candidate([good, replace(bad, val_metrics=better)], "brier_score").name == "good"
    with pytest.raises(AffectflowError, match="--champion-metric: got speed"):
        choose_candidate([good], "speed")


def test_the_logged_model_takes_bytes_text_and_arrays_and_names_its_probabilities() -> None:
    import base64
    import io

    import mlflow

    from affectflow.tracked_models import load_predictor

    run = train("served", model=True)
    [output] = mlflow.get_run(run.run_id).outputs.model_outputs
    model = load_predictor(f"models:/{output.model_id}")
    example = model.input_example
    assert example is not None and list(example.columns) == ["image"]

    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    content = stream.getvalue()
    forms = [content, base64.b64encode(content).decode(), pixels, pixels.tolist()]
    answers = [model.predict({"image": [form]}) for form in forms]
    for answer in answers:
        assert list(answer.columns) == list(EXPRESSIONS)
        assert answer.iloc[0].sum() == pytest.approx(1)
        assert np.allclose(answer, answers[0])
    both = model.predict({"image": [content, pixels[::-1]]})
    assert len(both) == 2 and np.allclose(both.iloc[0], answers[0].iloc[0])
    with pytest.raises(AffectflowError, match=r"an array of shape \(40, 30\)"):
        model.predict({"image": [pixels[:, :, 0]]})
