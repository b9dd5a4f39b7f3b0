"""Training over nodes: the TrainJob that is submitted, its worker running for real, its end in every way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from trainer_server import TrainerServer

from affectflow.artifacts import open_artifact
from affectflow.errors import SettingsError
from components.fine_tune_distributed.step import worker_flags

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parents[2]
TINY = {
    "backbone": "test_resnet", "freeze_stages": 0, "keep_batchnorm": "all", "image_size": 32, "feature_dim": 16,
    "batch_size": 12, "epochs": 2, "learning_rate": 0.01, "select": "last", "workers": 1,
}  # fmt: skip


def runtime() -> dict[str, Any]:
    """The TrainingRuntime of the manifests."""
    documents = yaml.safe_load_all((ROOT / "manifests" / "base" / "trainer.yaml").read_text())
    return next(each for each in documents if each["kind"] == "TrainingRuntime")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of the artifacts that training reads."""
    folder = tmp_path_factory.mktemp("inputs")
    steps = [
        ["ingest_affectnet", "--source", "synthetic", "--synthetic-images", "100", "--face-size", "40"],
        ["split_dataset", "--faces", "ingest/faces", "--val-per-class", "1", "--test-per-class", "1"],
        ["compute_class_weights", "--splits", "split/splits"],
    ]
    for output, (step, *flags) in zip(("ingest", "split", "weights"), steps, strict=True):
        command = [sys.executable, "-m", f"components.{step}", *flags, "--output-dir", output]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, env=environment())
    names = {"faces": "ingest/faces", "splits": "split/splits", "class-weights": "weights/class_weights"}
    return [word for name, path in names.items() for word in (f"--{name}", str(folder / path))]


def environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "AFFECTFLOW_RETRY_SECONDS": "20",
        "OMP_NUM_THREADS": "1",
        **more,
    }


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TrainerServer]:
    server = TrainerServer(runtime(), tmp_path)
    yield server
    server.close()


def command(server: TrainerServer, inputs: list[str], *flags: str, settings: dict[str, Any] = TINY) -> list[str]:
    return [
        *(sys.executable, "-m", "components.fine_tune_distributed", *inputs, "--job-image", "affectflow-torch:t"),
        *("--settings", json.dumps(settings), "--nodes", "2", "--gpus-per-node", "0"),
        *("--shared-dir", str(server.folder / "shared"), "--output-dir", str(server.folder / "out"), *flags),
    ]


def run(server: TrainerServer, inputs: list[str], *flags: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(server, inputs, *flags, **more),
        capture_output=True,
        text=True,
        env=environment(KUBECONFIG=str(server.kubeconfig())),
    )


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(lines) == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.slow
def test_two_nodes_train_what_two_processes_of_one_machine_train(server: TrainerServer, inputs: list[str]) -> None:
    server.fail_next = 2  # the API server is away for a moment
    done = run(server, inputs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not server.jobs, "the job is deleted at the end"
    out = server.folder / "out"
    open_artifact(out / "model", "model")
    assert (out / "learning_curves.html").is_file() and (out / "summary.md").is_file()
    assert "epoch 2/2" in done.stdout, "the first node's words are shown"

    alone = server.folder / "alone"
    by_hand = [*inputs, *worker_flags(TINY), "--processes=2", "--output-dir", str(alone)]
    subprocess.run(
        [sys.executable, "-m", "components.fine_tune", *by_hand],
        check=True,
        capture_output=True,
        env=environment(),
    )
    histories = [pq.read_table(folder / "history" / "history.parquet").to_pylist() for folder in (out, alone)]
    assert [row["train_loss"] for row in histories[0]] == pytest.approx(
        [row["train_loss"] for row in histories[1]]
    )
    assert [row["val_uar"] for row in histories[0]] == pytest.approx([row["val_uar"] for row in histories[1]])


def test_the_job_names_image_nodes_resources_and_command(server: TrainerServer, inputs: list[str]) -> None:
    server.start_job = lambda job: server.jobs.setdefault("kept", job)  # type: ignore[method-assign, assignment]
    process = subprocess.Popen(
        command(server, inputs, "--hours", "3"),
        env=environment(KUBECONFIG=str(server.kubeconfig()), MLFLOW_RUN_ID="1234"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while "kept" not in server.jobs and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    job = server.jobs.pop("kept")
    spec, trainer = job["spec"], job["spec"]["trainer"]
    assert spec["runtimeRef"] == {"kind": "TrainingRuntime", "name": "affectflow-torch", **{
        key: value for key, value in spec["runtimeRef"].items() if key == "apiGroup"}}  # fmt: skip
    assert spec["activeDeadlineSeconds"] == 3 * 3600
    assert trainer["image"] == "affectflow-torch:t" and trainer["numNodes"] == 2
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "4", "memory": "32Gi"}
    assert trainer["command"][:4] == ["torchrun", "--nproc-per-node=1", "-m", "components.fine_tune"]
    assert "--epochs=2" in trainer["command"]
    assert trainer["env"] == [{"name": "MLFLOW_RUN_ID", "value": "1234"}]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_step_that_is_ended_ends_its_job(server: TrainerServer, inputs: list[str]) -> None:
    process = subprocess.Popen(
        command(server, inputs, settings={**TINY, "epochs": 5000}),
        env=environment(KUBECONFIG=str(server.kubeconfig())),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout
        for line in process.stdout:
            if "epoch 1/" in line:
                break
        workers = [each for processes in server.processes.values() for each in processes]
        assert len(workers) == 2 and all(worker.poll() is None for worker in workers)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert not server.jobs and all(worker.poll() is not None for worker in workers)
    assert not (server.folder / "out" / "model").exists()


@pytest.mark.slow
def test_a_workers_error_is_the_steps_error(server: TrainerServer, inputs: list[str]) -> None:
    line = one_line(run(server, inputs, settings={**TINY, "epoch": 3}))
    assert "--epochs perhaps" in line and not server.jobs


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--runtime", "nowhere"], "install Kubeflow Trainer"),
        (["--nodes", "0"], "--nodes: got 0"),
        (["--shared-dir", "/proc/nowhere"], "--shared-dir"),
    ],
)
def test_what_is_wrong_is_one_line(server: TrainerServer, inputs: list[str], flags: list[str], said: str) -> None:
    assert said in one_line(run(server, inputs, *flags))
    assert not server.jobs


def test_a_service_account_without_the_right_is_told_which_role(server: TrainerServer, inputs: list[str]) -> None:
    server.refuse_jobs_with = 403
    assert "Role affectflow-trainer" in one_line(run(server, inputs))


def test_flags_of_the_worker() -> None:
    assert worker_flags({"epochs": 2.0, "learning_rate": 0.01, "deterministic": True, "compile_model": False}) == [
        "--epochs=2", "--learning-rate=0.01", "--deterministic", "--no-compile-model",
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="set nodes"):
        worker_flags({"processes": 2})
