"""Two processes that are killed (SIGKILL) at a step or while a checkpoint is written go on bit for bit."""

import contextlib
import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_trainer import build_trainer

from affectflow.errors import TrainingError
from affectflow.training.determinism import use_deterministic_algorithms
from affectflow.training.distributed import in_processes, rank
from affectflow.training.inputs import Inputs, open_inputs

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


def results_of(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in (0, 1)]


@pytest.mark.slow
def test_two_processes_killed_four_times_end_as_unbroken_ones(dataset: tuple[Path, Path], tmp_path: Path) -> None:
    """Two epochs of five steps; a checkpoint after each step."""
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    for folder in (unbroken, killed):
        folder.mkdir()
    in_processes(2, functools.partial(train, dataset, unbroken / "c", unbroken, EVERYTHING, ("never",)))
    kills = (
        ("step", 1, 2),  # rank 1, before its third step, after a checkpoint of two
        ("write", 1),  # rank 0, in the middle of the first checkpoint after that
        ("step", 0, 2),  # rank 0, at the end of the epoch
        ("write", 3),
    )
    for how in kills:
        with pytest.raises(TrainingError, match="killed by SIGKILL"):
            in_processes(2, functools.partial(train, dataset, killed / "c", killed, EVERYTHING, how))
        assert not list(killed.glob("*.pt"))
    left = list((killed / "c").rglob("*.partial"))
    assert left  # the kill did come in the middle of a write
    in_processes(2, functools.partial(train, dataset, killed / "c", killed, EVERYTHING, ("never",)))
    for got, wanted in zip(results_of(killed), results_of(unbroken), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)


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
