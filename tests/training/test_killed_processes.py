"""Two processes that are killed (SIGKILL) at a step or while a checkpoint is written go on bit for bit."""

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from small_trainer import build_trainer
from stopping import assert_same

from affectflow.errors import TrainingError
from affectflow.training.determinism import use_deterministic_algorithms
from affectflow.training.distributed import in_processes, rank
from affectflow.training.inputs import Inputs, open_inputs

pytestmark = pytest.mark.nightly

#: File of the fork servers' process ids.
SERVERS = "servers.txt"

#: BatchNorm that trains and dropout, so that running statistics and each process's random state count.
EVERYTHING: dict[str, Any] = {"freeze": (0, "none"), "dropout": 0.2, "checkpoint_every": 1, "select": "last"}
#: What does not depend on how many processes divide a batch.
INDEPENDENT: dict[str, Any] = {
    "freeze": (1, "all"),
    "dropout": 0.0,
    "checkpoint_every": 1,
    "select": "last",
    "dtype": torch.float64,
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_step(number: int, step: int, done: int) -> None:
    if (rank(), done) == (number, step):
        die()


def die_in_the_middle_of_writing(write: Callable[[Path, bytes], int], nth: int) -> Callable[[Path, bytes], int]:
    """Return a ``Path.write_bytes`` whose ``nth`` call writes half of the bytes and dies."""
    calls = [0]

    def write_bytes(path: Path, data: bytes) -> int:
        calls[0] += 1
        if calls[0] == nth:
            write(path, data[: len(data) // 2])
            die()
        return write(path, data)

    return write_bytes


def train(
    dataset: tuple[Path, Path], checkpoints: Path, results: Path, settings: dict[str, Any], how: tuple[Any, ...]
) -> None:
    """Train in this process, dying as ``how`` says, and save what the run ends with."""
    use_deterministic_algorithms()
    on_step: Callable[[int], None] = lambda done: None  # noqa: E731
    if how[0] == "step":
        on_step = functools.partial(die_at_step, *how[1:])
    elif how[0] == "write" and rank() == 0:
        Path.write_bytes = die_in_the_middle_of_writing(Path.write_bytes, how[1])  # type: ignore[method-assign]
    with (results / SERVERS).open("a") as stream:
        print(forkserver._forkserver._forkserver_pid, file=stream)
    trainer = build_trainer(open_inputs(*dataset), checkpoints=checkpoints, on_step=on_step, **settings)
    with contextlib.suppress(FileNotFoundError):
        (results / f"{rank()}.pt").unlink()
    rows = trainer.fit()
    torch.save(
        {
            "rows": rows,
            "model": dict(trainer.model.state_dict()),
            "loss": dict(trainer.loss.state_dict()),
            "optimizer": trainer.optimizer.state_dict()["state"],
            "random": torch.get_rng_state(),
        },
        results / f"{rank()}.pt",
    )


def wait_for_no_servers(results: Path) -> None:
    """Wait until the fork servers have ended, which they do when their last worker has."""
    patience = time.monotonic() + 60
    pids = [int(pid) for pid in (results / SERVERS).read_text().split()]
    while left := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < patience, left
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def results_of(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in (0, 1)]


@pytest.mark.slow
def test_two_processes_killed_twice_end_as_unbroken_ones(
    dataset: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two epochs of five steps; a checkpoint after each step."""
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    for folder in (unbroken, killed):
        folder.mkdir()
    in_processes(2, functools.partial(train, dataset, unbroken / "c", unbroken, EVERYTHING, ("never",)))
    assert "BatchNorm layers that train see each process's share of a batch" in capfd.readouterr().err
    kills = (
        ("step", 1, 2),  # rank 1, before its third step
        ("write", 3),  # rank 0, in the middle of the checkpoint at the end of the epoch
    )
    for how in kills:
        with pytest.raises(TrainingError, match="killed by SIGKILL"):
            in_processes(2, functools.partial(train, dataset, killed / "c", killed, EVERYTHING, how))
        assert not list(killed.glob("*.pt"))
        wait_for_no_servers(killed)
    assert list((killed / "c").rglob("*.partial"))  # the second kill came in the middle of a write
    in_processes(2, functools.partial(train, dataset, killed / "c", killed, EVERYTHING, ("never",)))
    for got, wanted in zip(results_of(killed), results_of(unbroken), strict=True):
        assert_same(got, wanted)


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_in_one(dataset: tuple[Path, Path], inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="killed by SIGKILL"):
        in_processes(2, functools.partial(train, dataset, tmp_path, tmp_path, INDEPENDENT, ("step", 1, 3)))
    steps: list[int] = []
    resumed = build_trainer(inputs, checkpoints=tmp_path, on_step=steps.append, **INDEPENDENT)
    unbroken = build_trainer(inputs, **INDEPENDENT)
    resumed.fit(), unbroken.fit()
    assert len(steps) == 7
    for got, wanted in ((resumed.model, unbroken.model), (resumed.loss, unbroken.loss)):
        torch.testing.assert_close(dict(got.state_dict()), dict(wanted.state_dict()), rtol=1e-8, atol=1e-8)
