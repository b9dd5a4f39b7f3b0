"""The notebook in docs/ runs on runs in MLflow, and draws them."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from affectflow.labels import EXPRESSIONS

pytestmark = pytest.mark.nightly

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "compare_runs.ipynb"


def write_runs(uri: str, count: int) -> None:
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("affectflow")
    for number in range(count):
        run = client.create_run(experiment, run_name=f"model {number}", tags={"affectflow.kind": "model"})
        client.log_param(run.info.run_id, "train.seed", number)
        values = {"uar": 0.4 + number / 10, "accuracy": 0.5}
        for name, value in values.items():
            for end, shift in (("", 0.0), (".low", -0.05), (".high", 0.05)):
                client.log_metric(run.info.run_id, f"test.{name}{end}", value + shift)
        for name in EXPRESSIONS[:-1]:  # an expression that the test set lacks
            client.log_metric(run.info.run_id, f"test.recall.{name}", 0.3)
        for epoch in (1, 2, 3):
            for name in ("train_loss", "val_loss", "val_accuracy", "val_uar"):
                client.log_metric(run.info.run_id, name, 1 / epoch, step=epoch)
            client.log_metric(run.info.run_id, "epoch", epoch, step=epoch)
        client.set_terminated(run.info.run_id, "FINISHED")


def execute(uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(NOTEBOOK.parents[2] / part) for part in ("src", "")))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=180, kernel_name="python3", resources=resources).execute()
    return notebook


def test_it_is_kept_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


def test_it_draws_the_models_the_best_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    write_runs(uri, 3)
    outputs = [output for cell in execute(uri, tmp_path, monkeypatch).cells for output in cell.get("outputs", [])]
    assert any(output.get("text", "") == "3 models\n" for output in outputs)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3
    table = next(output.data["text/plain"] for output in outputs if "uar.low" in str(output.get("data", {})))
    assert table.index("model 2") < table.index("model 0")


def test_without_runs_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CellExecutionError, match="make demo"):
        execute(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path, monkeypatch)
