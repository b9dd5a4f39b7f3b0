"""Models side by side: values with intervals, and differences to each row's baseline with paired tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from affectflow.metrics import (
    LOWER_IS_BETTER,
    METRICS,
    Resampled,
    compare_seeds,
    confusion_matrix,
    holm,
    mcnemar,
    mean_resampled,
    resample_metrics,
)
from affectflow.metrics.bootstrap import Difference, Interval
from affectflow.metrics.checks import FloatArray, IntArray
from affectflow.metrics.significance import McNemar, SeedComparison
from affectflow.progress import progress
from affectflow.report.published import LOSSES
from affectflow.report.runs import ModelRuns, ScoredRun, TestSet, align_runs, group_models

#: Loss → the loss without what it adds, which is what its models are compared with.
BASELINE_OF: Mapping[str, str] = {
    "center+softmax": "softmax",
    "weighted_softmax": "softmax",
    "center+weighted_softmax": "weighted_softmax",
    "weighted_cluster+weighted_softmax": "weighted_softmax",
}
#: For any other loss: the first of these that was run.
_OTHER_BASELINES = ("weighted_softmax", "softmax")

LEVEL = 0.95

WITHIN_NOISE = "within noise"


@dataclass(frozen=True)
class ScoredModel:
    """A model's metrics as the mean over its finished seeds.

    Attributes:
        model: its runs.
        intervals: metric → value and interval over test samples; empty when no seed finished.
        deviations: metric → standard deviation over seeds; None for one seed.
        counts: (C, C) int64, confusion matrices of the seeds added up; None when no seed finished.
        recalls: (C,) float64, NaN for an absent class; None when no seed finished.
    """

    model: ModelRuns
    intervals: Mapping[str, Interval]
    deviations: Mapping[str, float | None]
    counts: IntArray | None
    recalls: FloatArray | None


@dataclass(frozen=True)
class MetricDifference:
    """One metric of a model less that of its baseline.

    Attributes:
        paired: difference, interval and p-value from the paired bootstrap over test samples.
        p_holm: the p-value corrected over all models that are compared in this metric.
        seeds: comparison seed for seed; None with fewer than two common seeds.
        seeds_p_holm: its p-value, corrected in the same way.
        verdict: in words.
    """

    paired: Difference
    p_holm: float | None
    seeds: SeedComparison | None
    seeds_p_holm: float | None
    verdict: str


@dataclass(frozen=True)
class BaselineComparison:
    """A model against its baseline, over the seeds that both have (or all of both, where they share none).

    Attributes:
        model: its label.
        baseline: the baseline's label.
        baseline_loss: the baseline's loss; backbone and pre-training are the model's.
        seeds: the seeds that both have.
        differences: metric → difference.
        mcnemar: seed → McNemar's test of the predicted classes.
    """

    model: str
    baseline: str
    baseline_loss: str
    seeds: tuple[int, ...]
    differences: Mapping[str, MetricDifference]
    mcnemar: Mapping[int, McNemar]


@dataclass(frozen=True)
class Comparison:
    """All that the report says. ``test_set`` is None when every run failed."""

    test_set: TestSet | None
    models: tuple[ScoredModel, ...]
    baselines: tuple[BaselineComparison, ...]
    resamples: int
    seed: int


def compare(runs: Sequence[ScoredRun], *, resamples: int = 2000, seed: int = 0) -> Comparison:
    """Compare runs over the same test set, one or many.

    Args:
        runs: finished and failed ones, in any order.
        resamples: bootstrap resamples behind each interval; by group where the first finished run has groups.
        seed: of the bootstrap.

    Raises:
        DataError: see :func:`affectflow.report.runs.align_runs` and :func:`affectflow.report.runs.group_models`.
    """
    test_set, aligned = align_runs(runs)
    models = group_models(aligned)
    groups = None if test_set is None else test_set.groups
    drawn: dict[str, dict[int, Resampled]] = {model.label: {} for model in models}
    finished = [(model, number, run) for model in models for number, run in model.finished.items()]
    for model, number, run in progress(finished, total=len(finished), desc="resampling", unit="runs"):
        drawn[model.label][number] = resample_metrics(
            run.target, run.probability, groups=groups, resamples=resamples, seed=seed
        )
    pairs = [(model, baseline) for model in models if (baseline := find_baseline(model, models)) is not None]
    return Comparison(
        test_set=test_set,
        models=tuple(_score(model, drawn[model.label]) for model in models),
        baselines=_compare_pairs(pairs, drawn),
        resamples=resamples,
        seed=seed,
    )


def find_baseline(model: ModelRuns, models: Sequence[ModelRuns]) -> ModelRuns | None:
    """Return the finished model of the same backbone and pre-training with the loss that this one adds to.

    Of several, the one of the same block of the tables that shares most settings. None for ``softmax``, for a
    failed model, or where the baseline was not run.
    """
    run = model.first
    if not model.finished or run.loss == "softmax":
        return None
    losses = (BASELINE_OF[run.loss],) if run.loss in BASELINE_OF else _OTHER_BASELINES
    for loss in losses:
        found = [
            other
            for other in models
            if other.finished
            and (other.first.backbone, other.first.pretrained, other.first.loss)
            == (run.backbone, run.pretrained, loss)
        ]
        if found:
            return max(
                found, key=lambda other: (_same_block(run, other.first), _shared_settings(run, other.first))
            )
    return None


def verdict(metric: str, paired: Difference, p_holm: float | None) -> str:
    """Say in words what a difference shows: within noise when its interval holds 0."""
    gap, low, high = paired["difference"], paired["low"], paired["high"]
    if gap is None or low is None or high is None:
        return "not defined"
    if low <= 0 <= high:
        return WITHIN_NOISE
    word = "better" if (low > 0) != (metric in LOWER_IS_BETTER) else "worse"
    if p_holm is not None and p_holm > 1 - LEVEL:
        return f"{word}, but not after Holm's correction"
    return word


def _score(model: ModelRuns, drawn: Mapping[int, Resampled]) -> ScoredModel:
    if not drawn:
        return ScoredModel(model, {}, {}, None, None)
    mean = mean_resampled(list(drawn.values()))
    deviations: dict[str, float | None] = {}
    for name in METRICS:
        values = [one.values[name] for one in drawn.values()]
        deviations[name] = float(np.std(values, ddof=1)) if len(values) > 1 and np.isfinite(values).all() else None
    counts = np.sum([confusion_matrix(run.target, run.probability) for run in model.finished.values()], axis=0)
    size = counts.sum(axis=1)
    recalls = np.where(size > 0, np.diag(counts) / np.maximum(size, 1), np.nan)
    intervals = {name: mean.interval(name, level=LEVEL) for name in METRICS}
    return ScoredModel(model, intervals, deviations, counts, recalls)


def _compare_pairs(
    pairs: Sequence[tuple[ModelRuns, ModelRuns]], drawn: Mapping[str, Mapping[int, Resampled]]
) -> tuple[BaselineComparison, ...]:
    common = [tuple(sorted(set(model.finished) & set(baseline.finished))) for model, baseline in pairs]
    table: list[dict[str, MetricDifference]] = [{} for _ in pairs]
    means = [
        (_mean_over(drawn[model.label], seeds), _mean_over(drawn[baseline.label], seeds))
        for (model, baseline), seeds in zip(pairs, common, strict=True)
    ]
    for metric in METRICS:
        paired = [ours.difference(theirs, metric, level=LEVEL) for ours, theirs in means]
        corrected = _holm_defined([difference["p_value"] for difference in paired])
        by_seed = [
            _by_seed(drawn[model.label], drawn[baseline.label], seeds, metric)
            for (model, baseline), seeds in zip(pairs, common, strict=True)
        ]
        seeds_corrected = _holm_defined([None if test is None else test["p_value"] for test in by_seed])
        for row in range(len(pairs)):
            table[row][metric] = MetricDifference(
                paired=paired[row],
                p_holm=corrected[row],
                seeds=by_seed[row],
                seeds_p_holm=seeds_corrected[row],
                verdict=verdict(metric, paired[row], corrected[row]),
            )
    return tuple(
        BaselineComparison(
            model=model.label,
            baseline=baseline.label,
            baseline_loss=baseline.first.loss,
            seeds=seeds,
            differences=differences,
            mcnemar={seed: _mcnemar(model.finished[seed], baseline.finished[seed]) for seed in seeds},
        )
        for (model, baseline), seeds, differences in zip(pairs, common, table, strict=True)
    )


def _mean_over(drawn: Mapping[int, Resampled], seeds: Sequence[int]) -> Resampled:
    return mean_resampled([drawn[seed] for seed in seeds or drawn])


def _by_seed(
    ours: Mapping[int, Resampled], theirs: Mapping[int, Resampled], seeds: Sequence[int], metric: str
) -> SeedComparison | None:
    first = [ours[seed].values[metric] for seed in seeds]
    second = [theirs[seed].values[metric] for seed in seeds]
    if len(seeds) < 2 or not np.isfinite([*first, *second]).all():
        return None
    return compare_seeds(first, second, level=LEVEL)


def _mcnemar(ours: ScoredRun, theirs: ScoredRun) -> McNemar:
    predicted = [np.asarray(run.probability).argmax(axis=1) for run in (ours, theirs)]
    return mcnemar(ours.target, predicted[0], predicted[1])


def _holm_defined(p_values: Sequence[float | None]) -> list[float | None]:
    corrected = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(corrected) for p in p_values]


def _same_block(run: ScoredRun, other: ScoredRun) -> bool:
    """Whether two rows differ in their loss alone, which ``backbone_map`` may have hidden."""
    if run.number is None or other.number is None:
        return run.number is other.number
    return (run.number - 1) // len(LOSSES) == (other.number - 1) // len(LOSSES)


def _shared_settings(run: ScoredRun, other: ScoredRun) -> int:
    return sum(name in other.settings and other.settings[name] == value for name, value in run.settings.items())


def in_points(difference: float) -> str:
    """Return a difference of shares in points of a percent, e.g. ``"+1.3"``; what rounds to nothing is +0.0."""
    return f"{100 * difference:+z.1f}"
