"""Percentile bootstrap intervals of every metric, and of the difference of two models on the same samples.

Drawing: with ``rng = numpy.random.default_rng(seed)``, resample r is ``rng.integers(0, U, U)`` over the U
samples (or, with groups, over the U groups in sorted order, each bringing all its samples). So a seed names
the same resamples for every model, whatever the metrics and the memory.
"""

from collections.abc import Collection, Iterator
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from affectflow.errors import what_got_wanted
from affectflow.metrics.checks import FloatArray, IntArray, check_groups, check_predictions
from affectflow.metrics.evaluation import METRICS
from affectflow.metrics.weighted import WeightedMetrics, Weights

#: Weights held at once, in numbers: small enough to stay in a processor's cache for usual test sets.
_CHUNK_CELLS = 1 << 18
_SMALLEST_CHUNK = 8


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
        probability: class probabilities of one model, or of S models that differ in their seed: each resample
            then gives the mean over the S.
        groups: a value a sample; samples of one group (faces of the same content) are drawn together.
        metrics: names out of :data:`affectflow.metrics.METRICS`; None takes all.
        resamples: how often to resample, 1 or more.
        seed: names the resamples.
        level: share of the resamples inside the interval, in (0, 1).

    Shape:
        target (N,) int in [0, C); probability (N, C) or (S, N, C) float; groups (N,).

    Note:
        A class that a resample does not draw is left out of means, as in the metric itself. Where that leaves a
        metric undefined, the interval is over the other resamples; it is None when there are none. The interval
        speaks of other test images, not of other training seeds.

    Raises:
        ValueError: a bad argument, as :func:`affectflow.metrics.checks.check_predictions` says.
    """
    names = _check(metrics, resamples, level)
    values, drawn = _resampled(target, [probability], groups, names, resamples, seed)
    intervals = {}
    for name in names:
        low, high = _bounds(drawn[0][name], level)
        intervals[name] = Interval(value=_number(values[0][name]), low=low, high=high)
    return intervals


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
        probability_a: class probabilities of model a (or of its seeds, as in :func:`bootstrap_intervals`).
        probability_b: class probabilities of model b on the same samples in the same order.
        groups: a value a sample; samples of one group are drawn together.
        metrics: names out of :data:`affectflow.metrics.METRICS`; None takes all.
        resamples: how often to resample, 1 or more.
        seed: names the resamples.
        level: share of the resamples inside the interval, in (0, 1).

    Shape:
        target (N,) int in [0, C); probability_a and probability_b (N, C) or (S, N, C) float; groups (N,).

    Note:
        p = 2 (1 + number of differences on the rarer side of 0, or at it) / (1 + resamples), at most 1: it
        agrees with the interval, which leaves out 0 when p is below 1 - level.

    Raises:
        ValueError: a bad argument, as :func:`affectflow.metrics.checks.check_predictions` says.
    """
    names = _check(metrics, resamples, level)
    values, drawn = _resampled(target, [probability_a, probability_b], groups, names, resamples, seed)
    differences = {}
    for name in names:
        gaps = drawn[0][name] - drawn[1][name]
        low, high = _bounds(gaps, level)
        differences[name] = Difference(
            difference=_number(values[0][name] - values[1][name]), low=low, high=high, p_value=_p_value(gaps)
        )
    return differences


def _check(metrics: Collection[str] | None, resamples: int, level: float) -> tuple[str, ...]:
    names = tuple(METRICS) if metrics is None else tuple(metrics)
    for name in names:
        if name not in METRICS:
            raise ValueError(what_got_wanted("metrics", got=name, wanted=", ".join(METRICS), do="use these"))
    if resamples < 1:
        line = what_got_wanted("resamples", got=str(resamples), wanted="1 or more", do="pass 2000")
        raise ValueError(line)
    if not 0 < level < 1:
        raise ValueError(what_got_wanted("level", got=str(level), wanted="a share in (0, 1)", do="pass 0.95"))
    return names


def _resampled(
    target: npt.ArrayLike,
    models: list[npt.ArrayLike],
    groups: npt.ArrayLike | None,
    names: tuple[str, ...],
    resamples: int,
    seed: int,
) -> tuple[list[dict[str, float]], list[dict[str, FloatArray]]]:
    """Return each model's metrics on the whole set, and (resamples,) of them under the same resamples."""
    scorers = [[_scorer(target, scores, names) for scores in _seeds(model)] for model in models]
    n = len(np.asarray(target))
    whole = np.ones((n, 1), dtype=np.int32)
    values = [{name: float(_mean(scorer, whole)[name][0]) for name in names} for scorer in scorers]
    parts: list[list[dict[str, FloatArray]]] = [[] for _ in models]
    for weights in _draw_weights(n, check_groups(groups, n), resamples, seed):
        for part, scorer in zip(parts, scorers, strict=True):
            part.append(_mean(scorer, weights))
    drawn = [{name: np.concatenate([chunk[name] for chunk in part]) for name in names} for part in parts]
    return values, drawn


def _seeds(model: npt.ArrayLike) -> list[FloatArray]:
    scores = np.asarray(model)
    return list(scores) if scores.ndim == 3 else [scores]


def _scorer(target: npt.ArrayLike, probability: npt.ArrayLike, names: tuple[str, ...]) -> WeightedMetrics:
    return WeightedMetrics(*check_predictions(target, probability), names)


def _mean(scorers: list[WeightedMetrics], weights: Weights) -> dict[str, FloatArray]:
    scored = [scorer(weights) for scorer in scorers]
    return {name: np.mean([values[name] for values in scored], axis=0) for name in scored[0]}


def _draw_weights(n: int, groups: IntArray | None, resamples: int, seed: int) -> Iterator[Weights]:
    """Yield weights (N, R) of the next R resamples until there were ``resamples``."""
    generator = np.random.default_rng(seed)
    units = n if groups is None else int(groups.max()) + 1
    chunk = max(_CHUNK_CELLS // n, _SMALLEST_CHUNK)
    for start in range(0, resamples, chunk):
        weights = np.empty((units, min(chunk, resamples - start)), dtype=np.int32)
        for column in weights.T:
            column[:] = np.bincount(generator.integers(0, units, units), minlength=units)
        yield weights if groups is None else weights[groups]


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
