"""The loop: it learns, picks the epoch it should, goes on bit for bit where it was stopped, and stops on NaN."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from s3_server import S3Server
from small_trainer import BATCH_SIZE, build_trainer
from stopping import Killed, assert_same, kill_at

from affectflow.errors import CheckpointError, DataError, TrainingError
from affectflow.losses import LOSSES
from affectflow.storage import open_storage
from affectflow.training.checkpoints import CheckpointStore
from affectflow.training.inputs import Inputs, SplitFaces
from affectflow.training.loop import Row, Trainer

Make = Callable[..., Trainer]


def state_of(trainer: Trainer) -> dict[str, Any]:
    return {
        "model": trainer.model.state_dict(),
        "loss": trainer.loss.state_dict(),
        "optimizer": trainer.optimizer.state_dict()["state"],
        "random": torch.get_rng_state(),
    }


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
    newest = max(tmp_path.glob("run/step-*/checkpoint.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    unbroken = make_trainer().fit()
    assert make_trainer(checkpoints=tmp_path).fit() == unbroken


def test_class_means_are_those_of_all_training_faces(make_trainer: Make, inputs: Inputs) -> None:
    trainer = make_trainer(center_init="class_means")
    trainer._start_centers_at_class_means()
    faces, target = trainer.train_loader.dataset, torch.from_numpy(inputs.splits["train"].target)
    assert len(target) % BATCH_SIZE  # so that the last batch is not full
    with torch.no_grad():
        images = torch.stack([faces[0, index].image for index in range(len(target))])
        _, features = trainer.model.eval()(trainer.normalise(images))
    for code, center in enumerate(trainer.loss.auxiliary.centers):
        torch.testing.assert_close(center, features[target == code].mean(dim=0), rtol=1e-4, atol=1e-5)
    assert len(trainer.batches) == len(target) // BATCH_SIZE  # training leaves it out again


def test_class_means_of_an_absent_class_are_an_error_that_names_it(inputs: Inputs) -> None:
    train = inputs.splits["train"]
    keep = train.target != 5
    rows = [getattr(train, name)[keep] for name in ("rows", "image_id", "group", "target")]
    trainer = build_trainer(
        dataclasses.replace(inputs, splits={**inputs.splits, "train": SplitFaces(*rows)}),
        class_weights=[1.0] * 8,
        center_init="class_means",
    )
    with pytest.raises(DataError, match="training faces: got none of disgust, wanted some of each"):
        trainer.fit()


def test_lambda_rises_evenly_over_the_warm_up(make_trainer: Make) -> None:
    trainer = make_trainer(loss="center+softmax", lambda_warmup_epochs=2, epochs=3)
    seen = []
    trainer._train_step = note_lambda(trainer, seen)  # type: ignore[method-assign]
    trainer.fit()
    del trainer._train_step
    assert seen == pytest.approx([0.5 * min(1, step / 10) for step in range(15)])
    assert trainer.loss.lambda_ == 0.5  # validation has all of it


def note_lambda(trainer: Trainer, seen: list[float]) -> Callable[..., Any]:
    step = trainer._train_step

    def noted(images: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(trainer.loss.lambda_)
        return step(images, target)

    return noted


def test_centers_go_on_from_the_loss_scale_of_float16(make_trainer: Make) -> None:
    """The loss is multiplied by the scale before backward; the centers' gradient must not be."""
    scaled = make_trainer(center_update="gradient", dropout=0.0, epochs=1)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    plain = make_trainer(center_update="gradient", dropout=0.0, epochs=1)
    scaled.fit(), plain.fit()
    torch.testing.assert_close(scaled.loss.auxiliary.centers, plain.loss.auxiliary.centers)
    torch.testing.assert_close(dict(scaled.model.state_dict()), dict(plain.model.state_dict()))


@pytest.mark.parametrize("update", ["paper", "gradient"])
def test_a_step_that_overflows_moves_neither_weights_nor_centers(make_trainer: Make, update: str) -> None:
    trainer = make_trainer(center_update=update, epochs=1)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    images, target = next(iter(trainer.train_loader))
    weights = trainer.model.output.weight
    weights.register_hook(lambda grad: grad * math.inf)
    before = weights.detach().clone(), trainer.loss.auxiliary.centers.clone()
    values = trainer._train_step(images, target)
    assert torch.equal(weights, before[0])
    assert torch.equal(trainer.loss.auxiliary.centers, before[1])
    assert values["gradient_norm"] == 0  # no step, no fault: the scale is halved and training goes on
    assert trainer.scaler.get_scale() == 2.0**11
    trainer.scaler.update(0.5)
    assert trainer._train_step(images, target)["gradient_norm"].isinf()  # no scale helps


def test_a_run_whose_report_was_lost_reports_again(make_trainer: Make, tmp_path: Path) -> None:
    """The kill comes when the checkpoint of epoch 1 is written, and before its row is logged."""

    def kill(row: Row, rate: float | None) -> None:
        raise Killed

    with pytest.raises(Killed):
        make_trainer(checkpoints=tmp_path, on_epoch=kill).fit()
    reported: list[tuple[float, bool]] = []
    make_trainer(
        checkpoints=tmp_path, on_epoch=lambda row, rate: reported.append((row["epoch"], rate is None))
    ).fit()
    assert reported == [(1, True), (2, False)]


@pytest.mark.parametrize(("changed", "what"), [({"feature_dim": 8}, "model"), ({"loss": "softmax"}, "loss")])
def test_a_checkpoint_of_another_model_or_loss_is_refused(
    make_trainer: Make, tmp_path: Path, changed: dict[str, Any], what: str
) -> None:
    make_trainer(checkpoints=tmp_path, epochs=1).fit()
    with pytest.raises(
        CheckpointError, match=f"^{what} in the checkpoint: got .* entries that do not fit"
    ) as caught:
        make_trainer(checkpoints=tmp_path, **changed).fit()
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_version_is_refused(make_trainer: Make, tmp_path: Path) -> None:
    store = make_trainer(checkpoints=tmp_path).checkpoints
    store.save({"version": 0}, step=3)
    with pytest.raises(CheckpointError, match="got version 0, wanted a checkpoint of version 1; delete it"):
        make_trainer(checkpoints=tmp_path).fit()


def test_leftovers_of_killed_writes_neither_count_nor_stay(make_trainer: Make, tmp_path: Path) -> None:
    for step in (8, 9):  # later than all that are to come
        folder = tmp_path / "run" / f"step-{step:09d}-0123456789abcdef"
        folder.mkdir(parents=True)
        (folder / ".checkpoint.pt.12345678.partial").write_bytes(b"half")
    with pytest.raises(Killed):
        make_trainer(checkpoints=tmp_path, checkpoint_every=1, on_step=kill_at(3)).fit()
    kept = sorted(folder.name[:14] for folder in (tmp_path / "run").iterdir())
    assert kept == ["step-000000002", "step-000000003"]
    trainer = make_trainer(checkpoints=tmp_path)
    assert trainer.fit() == make_trainer().fit()
    trainer.checkpoints.clear()
    assert not (tmp_path / "run").exists()


def test_checkpoints_in_a_bucket_are_gone_on_from(make_trainer: Make, s3: S3Server) -> None:
    where = "s3://open/checkpoints"
    for stop in (3, 1):  # within the first epoch, and one step after going on
        with pytest.raises(Killed):
            make_trainer(checkpoints=where, checkpoint_every=2, on_step=kill_at(stop)).fit()
    steps: list[int] = []
    resumed = make_trainer(checkpoints=where, checkpoint_every=2, on_step=steps.append)
    unbroken = make_trainer()
    assert resumed.fit() == unbroken.fit()
    assert_same(state_of(resumed), state_of(unbroken))
    assert len(steps) == 8
    assert len(resumed.checkpoints.storage.entries("run")) == 2
    resumed.checkpoints.clear()
    assert resumed.checkpoints.storage.entries("run") == []


def test_collapse_ends_the_run_where_it_shall_and_again_when_it_is_started_again(
    make_trainer: Make, tmp_path: Path
) -> None:
    def build(**changes: Any) -> Trainer:
        trainer = make_trainer(checkpoints=tmp_path, stop_on_collapse=True, epochs=3, **changes)
        with torch.no_grad():  # every face gets the feature 1
            trainer.model.feature.weight.zero_()
            trainer.model.feature.bias.fill_(1.0)
        for parameter in trainer.model.feature.parameters():
            parameter.register_hook(torch.zeros_like)
        return trainer

    for steps in (5, 0):
        done: list[int] = []
        rows: list[Row] = []
        trainer = build(on_step=done.append, on_epoch=lambda row, rate, rows=rows: rows.append(row))
        with pytest.raises(
            TrainingError, match=r"features after epoch 1: got nearly the same .*--feature-norm l2"
        ):
            trainer.fit()
        assert len(done) == steps
        assert [row["cluster_state"] for row in rows] == ["collapsed"]


def newest_checkpoint(folder: Path) -> dict[str, Any]:
    state = CheckpointStore(open_storage(str(folder)), "run").load()
    assert state is not None
    return state


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    make_trainer: Make, tmp_path: Path
) -> None:
    def break_weights(step: int) -> None:
        if step == 7:
            with torch.no_grad():
                trainer.model.output.bias.fill_(float("nan"))

    trainer = make_trainer(checkpoints=tmp_path, on_step=break_weights)
    with pytest.raises(
        TrainingError, match=r"training loss at step 8 \(epoch 2\): got .*weighted_softmax nan"
    ) as caught:
        trainer.fit()
    assert "lower --learning-rate; the last good checkpoint is kept" in str(caught.value)
    assert newest_checkpoint(tmp_path)["progress"]["epoch"] == 1


def test_running_statistics_that_are_not_finite_are_not_kept(make_trainer: Make, tmp_path: Path) -> None:
    """In training mode BatchNorm normalises by the batch: no loss and no gradient shows them."""

    def break_statistics(step: int) -> None:
        if step == 7:
            next(b for name, b in trainer.model.named_buffers() if name.endswith("running_var")).fill_(math.inf)

    trainer = make_trainer(checkpoints=tmp_path, checkpoint_every=1, on_step=break_statistics)
    with pytest.raises(TrainingError, match="running statistics"):
        trainer.fit()
    assert newest_checkpoint(tmp_path)["progress"]["batches_done"] <= 2  # of step 7, the second of its epoch


@pytest.mark.parametrize("step", [4, 5, 7], ids=["before a checkpoint", "at the end of an epoch", "in between"])
def test_a_gradient_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    make_trainer: Make, tmp_path: Path, step: int
) -> None:
    """The loss of that step is finite: only the next one would not be, after a checkpoint of broken weights."""
    breaks = [False]

    def on_step(done: int) -> None:
        breaks[0] = done == step - 1

    trainer = make_trainer(checkpoints=tmp_path, checkpoint_every=2, on_step=on_step)
    trainer.model.feature.weight.register_hook(lambda grad: grad * math.nan if breaks[0] else grad)
    with pytest.raises(
        TrainingError, match=rf"training gradient at step {step} .*gradient_norm nan; at the step before"
    ):
        trainer.fit()
    kept = newest_checkpoint(tmp_path)
    assert kept["progress"]["epoch"] * 5 + kept["progress"]["batches_done"] == {4: 2, 5: 4, 7: 5}[step]
    assert all(weights.isfinite().all() for weights in kept["model"].values() if weights.is_floating_point())


def test_a_validation_that_is_not_finite_stops_the_run(make_trainer: Make, tmp_path: Path) -> None:
    """Statistics of BatchNorm show in evaluation alone."""

    def on_step(done: int) -> None:
        if done == 4:
            trainer.model.backbone.bn1.running_var.fill_(math.nan)

    trainer = make_trainer(checkpoints=tmp_path, on_step=on_step)
    with pytest.raises(TrainingError, match="training loss at the validation after epoch 1: got"):
        trainer.fit()
    assert CheckpointStore(open_storage(str(tmp_path)), "run").load() is None


def test_a_center_loss_that_diverges_is_named_as_the_cause(make_trainer: Make) -> None:
    trainer = make_trainer(loss="center+softmax", learning_rate=100.0, epochs=20)
    with pytest.raises(
        TrainingError, match=r"(center|gradient_norm) (nan|inf).*the center part pulls .*--center-lambda"
    ):
        trainer.fit()


def test_the_limit_on_center_steps_is_counted_by_epoch(make_trainer: Make) -> None:
    limited = make_trainer(center_init="zeros", class_weights=[1.0] * 8).fit()
    assert limited[0]["center.limited_steps"] > 0
    assert all(row["center.limited_steps"] <= 5 * 8 for row in limited)
    assert "center.limited_steps" not in make_trainer(loss="center+softmax").fit()[0]
