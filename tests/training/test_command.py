"""The command: killed, it ends as if it had not been; several processes write what one writes; one-line errors."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import timm
from s3_server import S3Server
from safetensors.torch import load_file, save_file

from affectflow.artifacts import new_artifact
from affectflow.data.class_weights import class_weights_fields
from affectflow.labels import EXPRESSIONS
from affectflow.storage import Storage, open_storage
from affectflow.training.inputs import open_inputs

WRITTEN = ("model/model.safetensors", "model/model.json", "history/history.parquet")
TINY = {
    "backbone": "test_resnet",
    "freeze-stages": 0,
    "keep-batchnorm": "all",
    "image-size": 32,
    "feature-dim": 16,
    "batch-size": 12,
    "epochs": 3,
    "learning-rate": 0.01,
    "select": "last",
    "workers": 2,
}


@pytest.fixture(scope="module")
def command(dataset: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the command up to its output folder."""
    faces, splits = dataset
    counts = dict(zip(EXPRESSIONS, open_inputs(faces, splits).splits["train"].counts, strict=True))
    weights = tmp_path_factory.mktemp("weights") / "class_weights"
    with new_artifact(weights, "class_weights", class_weights_fields(counts)):
        pass
    inputs = ["--faces", str(faces), "--splits", str(splits), "--class-weights", str(weights)]
    tiny = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "components.fine_tune", *inputs, *tiny, "--deterministic"]


@pytest.fixture(scope="module")
def unbroken(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("unbroken")
    subprocess.run([*command, "--output-dir", str(output)], check=True, capture_output=True)
    return output


def kill_after(command: list[str], checkpoints: str, step: int, *, whole_group: bool = False) -> None:
    """Start the command and SIGKILL its first process as soon as a checkpoint of ``step`` or later is there.

    The processes that it has started end by themselves, or are killed with it where the whole group shall be.
    """
    storage = open_storage(checkpoints)
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while not any(number >= step for number in steps_of(storage)):
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.005)
    finally:
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
    patience = time.monotonic() + 60
    while left := [other.cmdline() for other in psutil.process_iter() if is_of_session(other, process.pid)]:
        assert time.monotonic() < patience, left
        time.sleep(0.1)


def steps_of(storage: Storage) -> list[int]:
    """Return the steps of the checkpoints that are there: ``<run>/step-<step>-<digest>/checkpoint.pt``."""
    names = (entry.name for entry in storage.entries())
    return [int(name.split("/")[1].split("-")[1]) for name in names if name.endswith("/checkpoint.pt")]


def is_of_session(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False


def digests(output: Path) -> dict[str, str]:
    return {name: hashlib.sha256((output / name).read_bytes()).hexdigest() for name in WRITTEN}


@pytest.mark.slow
def test_weights_in_s3_train_the_model_of_the_same_file_here(
    command: list[str], s3: S3Server, tmp_path: Path
) -> None:
    file = tmp_path / "small.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)
    s3.client().upload_file(str(file), "open", "weights/small.safetensors")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    written = []
    for name, weights in (("here", str(file)), ("there", "s3://open/weights/small.safetensors")):
        flags = [
            "--weights",
            weights,
            "--weights-digest",
            digest,
            "--epochs",
            "1",
            "--output-dir",
            str(tmp_path / name),
        ]
        done = subprocess.run([*command, *flags], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        written.append(digests(tmp_path / name))
        header = json.loads((tmp_path / name / "model" / "model.json").read_text())
        assert (header["pretrained"], header["inputs"]["weights"]) == ("small", digest)
    assert written[0] == written[1]


def test_weights_that_are_not_in_s3_are_one_line(command: list[str], s3: S3Server, tmp_path: Path) -> None:
    flags = ["--weights", "s3://open/weights/none", "--output-dir", str(tmp_path)]
    done = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: --weights: got 's3://open/weights/none', wanted a file" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.nightly
@pytest.mark.slow
def test_a_command_killed_twice_writes_the_bytes_of_an_unbroken_one(
    command: list[str], unbroken: Path, tmp_path: Path
) -> None:
    checkpoints, output = tmp_path / "checkpoints", tmp_path / "output"
    flags = ["--checkpoint-dir", str(checkpoints), "--checkpoint-every", "2", "--output-dir", str(output)]
    for step in (2, 9):  # within the first of three epochs of five steps, and within the second
        kill_after([*command, *flags], str(checkpoints), step)
        assert not (output / "model").exists()
    subprocess.run([*command, *flags], check=True, capture_output=True)
    assert digests(output) == digests(unbroken)
    assert not any(checkpoints.iterdir())


@pytest.fixture(scope="module")
def unbroken_two(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("unbroken_two")
    flags = ["--processes", "2", "--output-dir", str(output)]
    done = subprocess.run([*command, *flags], check=True, capture_output=True, text=True)
    assert done.stdout.count("epoch 1/3: train loss") == 1
    return output


@pytest.mark.nightly
@pytest.mark.slow
def test_two_processes_killed_from_outside_go_on_from_a_bucket(
    command: list[str], unbroken_two: Path, s3: S3Server, tmp_path: Path
) -> None:
    bucket = "s3://open/fine_tune"
    flags = ["--processes", "2", "--checkpoint-dir", bucket, "--checkpoint-every", "2"]
    kill_after([*command, *flags, "--output-dir", str(tmp_path / "killed")], bucket, 7, whole_group=True)
    # as a pod that is gone, and its retry: another output folder
    flags += ["--output-dir", str(tmp_path / "retried")]
    done = subprocess.run([*command, *flags], check=True, capture_output=True, text=True)
    assert "going on after step" in done.stdout
    assert digests(tmp_path / "retried") == digests(unbroken_two)
    assert open_storage(bucket).entries() == []


@pytest.mark.slow
def test_two_processes_write_what_one_writes(unbroken_two: Path, unbroken: Path) -> None:
    got, wanted = (load_file(folder / WRITTEN[0]) for folder in (unbroken_two, unbroken))
    assert got.keys() == wanted.keys()
    for name, weights in wanted.items():
        assert (got[name] - weights).abs().max() < 1e-4, name
    got_header, wanted_header = (
        json.loads((folder / WRITTEN[1]).read_text()) for folder in (unbroken_two, unbroken)
    )
    assert got_header["settings"] == wanted_header["settings"]
    got_rows, wanted_rows = (pq.read_table(folder / WRITTEN[2]).to_pylist() for folder in (unbroken_two, unbroken))
    for got_row, wanted_row in zip(got_rows, wanted_rows, strict=True):
        assert got_row.pop("cluster_state") == wanted_row.pop("cluster_state")
        assert got_row == pytest.approx(wanted_row, rel=1e-3, abs=1e-4, nan_ok=True)


@pytest.mark.slow
def test_an_error_in_the_processes_is_one_line(command: list[str], tmp_path: Path) -> None:
    flags = ["--processes", "2", "--learning-rate", "1e30", "--output-dir", str(tmp_path)]
    done = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: training loss at step")
    assert not (tmp_path / "model").exists()


def test_a_batch_that_processes_cannot_divide_is_one_line(command: list[str], tmp_path: Path) -> None:
    flags = ["--processes", "5", "--output-dir", str(tmp_path)]
    done = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: --batch-size: got 12, wanted a multiple of the 5 processes")
    assert len(done.stderr.splitlines()) == 1


def one_line_of(command: list[str], output: Path, *flags: str, **environment: str) -> str:
    """Run the command, which must fail with one line, and return it."""
    done = subprocess.run(
        [*command, *flags, "--output-dir", str(output)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_no_compiler_is_one_line(command: list[str], tmp_path: Path) -> None:
    flags = {"CXX": str(tmp_path / "no-such-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    line = one_line_of(command, tmp_path / "out", "--compile-model", **flags)
    assert line.startswith("error: --compile-model: got no way to compile here")
