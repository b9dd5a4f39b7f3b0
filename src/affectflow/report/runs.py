"""The runs that a comparison is made of, checked to be about the same test set and put in models."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from affectflow.errors import DataError, what_got_wanted
from affectflow.metrics import METRICS
from affectflow.metrics.checks import FloatArray, IntArray, check_predictions
from affectflow.metrics.figures import History
from affectflow.report.published import published_row

FINISHED, FAILED = "finished", "failed"

#: How far a run's own accuracy may be from that of its predictions.
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """One trained model as evaluated on the test split, or the fact that it failed.

    Attributes:
        name: as people know the run.
        number: of the row in Tables 5 and 6, or None.
        backbone: that was trained, which ``backbone_map`` may have swapped.
        pretrained: source of its weights, ``none`` for training from scratch.
        loss: name of the loss setting.
        seed: of the training.
        status: ``finished`` or ``failed``; a failed run needs nothing below but ``run_id``.
        settings: resolved training settings, as JSON values.
        target: true classes of the test samples, (N,) int.
        probability: their class probabilities, (N, C) float.
        image_ids: their ids, (N,) text, unique; runs may list them in different orders.
        groups: a group a sample, (N,), or None where each stands alone.
        metrics: the test split's entry of ``metrics.json``, or empty; checked against the predictions.
        history: columns by name, a value an epoch (a DataFrame will do), or None.
        test_set_digest: of the test set.
        run_id: of the MLflow run, or empty.
        val_metrics: the validation split's entry of ``metrics.json``, or empty; the champion is chosen by it.
        reference: where the evaluation is: its address in MLflow or a folder; empty for a failed run.
        reason: why it failed, in one line, where that is known.
    """

    name: str
    number: int | None
    backbone: str
    pretrained: str
    loss: str
    seed: int
    status: str = FINISHED
    settings: Mapping[str, Any] = field(default_factory=dict)
    target: npt.ArrayLike = ()
    probability: npt.ArrayLike = ()
    image_ids: Sequence[str] = ()
    groups: npt.ArrayLike | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    history: History | None = None
    test_set_digest: str = ""
    run_id: str = ""
    val_metrics: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""
    reason: str = ""


@dataclass(frozen=True)
class TestSet:
    """What all finished runs share: digest, true classes (N,), groups (N,) or None, number of classes."""

    digest: str
    target: IntArray
    groups: npt.NDArray[Any] | None
    num_classes: int


@dataclass(frozen=True)
class ModelRuns:
    """Runs of one model: same row, backbone, pre-training, loss and settings; they differ in their seed."""

    label: str
    runs: tuple[ScoredRun, ...]

    @property
    def first(self) -> ScoredRun:
        """A run to read row, backbone, pre-training, loss and settings from."""
        return self.runs[0]

    @property
    def finished(self) -> dict[int, ScoredRun]:
        """Seed → finished run."""
        return {run.seed: run for run in self.runs if run.status == FINISHED}

    @property
    def failed_seeds(self) -> list[int]:
        """Seeds whose run failed."""
        return [run.seed for run in self.runs if run.status == FAILED]


def align_runs(runs: Sequence[ScoredRun]) -> tuple[TestSet | None, list[ScoredRun]]:
    """Check the runs and put their samples in the same order; the test set is None when all runs failed.

    Raises:
        DataError: no runs, an unknown status or row, faulty predictions, a run's metrics that are not those of its
            predictions, or runs over different test sets (the line has both digests).
    """
    if not runs:
        raise DataError(what_got_wanted("runs", got="none", wanted="at least one", do="name the runs to compare"))
    for run in runs:
        if run.status not in {FINISHED, FAILED}:
            raise _fault(run, f"status {run.status!r}", f"{FINISHED} or {FAILED}", "wait until it has ended")
        if run.number is not None:
            published_row(run.number)
    finished = [run for run in runs if run.status == FINISHED]
    if not finished:
        return None, list(runs)
    target, probability, ids = _predictions(finished[0])
    groups = None if finished[0].groups is None else np.asarray(finished[0].groups)
    test_set = TestSet(finished[0].test_set_digest, target, groups, probability.shape[1])
    aligned = []
    for run in runs:
        if run.status == FINISHED:
            aligned.append(_align(run, finished[0], ids, test_set))
        else:
            aligned.append(run)
    return test_set, aligned


def group_models(runs: Sequence[ScoredRun]) -> list[ModelRuns]:
    """Put runs that differ in their seed alone together, in the order of their rows, then as given.

    A failed run without settings belongs to the first model with its label; one whose seed finished in another
    attempt is left out. Models that would have the same label carry the settings in which they differ.

    Raises:
        DataError: two finished runs of the same model and seed.
    """
    groups: dict[tuple[str, str], dict[int, ScoredRun]] = {}
    for run in sorted(runs, key=lambda run: run.status == FAILED):
        label = _label(run)
        key = (label, _settings_key(run))
        if run.status == FAILED and not run.settings:
            key = next((other for other in groups if other[0] == label), key)
        same = groups.setdefault(key, {})
        other = same.setdefault(run.seed, run)
        if other is not run and run.status == FINISHED:
            raise _fault(
                run,
                f"a second run of the model and seed {run.seed} of {_called(other)}",
                "one run a seed",
                "leave one of the two out",
            )
    members = [(label, tuple(same[seed] for seed in sorted(same))) for (label, _), same in groups.items()]
    members.sort(key=lambda member: _place(member[1], runs))
    models = []
    for label, group in members:
        twins = [other[0] for other_label, other in members if other_label == label]
        models.append(ModelRuns(label + _distinction(group[0], twins), group))
    return models


def _align(run: ScoredRun, first: ScoredRun, ids: npt.NDArray[np.str_], test_set: TestSet) -> ScoredRun:
    target, probability, own_ids = _predictions(run)
    order, own_order = np.argsort(ids), np.argsort(own_ids)
    same = (
        run.test_set_digest == first.test_set_digest
        and probability.shape[1] == test_set.num_classes
        and np.array_equal(ids[order], own_ids[own_order])
        and np.array_equal(test_set.target[order], target[own_order])
    )
    if not same:
        raise DataError(
            what_got_wanted(
                "runs over different test sets",
                got=f"digest {run.test_set_digest or 'unknown'} ({len(target)} samples) of {_called(run)} and "
                f"{first.test_set_digest or 'unknown'} ({len(test_set.target)} samples) of {_called(first)}",
                wanted="the same samples with the same truth",
                do="evaluate both on the same splits",
            )
        )
    rows = np.empty_like(order)
    rows[order] = own_order
    return replace(run, target=test_set.target, probability=probability[rows], image_ids=tuple(ids.tolist()))


def _predictions(run: ScoredRun) -> tuple[IntArray, FloatArray, npt.NDArray[np.str_]]:
    try:
        target, probability = check_predictions(run.target, run.probability)
    except ValueError as error:
        raise DataError(f"predictions of {_called(run)}: {error}") from None
    ids = np.asarray(run.image_ids, dtype=np.str_)
    if ids.shape != target.shape or len(np.unique(ids)) != len(ids):
        raise _fault(
            run,
            f"{len(np.unique(ids))} different image ids",
            f"{len(target)}, one per target",
            "evaluate it again",
        )
    stated = run.metrics.get("accuracy")
    stated = stated.get("value") if isinstance(stated, Mapping) else stated
    accuracy = METRICS["accuracy"](target, probability)
    if stated is not None and accuracy is not None and abs(stated - accuracy) > _SAME:
        raise _fault(
            run,
            f"metrics with accuracy {stated:.6f}",
            f"{accuracy:.6f}, that of its predictions",
            "evaluate it again",
        )
    return target, probability, ids


def _settings_key(run: ScoredRun) -> str:
    settings = {name: value for name, value in run.settings.items() if name != "seed"}
    return json.dumps(settings, sort_keys=True, default=str)


def _place(group: Sequence[ScoredRun], runs: Sequence[ScoredRun]) -> tuple[bool, int, int]:
    """Order numbered rows by number, others after them; within both, as given."""
    number = group[0].number
    return number is None, number or 0, min(runs.index(run) for run in group)


def _label(run: ScoredRun) -> str:
    parts = [run.backbone, run.pretrained, run.loss]
    return " · ".join(parts if run.number is None else [str(run.number), *parts])


def _distinction(run: ScoredRun, twins: Sequence[ScoredRun]) -> str:
    names = sorted({name for twin in twins for name in twin.settings} - {"seed"})
    differing = [name for name in names if len({_setting(twin, name) for twin in twins}) > 1]
    return f" ({', '.join(f'{name}={_setting(run, name)}' for name in differing)})" if differing else ""


def _setting(run: ScoredRun, name: str) -> str:
    return str(run.settings[name]) if name in run.settings else "unset"


def _called(run: ScoredRun) -> str:
    return f"run {run.name!r}" + (f" ({run.run_id})" if run.run_id else "")


def _fault(run: ScoredRun, got: str, wanted: str, do: str) -> DataError:
    return DataError(what_got_wanted(_called(run), got=got, wanted=wanted, do=do))
