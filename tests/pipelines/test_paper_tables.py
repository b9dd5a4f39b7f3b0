"""The pipeline of Tables 5 and 6 on this machine: what fails, what is shown, what a rerun does."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from affectflow.data.synthetic import write_synthetic_affectnet

pytestmark = pytest.mark.nightly

SETTINGS = (
    *("--val-per-class", "2", "--test-per-class", "2", "--face-size", "48", "--data-workers", "1"),
    *("--evaluate-resamples", "100", "--compare-resamples", "100"),
    *("--image-size", "32", "--epochs", "1", "--batch-size-scratch", "24", "--batch-size-pretrained", "24"),
    *("--backbone-map", '{"resnet50": "test_resnet"}', "--backbone-args", "{}"),
)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def run_tables(tmp_path_factory: pytest.TempPathFactory, work: Path) -> Run:
    source = tmp_path_factory.mktemp("source")
    write_synthetic_affectnet(source, images=96, seed=0)

    def run(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines.local", "--work", str(work), "paper_tables"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
        return subprocess.run(
            [*command, "--source", str(source), *SETTINGS, *flags], capture_output=True, text=True, env=environment
        )

    return run


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights") / "imagenet.safetensors"


@pytest.fixture(scope="module")
def one_fails(run_tables: Run, weights: Path) -> subprocess.CompletedProcess[str]:
    """Row 11 trains; row 16 has a weights file that is none."""
    weights.write_bytes(b"no weights")
    return run_tables("--rows", "11,16", "--weights-imagenet", str(weights))


@pytest.fixture(scope="module")
def mended(
    one_fails: subprocess.CompletedProcess[str], run_tables: Run, weights: Path
) -> subprocess.CompletedProcess[str]:
    """The same command once the file holds weights."""
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("test_resnet").state_dict(), weights)
    return run_tables("--rows", "11,16", "--weights-imagenet", str(weights))


def started(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.removeprefix("── ") for line in done.stdout.splitlines() if line.startswith("── ")]


def report_of(done: subprocess.CompletedProcess[str]) -> Path:
    [line] = [line for line in done.stdout.splitlines() if line.strip().startswith("compared ")]
    return Path(line.split(": ", 1)[1]).parent


def test_rows_without_their_weights_are_refused_before_anything_starts(run_tables: Run) -> None:
    done = run_tables("--rows", "11,16-17")
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("error: --weights-imagenet: got no file, wanted the weights that rows 16, 17 start from")
    )
    assert [step for step in started(done) if step != "compare-runs"] == ["plan-models"]
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_failed_row_is_shown_as_failed_and_does_not_lose_the_others(
    one_fails: subprocess.CompletedProcess[str],
) -> None:
    assert one_fails.returncode == 2
    line = one_fails.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ") and "imagenet.safetensors" in line
    assert line.endswith("(failed: 16 · test_resnet · imagenet · softmax · seed 0)")
    assert "failed: 16 · test_resnet · imagenet · softmax · seed 0" in one_fails.stdout
    comparison = json.loads((report_of(one_fails) / "comparison.json").read_text())
    assert {model["number"]: model["status"] for model in comparison["models"]} == {11: "finished", 16: "failed"}
    assert (
        "Not the published model: test_resnet for resnet50 in row 11, 16."
        in (report_of(one_fails) / "report.md").read_text()
    )


@pytest.mark.slow
def test_a_rerun_does_only_what_is_missing(mended: subprocess.CompletedProcess[str]) -> None:
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert started(mended) == ["plan-models", "fine-tune", "evaluate", "compare-runs"]
    rows = list(csv.DictReader((report_of(mended) / "comparison.csv").open()))
    assert {row["number"]: row["status"] for row in rows} == {"11": "finished", "16": "finished"}
    assert f"report: {report_of(mended)}/report.html" in mended.stdout


@pytest.mark.slow
def test_runs_are_named_and_tagged_for_comparing(mended: subprocess.CompletedProcess[str], work: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    experiment = client.get_experiment_by_name("affectflow")
    runs = client.search_runs([experiment.experiment_id], "tags.row = '16' AND attributes.status = 'FINISHED'")
    [run] = runs
    assert run.info.run_name == "16 · test_resnet · imagenet · softmax · seed 0"
    tags = ("row", "backbone", "pretrained", "loss", "seed")
    assert [run.data.tags[name] for name in tags] == ["16", "test_resnet", "imagenet", "softmax", "0"]
    assert all(run.data.tags[name] for name in ("dataset", "code", "evaluation"))
    assert client.get_model_version_by_alias("affectflow", "champion").run_id


@pytest.mark.slow
def test_steps_that_a_row_shares_with_another_command_are_found_in_the_cache(
    mended: subprocess.CompletedProcess[str], run_tables: Run
) -> None:
    again = run_tables("--rows", "11")
    assert again.returncode == 0, again.stdout + again.stderr
    assert started(again) == ["plan-models", "compare-runs"]
    assert "not run again: " in again.stdout
