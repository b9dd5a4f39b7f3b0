"""Pipelines whose steps run in containers as locked down as a cluster's, on PostgreSQL, S3 and MLflow."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from conftest import ROOT, parts
from kfp import dsl, local

from affectflow.artifacts import open_artifact
from affectflow.errors import SettingsError
from components.compute_class_weights.component import compute_class_weights
from components.ingest_affectnet.component import ingest_affectnet
from components.split_dataset.component import split_dataset
from pipelines import containers
from pipelines import stack as stack_module
from pipelines.local import run_local

pytestmark = pytest.mark.nightly

SETTINGS = [
    *("--source", "synthetic", "--synthetic-images", "200", "--face-size", "48", "--val-per-class", "1"),
    *("--test-per-class", "1", "--evaluate-resamples", "100", "--backbone", "test_resnet", "--image-size", "32"),
    *("--epochs", "1", "--batch-size", "24", "--data-workers", "1"),
]


@dsl.component(base_image="affectflow-data:tested", install_kfp_package=False)
def describe(weights: dsl.Input[dsl.Markdown]) -> str:
    import os

    return f"user {os.getuid()}"


@dsl.pipeline(name="data-only")
def data_only(source: str, synthetic_images: int) -> str:
    ingested = ingest_affectnet(source=source, synthetic_images=synthetic_images, face_size=48, workers=1)
    drawn = split_dataset(faces=ingested.outputs["faces"], val_per_class=1, test_per_class=1)
    compute_class_weights(splits=drawn.outputs["splits"])
    return describe(weights=drawn.outputs["summary"]).output


@pytest.fixture
def tracked(stack: Path, images: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The servers' addresses and credentials in the environment."""
    environment = stack_module.step_environment(stack)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AFFECTFLOW_RETRY_SECONDS", "5")
    yield environment


def test_data_steps_run_in_containers(tracked: dict[str, str], place: Path, capfd) -> None:
    work = place / "data-only"
    result = run_local(
        data_only, {"source": "synthetic", "synthetic_images": 100}, work=work, cache=False, containers=True
    )
    assert result == "user 10001"
    [run] = (work / "artifacts").iterdir()
    for kind, step in (
        ("faces", "ingest-affectnet"),
        ("splits", "split-dataset"),
        ("class_weights", "compute-class-weights"),
    ):
        folder = run / step / kind
        open_artifact(folder, kind)
        assert folder.stat().st_uid == (10001 if os.getuid() == 0 else os.getuid())
    said = capfd.readouterr().out + (work / "last-run.log").read_text()
    for name in ("MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY"):
        assert tracked[name] not in said


def test_a_failed_container_never_counts_as_success(tracked: dict[str, str], place: Path) -> None:
    for number in range(5):
        with pytest.raises(Exception, match=r"--source|wanted a folder|no such"):
            run_local(
                data_only,
                {"source": f"/nowhere/{number}", "synthetic_images": 100},
                work=place / "failing",
                cache=False,
                containers=True,
            )


def test_a_container_that_ends_without_its_outputs_is_noticed(place: Path) -> None:
    artifacts = place / "missing"
    (artifacts / "data-only-2026" / "split-dataset").mkdir(parents=True)
    assert containers.missing_outputs(data_only, artifacts, ["split-dataset"]) == ["split-dataset"]


def test_a_wrong_password_ends_the_first_step_with_one_line(
    tracked: dict[str, str], place: Path, images: dict[str, str]
) -> None:
    command = ["docker", "run", "--rm", "--network", "host", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
    wrong = {**tracked, "MLFLOW_TRACKING_PASSWORD": "wrong", "AFFECTFLOW_RETRY_SECONDS": "5"}
    command += [word for name, value in wrong.items() for word in ("--env", f"{name}={value}")]
    step = ["python3", "-m", "components.ingest_affectnet", "--source", "synthetic", "--output-dir", "/tmp/out"]
    done = subprocess.run([*command, images["data"], *step], capture_output=True, text=True)
    assert done.returncode == 2 and "Secret kfp-mlflow-credentials" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_tag_is_one_line_before_anything_starts(
    tracked: dict[str, str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dsl.component(base_image="registry.invalid/affectflow-data:never-built", install_kfp_package=False)
    def unknown() -> str:
        return ""

    @dsl.pipeline(name="unknown")
    def pipeline() -> str:
        return unknown().output

    with pytest.raises(SettingsError, match=r"never-built.*check --registry and --tag"):
        run_local(pipeline, {}, work=place / "unknown", cache=False, containers=True)


def test_containers_want_a_server_that_they_can_reach(place: Path) -> None:
    with pytest.raises(SettingsError, match="pass --stack"):
        run_local(data_only, {}, work=place / "untracked", cache=False, containers=True)


@pytest.mark.slow
def test_train_one_runs_in_containers_and_leaves_no_secret_behind(
    tracked: dict[str, str], stack: Path, place: Path
) -> None:
    if "torch" not in parts():
        pytest.skip("PART=data")
    work, checkpoints = place / "train-one", place / "checkpoints"
    command = [sys.executable, "-m", "pipelines.local", "--stack", "--stack-dir", str(stack), "--containers"]
    command += ["--work", str(work), "train_one", *SETTINGS, "--checkpoint-dir", str(checkpoints)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [run] = (work / "artifacts").glob("train-one-*")
    for kind, step in (("model", "fine-tune"), ("metrics", "evaluate"), ("predictions", "evaluate")):
        open_artifact(run / step / kind, kind)
    s3 = boto3.client("s3")
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket="affectflow", Prefix="mlflow/")["Contents"]]
    assert any(key.endswith("model.safetensors") for key in keys), "MLflow keeps the model in S3"

    import mlflow

    runs = mlflow.MlflowClient().search_runs(["1", "0"], max_results=100)
    assert len(runs) >= 2
    stored = [f"{each.data.params} {each.data.tags}" for each in runs]
    files = [path.read_bytes() for path in work.rglob("*") if path.is_file() and path.stat().st_size < 5e7]
    secrets = [
        value
        for name, value in stack_module.read_settings(stack).items()
        if "PASSWORD" in name or "SECRET" in name
    ]
    assert len(secrets) >= 4
    for secret in secrets:
        assert not any(secret in text for text in [*stored, done.stdout, done.stderr])
        assert not any(secret.encode() in content for content in files)
    assert any(b"synthetic" in content for content in files), "the search finds what is there"


def teardown_module() -> None:
    local.config.LocalExecutionConfig.instance = None
