"""Two processes with half of each batch train as one process with the whole batch does."""

import functools
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from small_trainer import BATCH_SIZE, build_trainer

from affectflow.errors import CheckpointError, SettingsError, TrainingError
from affectflow.losses import LOSSES
from affectflow.training.distributed import count_processes, gather, in_processes, num_processes, rank
from affectflow.training.inputs import Inputs, open_inputs
from affectflow.training.loading import EpochBatches

DTYPES = {"float64": (torch.float64, 1e-8), "float32": (torch.float32, 1e-4)}

#: name → arguments of build_trainer: each loss and center update, in both precisions; then each way to keep
#: BatchNorm's statistics, and the start at class means.
CASES: dict[str, dict[str, Any]] = {
    f"{loss} {update} {dtype}": {"loss": loss, "center_update": update, "dtype": DTYPES[dtype][0]}
    for loss in LOSSES
    for update in (("paper", "gradient") if "center" in loss or "cluster" in loss else ("paper",))
    for dtype in DTYPES
} | {
    "frozen stages float64": {"freeze": (5, "frozen"), "dtype": torch.float64},
    "class means float64": {"center_init": "class_means", "dtype": torch.float64},
}
STEPS = 20


def train(inputs: Inputs, case: dict[str, Any]) -> dict[str, Any]:
    """Train 20 steps and return the history, the steps' losses, centers and weights."""
    epochs = math.ceil(STEPS / (len(inputs.splits["train"]) // BATCH_SIZE))
    trainer = build_trainer(
        inputs,
        **{"freeze": (1, "all"), "dropout": 0.0, "epochs": epochs, "halve_every": 10, "select": "last"} | case,
    )
    step, losses = trainer._train_step, []

    def noted(images: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        values = step(images, target)
        losses.append(values["loss"])
        return values

    trainer._train_step = noted  # type: ignore[method-assign]
    rows = trainer.fit()
    del trainer._train_step  # or the trainer and its loaders' processes live on in a circle
    assert len(losses) >= STEPS
    return {
        "losses": torch.stack(losses),
        "loss state": dict(trainer.loss.state_dict()),
        "weights": dict(trainer.model.state_dict()),
        "rows": rows,
    }


def numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if isinstance(value, float)}


def train_all(faces: Path, splits: Path, results: Path) -> None:
    inputs = open_inputs(faces, splits)
    torch.save({name: train(inputs, case) for name, case in CASES.items()}, results / f"{rank()}.pt")


@pytest.fixture(scope="module")
def two_processes(dataset: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    results = tmp_path_factory.mktemp("ranks")
    in_processes(2, functools.partial(train_all, *dataset, results))
    return [torch.load(results / f"{number}.pt", weights_only=True) for number in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(two_processes: list[dict[str, Any]], inputs: Inputs, name: str) -> None:
    tolerance = DTYPES[name.split()[-1]][1]
    wanted = train(inputs, CASES[name])
    for results in two_processes:
        got = results[name]
        for what in ("losses", "loss state", "weights"):
            torch.testing.assert_close(got[what], wanted[what], rtol=tolerance, atol=tolerance)
        for row, wanted_row in zip(got["rows"], wanted["rows"], strict=True):
            assert row["cluster_state"] == wanted_row["cluster_state"]
            wanted_numbers = numbers(wanted_row)  # validated in float32
            assert numbers(row) == pytest.approx(wanted_numbers, rel=1e-4, abs=1e-4, nan_ok=True)


def test_every_process_ends_with_the_same_bits(two_processes: list[dict[str, Any]]) -> None:
    first, second = two_processes
    for name in CASES:
        for what in ("losses", "loss state", "weights"):
            torch.testing.assert_close(first[name][what], second[name][what], rtol=0, atol=0)


def test_the_shares_of_a_batch_are_the_batch() -> None:
    whole = list(EpochBatches(30, batch_size=12, seed=3))
    shares = [list(EpochBatches(30, batch_size=12, seed=3, rank=r, processes=3)) for r in range(3)]
    assert [len(share) for share in shares] == [2, 2, 2]
    for number, batch in enumerate(whole):
        assert all(len(share[number]) == 4 for share in shares)
        assert sorted(sample for share in shares for sample in share[number]) == sorted(batch)


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    assert count_processes(4, batch_size=36) == 4
    with pytest.raises(SettingsError, match="--batch-size: got 36, wanted a multiple of the 5 processes"):
        count_processes(5, batch_size=36)


def fail(how: str) -> None:
    if rank() == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise CheckpointError("rank 1 says so")
    gather(torch.zeros(1))  # waits for rank 1


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("user", CheckpointError, "^rank 1 says so$"),
        ("killed", TrainingError, "^process 1 of 2: got killed by SIGKILL"),
    ],
)
def test_a_process_that_fails_ends_all_with_its_error(how: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        in_processes(2, functools.partial(fail, how))
    assert num_processes() == 1
