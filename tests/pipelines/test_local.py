"""The local runner: the whole pipeline, MLflow behind it, and a cache that knows what changed."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from affectflow.data.synthetic import write_synthetic_affectnet
from affectflow.labels import EXPRESSIONS

SETTINGS = [
    *("--val-per-class", "2", "--test-per-class", "2", "--face-size", "48", "--evaluate-resamples", "100"),
    *(
        "--backbone",
        "test_resnet",
        "--image-size",
        "32",
        "--epochs",
        "2",
        "--batch-size",
        "24",
        "--data-workers",
        "1",
    ),
]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_synthetic_affectnet(folder, images=96, seed=0)
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def run_local(source: Path, work: Path) -> Run:
    def run(*flags: str, code: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines.local", "--work", str(work), "train_one"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
        if code:
            environment["PYTHONPATH"] = str(code)
        return subprocess.run(
            [*command, "--source", str(source), *SETTINGS, *flags],
            capture_output=True,
            text=True,
            env=environment,
            cwd=code,
        )

    return run


@pytest.fixture(scope="module")
def first(run_local: Run) -> subprocess.CompletedProcess[str]:
    done = run_local()
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def started(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.removeprefix("── ") for line in done.stdout.splitlines() if line.startswith("── ")]


def table(done: subprocess.CompletedProcess[str]) -> list[str]:
    return done.stdout.split("test metric")[1].split("figures:")[0].splitlines()


def newest(work: Path, *, task: str, output: str) -> Path:
    return max(work.glob(f"artifacts/*/{task}/{output}"), key=lambda path: path.stat().st_mtime)


def test_all_steps_run_and_the_end_shows_metrics_figures_and_mlflow(
    first: subprocess.CompletedProcess[str],
) -> None:
    assert started(first) == [
        "ingest-affectnet", "split-dataset", "compute-class-weights", "fine-tune", "evaluate", "compare-runs",
    ]  # fmt: skip
    assert "cohen_kappa" in first.stdout
    assert "mlflow ui --backend-store-uri sqlite:///" in first.stdout
    figures = Path(first.stdout.split("figures: ")[1].split(",")[0])
    assert (figures / "confusion_matrix.png").stat().st_size > 1000
    assert "executor_input" not in first.stdout


def test_artifacts_have_the_files_and_columns_of_the_contract(
    first: subprocess.CompletedProcess[str], work: Path
) -> None:
    faces = newest(work, task="ingest-affectnet", output="faces")
    assert pq.read_schema(faces / "manifest.parquet").names == [
        "image_id", "sha256", "crop_sha256", "group", "expression", "valence", "arousal", "source_path",
        "source_list", "source_row", "shard", "shard_row", "width", "height",
    ]  # fmt: skip
    assert pq.read_schema(faces / "quarantine.parquet").names == [
        "source_path", "source_list", "source_row", "reason", "detail",
    ]  # fmt: skip
    splits = newest(work, task="split-dataset", output="splits")
    assert pq.read_schema(splits / "splits.parquet").names == ["image_id", "group", "expression", "split"]
    weights = json.loads(
        (newest(work, task="compute-class-weights", output="class_weights") / "class_weights.json").read_text()
    )
    assert weights["classes"] == list(EXPRESSIONS)
    assert len(weights["weights"]) == len(weights["counts"]) == 8
    model = newest(work, task="fine-tune", output="model")
    assert {file.name for file in model.iterdir()} == {"model.safetensors", "model.json", "tracking.json"}
    history = pq.read_table(newest(work, task="fine-tune", output="history") / "history.parquet").to_pandas()
    assert history["epoch"].tolist() == [1, 2]
    assert {"train_weighted_cluster", "val_uar", "learning_rate", "cluster_state"} <= set(history)
    predictions = pq.read_table(newest(work, task="evaluate", output="predictions") / "predictions.parquet")
    assert predictions.schema.names == ["image_id", "group", "split", "target", "probability"]
    assert predictions.to_pandas()["split"].value_counts().to_dict() == {"val": 16, "test": 16}
    metrics = json.loads((newest(work, task="evaluate", output="metrics") / "metrics.json").read_text())
    assert metrics["test"]["n"] == 16
    assert set(metrics["test"]["uar"]) == {"value", "low", "high"}
    assert set(metrics["test"]["temperature_scaled"]) == {"expected_calibration_error", "brier_score"}
    for row, shares in zip(
        metrics["test"]["confusion_matrix"], metrics["test"]["confusion_matrix_shares"], strict=True
    ):
        assert shares == [count / 2 for count in row]  # two faces of each expression
    assert set(metrics["test"]["per_class"]) == set(EXPRESSIONS)
    comparison = newest(work, task="compare-runs", output="comparison")
    assert {file.name for file in comparison.iterdir()} == {
        "report.html", "report.md", "comparison.csv", "comparison.json",
    }  # fmt: skip


def test_the_models_run_is_nested_and_holds_params_metrics_figures_model_and_dataset(
    first: subprocess.CompletedProcess[str], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    experiment = client.get_experiment_by_name("affectflow")
    runs = client.search_runs([experiment.experiment_id])
    model = next(run for run in runs if run.data.tags.get("affectflow.kind") == "model")
    parent = client.get_run(model.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["affectflow.kind"] == "pipeline"
    assert (model.info.status, parent.info.status) == ("FINISHED", "FINISHED")
    assert model.data.params["train.epochs"] == "2"
    assert all("." in name for name in model.data.params), "KFP's plugin logs bare names"
    assert [metric.step for metric in client.get_metric_history(model.info.run_id, "val_uar")] == [1, 2]
    assert model.data.metrics["test.uar.low"] <= model.data.metrics["test.uar"]
    (dataset,) = model.inputs.dataset_inputs
    assert dataset.dataset.digest
    assert [tag.value for tag in dataset.tags] == ["training"]
    folder = f"evaluation/{model.data.tags['evaluation']}"
    logged = {Path(file.path).name for file in client.list_artifacts(model.info.run_id, folder)}
    assert logged == {
        "predictions", "metrics", "figures.html", "model_card.md", "confusion_matrix.png", "roc_curves.png",
        "precision-recall_curves.png", "calibration.png",
    }  # fmt: skip
    page = newest(work, task="evaluate", output="figures").read_text()
    assert "What the centers did" in page and "The history was not passed on" not in page
    assert "## Unfit use" in newest(work, task="evaluate", output="model_card").read_text()
    for task in ("ingest-affectnet", "split-dataset", "compute-class-weights", "compare-runs"):
        assert f"`{parent.info.run_id}`" in newest(work, task=task, output="summary").read_text()
    for task in ("fine-tune", "evaluate"):
        assert f"`{model.info.run_id}`" in newest(work, task=task, output="summary").read_text()
    trained = {Path(file.path).name for file in client.list_artifacts(model.info.run_id, "training")}
    assert {"learning_curves.png", "history", "model.json"} <= trained
    assert {"val.uar", "test.brier_score.scaled", "temperature"} <= set(model.data.metrics)
    assert (Path(experiment.artifact_location.removeprefix("file://")) / "models").is_dir()


def test_the_logged_model_predicts_from_encoded_pictures(
    first: subprocess.CompletedProcess[str], work: Path, source: Path
) -> None:
    import mlflow
    import pandas as pd

    folder = next((work / "mlflow-artifacts" / "models").glob("*/artifacts"))
    assert not list(folder.rglob("*.pkl"))
    picture = next((source / "Manually_Annotated_Images").rglob("*.jpg"))
    model = mlflow.pyfunc.load_model(str(folder))
    answer = model.predict(pd.DataFrame({"image": [picture.read_bytes()]}))
    assert list(answer.columns) == list(EXPRESSIONS)
    assert answer.iloc[0].sum() == pytest.approx(1)


def test_a_second_run_skips_all_steps_in_seconds(first: subprocess.CompletedProcess[str], run_local: Run) -> None:
    start = time.monotonic()
    again = run_local()
    assert started(again) == []
    assert "not run again: " in again.stdout
    assert "cohen_kappa" in again.stdout
    assert time.monotonic() - start < 30  # 4 s alone; other tests share the cores


def test_a_changed_setting_reruns_what_depends_on_it(
    first: subprocess.CompletedProcess[str], run_local: Run
) -> None:
    again = run_local("--evaluate-seed", "1")
    assert started(again) == ["evaluate", "compare-runs"]
    before = run_local()  # its evaluation is still there, with its own intervals
    assert started(before) == []
    assert table(before) == table(first) != table(again)


def test_changed_code_reruns_the_steps_that_reach_it(
    first: subprocess.CompletedProcess[str], run_local: Run, tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    for package in (root / "components", root / "pipelines", root / "src" / "affectflow"):
        shutil.copytree(package, tmp_path / package.name)
    assert started(run_local(code=tmp_path)) == []
    report = tmp_path / "affectflow" / "report" / "comparison.py"
    report.write_text(report.read_text() + "\n# an edit\n")
    assert started(run_local(code=tmp_path)) == ["compare-runs"]


def test_changed_content_of_the_source_reruns_the_pipeline(
    first: subprocess.CompletedProcess[str], run_local: Run, source: Path
) -> None:
    picture = next((source / "Manually_Annotated_Images").rglob("*.jpg"))
    content = picture.read_bytes()
    others = [path for path in (source / "Manually_Annotated_Images").rglob("*.jpg") if path != picture]
    try:
        picture.write_bytes(others[0].read_bytes())
        assert started(run_local())[0] == "ingest-affectnet"
    finally:
        picture.write_bytes(content)
    assert started(run_local()) == []


def test_a_users_error_ends_the_pipeline_with_its_one_line_and_exit_code_2(run_local: Run) -> None:
    done = run_local("--val-per-class", "500")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: expression ")
    assert "Traceback" not in done.stdout + done.stderr


def test_a_source_that_does_not_exist_is_named_before_anything_starts(work: Path) -> None:
    command = [sys.executable, "-m", "pipelines.local", "--work", str(work), "train_one", "--source", "/none"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "got /none" in done.stderr


def test_an_unknown_parameter_is_named_in_one_line(work: Path) -> None:
    command = [sys.executable, "-m", "pipelines.local", "--work", str(work), "train_one", "--epoch", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "--epoch" in done.stderr


def test_a_dry_run_says_the_parameters_and_runs_nothing(source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    command = [sys.executable, "-m", "pipelines.local", "--work", str(work), "--dry-run", "train_one"]
    done = subprocess.run([*command, "--source", str(source), "--epochs", "3"], capture_output=True, text=True)
    assert done.returncode == 0
    assert {"train_epochs: 3", f"data_source: {source}"} <= set(done.stdout.splitlines())
    assert "data_source_digest: " in done.stdout
    assert not work.exists()


def test_the_pipelines_help_is_grouped_by_step() -> None:
    command = [sys.executable, "-m", "pipelines.local", "train_one", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    titles = [
        line.split(":")[0] for line in done.stdout.splitlines() if line and line[0].islower() and ": " in line
    ]
    assert titles[1:3] == ["data", "compare"]
    assert {"data", "split", "train", "evaluate", "compare", "pod"} <= set(titles)
