"""The loop: it learns, picks the epoch it should, goes on bit for bit where it was stopped, and stops on NaN."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from affectflow.errors import TrainingError
from affectflow.losses import LOSSES
from affectflow.training.loop import Trainer

Make = Callable[..., Trainer]


class Killed(Exception):  # noqa: N818 (it is no error)
    """Stands for the end of the process at a step."""


def kill_at(step: int) -> Callable[[int], None]:
    def on_step(done: int) -> None:
        if done == step:
            raise Killed

    return on_step


def state_of(trainer: Trainer) -> dict[str, Any]:
    return {
        "model": trainer.model.state_dict(),
        "loss": trainer.loss.state_dict(),
        "optimizer": trainer.optimizer.state_dict()["state"],
        "random": torch.get_rng_state(),
    }


def assert_same(got: Any, wanted: Any) -> None:
    """Equal to the bit, whatever the nesting."""
    if isinstance(wanted, torch.Tensor):
        assert torch.equal(got, wanted)
    elif isinstance(wanted, dict):
        assert got.keys() == wanted.keys()
        for name in wanted:
            assert_same(got[name], wanted[name])
    else:
        assert got == wanted


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_trains_and_reports_its_parts(make_trainer: Make, loss: str) -> None:
    rows = make_trainer(loss=loss).fit()
    assert [row["epoch"] for row in rows] == [1, 2]
    for part in loss.split("+"):
        assert all(row[f"train_{part}"] > 0 and row[f"val_{part}"] > 0 for row in rows)
    total = sum(rows[0][f"train_{part}"] * (0.5 if part == "center" else 1.0) for part in loss.split("+"))
    assert rows[0]["train_loss"] == pytest.approx(total, rel=1e-5)


def test_training_lowers_the_loss(make_trainer: Make) -> None:
    rows = make_trainer(epochs=6, halve_every=10).fit()
    assert rows[-1]["train_weighted_softmax"] < rows[0]["train_weighted_softmax"] - 0.05


def test_the_learning_rate_is_halved_on_time(make_trainer: Make) -> None:
    rows = make_trainer(epochs=4, halve_every=2).fit()
    assert [row["learning_rate"] for row in rows] == [0.01, 0.01, 0.005, 0.005]


@pytest.mark.parametrize("select", ["best_uar", "best_loss", "last"])
def test_the_chosen_epoch_is_what_the_setting_says(make_trainer: Make, select: str) -> None:
    trainer = make_trainer(epochs=4, select=select)
    rows = trainer.fit()
    chosen = trainer.best_row
    if select == "last":
        assert chosen == rows[-1]
    elif select == "best_uar":
        assert chosen["val_uar"] == max(row["val_uar"] for row in rows)
    else:
        assert chosen["val_loss"] == min(row["val_loss"] for row in rows)


def test_the_model_keeps_the_weights_of_the_chosen_epoch(make_trainer: Make) -> None:
    """best_loss over two epochs picks the one that a run of just that many epochs ends with."""
    trainer = make_trainer(epochs=3, select="best_loss")
    trainer.fit()
    alone = make_trainer(epochs=int(trainer.best_row["epoch"]), select="last")
    alone.fit()
    assert_same(dict(trainer.model.state_dict()), dict(alone.model.state_dict()))


@pytest.mark.parametrize("stop", [1, 3, 5, 6, 9], ids=lambda step: f"step{step}")
@pytest.mark.parametrize("checkpoint_every", [0, 2])
def test_a_killed_run_ends_as_an_unbroken_one(
    make_trainer: Make, tmp_path: Path, stop: int, checkpoint_every: int
) -> None:
    unbroken = make_trainer(checkpoint_every=checkpoint_every)
    rows = unbroken.fit()
    wanted = state_of(unbroken)

    with pytest.raises(Killed):
        make_trainer(checkpoints=tmp_path, checkpoint_every=checkpoint_every, on_step=kill_at(stop)).fit()
    resumed = make_trainer(checkpoints=tmp_path, checkpoint_every=checkpoint_every)
    assert resumed.fit() == rows
    assert_same(state_of(resumed), wanted)


def test_a_resumed_run_does_not_start_over(make_trainer: Make, tmp_path: Path) -> None:
    """Two epochs of five steps, killed after the eighth; the last checkpoint stands after the seventh."""
    with pytest.raises(Killed):
        make_trainer(checkpoints=tmp_path, checkpoint_every=2, on_step=kill_at(8)).fit()
    steps: list[int] = []
    make_trainer(checkpoints=tmp_path, checkpoint_every=2, on_step=steps.append).fit()
    assert len(steps) == 3


def test_a_checkpoint_that_was_cut_short_is_passed_over(make_trainer: Make, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        make_trainer(checkpoints=tmp_path, checkpoint_every=2, on_step=kill_at(9)).fit()
    newest = max(tmp_path.glob("step-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    unbroken = make_trainer().fit()
    assert make_trainer(checkpoints=tmp_path).fit() == unbroken


def test_class_means_are_where_centers_start(make_trainer: Make) -> None:
    trainer = make_trainer(center_init="class_means", epochs=1)
    trainer._start_centers_at_class_means()
    centers = trainer.loss.auxiliary.centers
    assert torch.isfinite(centers).all()
    assert centers.std() > 0


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    make_trainer: Make, tmp_path: Path
) -> None:
    trainer = make_trainer(checkpoints=tmp_path)

    def break_weights(step: int) -> None:
        if step == 7:
            with torch.no_grad():
                trainer.model.output.bias.fill_(float("nan"))

    trainer = make_trainer(checkpoints=tmp_path, on_step=break_weights)
    with pytest.raises(TrainingError, match=r"training loss at step 8 .*lower --learning-rate"):
        trainer.fit()
    assert len(list(tmp_path.glob("step-*.pt"))) == 1
