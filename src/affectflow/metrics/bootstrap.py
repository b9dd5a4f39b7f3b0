"""Percentile bootstrap intervals of every metric, and of the difference of two models on the same samples.

Drawing: with ``rng = numpy.random.default_rng(seed)``, resample r is ``rng.integers(0, U, U)`` over the U
samples (or, with groups, over the U groups in sorted order, each bringing all its samples). So a seed names
the same resamples for every model, whatever the metrics and the memory.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from affectflow.errors import what_got_wanted
from affectflow.metrics.checks import FloatArray, check_groups, check_predictions
from affectflow.metrics.evaluation import METRICS
from affectflow.metrics.weighted import WeightedMetrics, Weights

#: Weights held at once, in numbers: small enough to stay in a processor's cache for usual test sets.
_CHUNK_CELLS = 1 << 18
_SMALLEST_CHUNK = 16


class Interval(TypedDict):
    """A metric's value on the whole set and the bounds of its interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None


class Difference(TypedDict):
    """The difference a - b, its interval, the two-sided p-value of no difference; None where undefined."""

    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None


@dataclass(frozen=True)
class Resampled:
    """Metrics of one model (or the mean of several) on the whole set and on every resample; NaN = undefined.

    Two of them from the same test set, groups, number of resamples and seed share their resamples, so that
    their differences are paired.

    Shape:
        values: a float a metric; drawn: (resamples,) float64 a metric.
    """

    values: dict[str, float]
    drawn: dict[str, FloatArray]

    def interval(self, metric: str, *, level: float = 0.95) -> Interval:
        """Return a metric with the interval that holds ``level`` of the resamples."""
        low, high = _bounds(self.drawn[metric], level)
        return Interval(value=_number(self.values[metric]), low=low, high=high)

    def difference(self, other: "Resampled", metric: str, *, level: float = 0.95) -> Difference:
        """Return a metric of this model less that of ``other``, from the resamples that they share."""
        gaps = self.drawn[metric] - other.drawn[metric]
        low, high = _bounds(gaps, level)
        gap = _number(self.values[metric] - other.values[metric])
        return Difference(difference=gap, low=low, high=high, p_value=_p_value(gaps))


def mean_resampled(models: Sequence[Resampled]) -> Resampled:
    """Return the mean over models that share their resamples, e.g. over the seeds of one setting."""
    names = models[0].values
    return Resampled(
        values={name: float(np.mean([model.values[name] for model in models])) for name in names},
        drawn={name: np.mean([model.drawn[name] for model in models], axis=0) for name in names},
    )


def resample_metrics(
    target: npt.ArrayLike,
    probability: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    metrics: Collection[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Resampled:
    """Return every metric on the whole set and on each resample of its samples or groups.

    Args:
        target: true classes.
        probability: class probabilities.
        groups: a value a sample; samples of one group (faces of the same content) are drawn together.
        metrics: names out of :data:`affectflow.metrics.METRICS`; None takes all.
        resamples: how often to resample, 1 or more.
        seed: names the resamples.

    Shape:
        target (N,) int in [0, C); probability (N, C) float; groups (N,).

    Raises:
        ValueError: a bad argument, as :func:`affectflow.metrics.checks.check_predictions` says.
    """
    labels, scores = check_predictions(target, probability)
    names = tuple(METRICS) if metrics is None else tuple(metrics)
    for name in names:
        if name not in METRICS:
            line = what_got_wanted(
                "metrics", got=name, wanted=f"some of {', '.join(METRICS)}", do="check the name"
            )
            raise ValueError(line)
    if resamples < 1:
        raise ValueError(what_got_wanted("resamples", got=str(resamples), wanted="1 or more", do="pass 2000"))
    scorer = WeightedMetrics(labels, scores, names)
    whole = scorer(np.ones((len(labels), 1), dtype=np.int32))
    chunks = [scorer(weights) for weights in _draw_weights(len(labels), groups, resamples, seed)]
    return Resampled(
        values={name: float(whole[name][0]) for name in names},
        drawn={name: np.concatenate([chunk[name] for chunk in chunks]) for name in names},
    )


def bootstrap_intervals(
    target: npt.ArrayLike,
    probability: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    metrics: Collection[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return each metric with its percentile interval over resampled samples or groups (Efron 1979).

    Args:
        target: true classes.
        probability: class probabilities.
        groups: a value a sample; samples of one group (faces of the same content) are drawn together.
        metrics: names out of :data:`affectflow.metrics.METRICS`; None takes all.
        resamples: how often to resample, 1 or more.
        seed: names the resamples.
        level: share of the resamples inside the interval, in (0, 1).

    Shape:
        target (N,) int in [0, C); probability (N, C) float; groups (N,).

    Note:
        A class that a resample does not draw is left out of means, as in the metric itself. Where that leaves a
        metric undefined, the interval is over the other resamples; it is None when there are none. The interval
        speaks of other test images, not of other training seeds. That of average precision sits too high with
        few samples a class, since a resample repeats samples; that of the calibration error never reaches 0.

    Raises:
        ValueError: a bad argument, as :func:`affectflow.metrics.checks.check_predictions` says.
    """
    _check_level(level)
    model = resample_metrics(target, probability, groups=groups, metrics=metrics, resamples=resamples, seed=seed)
    return {name: model.interval(name, level=level) for name in model.values}


def paired_difference(
    target: npt.ArrayLike,
    probability_a: npt.ArrayLike,
    probability_b: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    metrics: Collection[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Return each metric of model a less that of model b, from resamples that both share.

    Args:
        target: true classes.
        probability_a: class probabilities of model a.
        probability_b: class probabilities of model b for the same samples in the same order.
        groups: a value a sample; samples of one group are drawn together.
        metrics: names out of :data:`affectflow.metrics.METRICS`; None takes all.
        resamples: how often to resample, 1 or more.
        seed: names the resamples.
        level: share of the resamples inside the interval, in (0, 1).

    Shape:
        target (N,) int in [0, C); probability_a and probability_b (N, C) float; groups (N,).

    Note:
        p = 2 (1 + number of differences on the rarer side of 0, or at it) / (1 + resamples), at most 1. It agrees
        with the interval: where that leaves out 0, p is at most about 1 - level.

    Raises:
        ValueError: a bad argument, as :func:`affectflow.metrics.checks.check_predictions` says.
    """
    _check_level(level)
    a, b = (
        resample_metrics(target, scores, groups=groups, metrics=metrics, resamples=resamples, seed=seed)
        for scores in (probability_a, probability_b)
    )
    return {name: a.difference(b, name, level=level) for name in a.values}


def _draw_weights(n: int, groups: npt.ArrayLike | None, resamples: int, seed: int) -> Iterator[Weights]:
    """Yield weights (N, R) of the next R resamples until there were ``resamples``."""
    members = check_groups(groups, n)
    generator = np.random.default_rng(seed)
    units = n if members is None else int(members.max()) + 1
    chunk = max(_CHUNK_CELLS // n, _SMALLEST_CHUNK)
    for start in range(0, resamples, chunk):
        weights = np.empty((units, min(chunk, resamples - start)), dtype=np.int32)
        for column in weights.T:
            column[:] = np.bincount(generator.integers(0, units, units), minlength=units)
        yield weights if members is None else weights[members]


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(what_got_wanted("level", got=str(level), wanted="a share in (0, 1)", do="pass 0.95"))


def _bounds(values: FloatArray, level: float) -> tuple[float | None, float | None]:
    defined = values[~np.isnan(values)]
    if len(defined) == 0:
        return None, None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _p_value(differences: FloatArray) -> float | None:
    defined = differences[~np.isnan(differences)]
    if len(defined) == 0:
        return None
    rarer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (1 + rarer) / (1 + len(defined)))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
