"""The servers of `make stack`: started, checked and stopped, and a pipeline that runs on them."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from pipelines import stack

pytestmark = pytest.mark.nightly

SETTINGS = [
    *("--source", "synthetic", "--synthetic-images", "100", "--face-size", "40", "--val-per-class", "1"),
    *("--test-per-class", "1", "--evaluate-resamples", "100", "--backbone", "test_resnet", "--image-size", "32"),
    *("--epochs", "1", "--batch-size", "24", "--data-workers", "1"),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that the user postgres may enter, which pytest's own is not."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")) and not shutil.which("pg_ctl"):
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="affectflow-stack-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def call(folder: Path, action: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.stack", action, "--dir", str(folder)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def started(place: Path) -> Iterator[Path]:
    folder = place / "stack"
    done = call(folder, "start")
    assert done.returncode == 0, done.stdout + done.stderr
    yield folder
    call(folder, "stop")


def test_credentials_are_generated_into_a_file_of_ones_own_and_shown_nowhere(started: Path) -> None:
    assert (started / stack.ENVIRONMENT_FILE).stat().st_mode & 0o777 == 0o600
    settings = stack.read_settings(started)
    secrets = [value for name, value in settings.items() if "PASSWORD" in name or "SECRET" in name]
    assert len({*secrets}) == len(secrets) == 4 and all(len(secret) >= 30 for secret in secrets)
    again = call(started, "start")
    assert again.returncode == 0 and stack.read_settings(started) == settings
    commands = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if os.access(file, os.R_OK)]
    logs = [file.read_bytes() for file in started.glob("*.log")]
    for secret in secrets:
        assert not any(secret.encode() in text for text in [*commands, *logs, again.stdout.encode()])


def test_a_pipeline_runs_on_them_and_its_files_are_in_s3(started: Path, place: Path, monkeypatch) -> None:
    assert call(started, "check").stdout.split("\n")[:3] == ["PostgreSQL answers", "S3 answers", "MLflow answers"]
    command = [sys.executable, "-m", "pipelines.local", "--stack", "--stack-dir", str(started)]
    command += ["--work", str(place / "work"), "train_one", *SETTINGS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, value in stack.step_environment(started).items():
        monkeypatch.setenv(name, value)
    objects = boto3.client("s3").list_objects_v2(Bucket="affectflow", Prefix="mlflow/")["Contents"]
    assert any(item["Key"].endswith("model.safetensors") for item in objects)
    assert not (place / "work" / "mlflow-artifacts").exists()
    for secret in ("MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY"):
        assert os.environ[secret] not in done.stdout + done.stderr + (place / "work" / "last-run.log").read_text()


def test_what_is_not_there_is_one_line(place: Path) -> None:
    done = call(place / "nowhere", "check")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "make stack" in done.stderr


def test_stopped_is_stopped_and_what_was_stored_stays(started: Path) -> None:
    assert call(started, "stop").returncode == 0
    assert not list(started.glob("*.pid")) and not (started / "postgres" / "postmaster.pid").exists()
    done = call(started, "check")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert (started / "postgres" / "PG_VERSION").is_file() and list((started / "s3").glob("*.dat"))
