"""Every scalar metric under many sets of sample weights at once, which is what resampling needs.

A resample of N samples with replacement is a whole-number weight per sample. Scores are sorted once; each
metric follows from weighted counts: confusion matrices for the metrics of the predicted class, counts between
the scores of a class's own samples for the area under ROC and the average precision (ties exact, since equal
scores share a count). Tests hold the values equal to :data:`affectflow.metrics.METRICS`; NaN means undefined.
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from affectflow.metrics.calibration import NUM_BINS, confidence_bin, squared_errors
from affectflow.metrics.checks import FloatArray, IntArray

Weights = npt.NDArray[np.int32]


class WeightedMetrics:
    """Scores checked predictions under R sets of weights.

    Args:
        target: true classes.
        probability: class probabilities.
        names: which metrics of :data:`affectflow.metrics.METRICS` to compute.

    Shape:
        target (N,) int64 in [0, C); probability (N, C) float64. A call takes weights (N, R) int32, C order,
        and returns (R,) float64 for each name.
    """

    def __init__(self, target: IntArray, probability: FloatArray, names: Collection[str]) -> None:
        self._names = tuple(names)
        self._width = probability.shape[1]
        predicted = probability.argmax(axis=1)
        self._cells = _Sums(target * self._width + predicted, self._width**2)
        ranks = {"roc_auc", "average_precision"} & set(names)
        self._rankings = [_Ranking(target == code, probability[:, code]) for code in np.unique(target) if ranks]
        confidence = probability.max(axis=1)
        gap = confidence - (predicted == target)
        self._gaps = _Sums(confidence_bin(confidence), NUM_BINS, gap)
        self._squares = squared_errors(target, probability)

    def __call__(self, weights: Weights) -> dict[str, FloatArray]:
        """Return each metric's value for every column of ``weights`` (N, R)."""
        counts = self._cells(weights).astype(np.float64).reshape(self._width, self._width, -1)
        total = counts.sum(axis=(0, 1))
        values = from_confusion(counts)
        if "expected_calibration_error" in self._names:
            values["expected_calibration_error"] = np.abs(self._gaps(weights)).sum(axis=0) / total
        if "brier_score" in self._names:
            values["brier_score"] = self._squares @ weights / total
        if self._rankings:
            pairs = [ranking(weights) for ranking in self._rankings]
            values["roc_auc"] = _mean_defined(np.stack([area for area, _ in pairs]))
            values["average_precision"] = _mean_defined(np.stack([precision for _, precision in pairs]))
        return {name: values[name] for name in self._names}


def from_confusion(counts: FloatArray) -> dict[str, FloatArray]:
    """Return the metrics that a confusion matrix determines; NaN where undefined.

    Shape:
        counts (C, C, R) float64, rows = truth; returns (R,) float64 for each name.
    """
    hits = np.einsum("ccr->cr", counts)
    actual, chosen = counts.sum(axis=1), counts.sum(axis=0)
    total = actual.sum(axis=0)
    agreed = hits.sum(axis=0)
    by_chance = (actual * chosen).sum(axis=0) / total
    rest_by_chance = (actual * chosen + (total - actual) * (total - chosen)) / total
    rest_agreed = total - actual - chosen + 2 * hits
    both = actual + chosen
    return {
        "accuracy": agreed / total,
        "uar": _mean_defined(_ratio(hits, actual)),
        "f1_macro": _mean_defined(_ratio(2 * hits, both)),
        "cohen_kappa": _ratio(agreed - by_chance, total - by_chance),
        "cohen_kappa_ovr": _mean_defined(_ratio(rest_agreed - rest_by_chance, total - rest_by_chance)),
        "krippendorff_alpha": 1
        - _ratio(2 * (total - agreed) * (2 * total - 1), (2 * total) ** 2 - (both**2).sum(axis=0)),
    }


class _Sums:
    """Sums weights (times ``values``) over the samples of each row; rows are numbered from 0."""

    def __init__(self, rows: IntArray, count: int, values: FloatArray | None = None) -> None:
        from scipy.sparse import csr_array

        order = np.argsort(rows, kind="stable").astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))]).astype(np.int32)
        data = np.ones(len(rows), dtype=np.int32) if values is None else values[order]
        self._matrix = csr_array((data, order, starts), shape=(count, len(rows)))

    def __call__(self, weights: Weights) -> npt.NDArray[np.int32 | np.float64]:
        return np.asarray(self._matrix @ weights)


class _Ranking:
    """Area under ROC and average precision of one class against the rest.

    The K different scores of the class's own samples, in falling order, cut all samples into 2K + 1 rows:
    above the first, tied with it, between it and the second, and so on. Both metrics need only the weight of
    the class in each of the K scores and the weight of the others down to each row.
    """

    def __init__(self, own: npt.NDArray[np.bool_], score: FloatArray) -> None:
        levels, own_level = np.unique(-score[own], return_inverse=True)
        level = np.searchsorted(levels, -score)
        tied = levels[np.minimum(level, len(levels) - 1)] == -score
        self._own = _Sums(_spread(own, own_level, len(levels)), len(levels) + 1)
        others = np.where(own, 2 * len(levels) + 1, 2 * level + tied)
        self._others = _Sums(others, 2 * len(levels) + 2)

    def __call__(self, weights: Weights) -> tuple[FloatArray, FloatArray]:
        """Return (area under ROC, average precision), each (R,), NaN where undefined."""
        own = self._own(weights)[:-1].astype(np.float64)
        others = self._others(weights)[:-1].cumsum(axis=0, dtype=np.float64)
        above, down_to = others[:-1:2], others[1::2]
        positives, negatives = own.sum(axis=0), others[-1]
        beaten = np.einsum("kr,kr->r", own, 2 * negatives - above - down_to) / 2
        found = own.cumsum(axis=0)
        precision = found / np.maximum(found + down_to, 1)
        return (
            _ratio(beaten, positives * negatives),
            _ratio(np.einsum("kr,kr->r", own, precision), positives),
        )


def _spread(own: npt.NDArray[np.bool_], own_level: IntArray, elsewhere: int) -> IntArray:
    """Return the level of a class's own samples, and one past the last for all others."""
    rows = np.full(len(own), elsewhere, dtype=np.int64)
    rows[own] = own_level
    return rows


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide; NaN where the denominator is 0."""
    empty = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.asarray(np.divide(numerator, denominator, out=empty, where=denominator != 0))


def _mean_defined(values: FloatArray) -> FloatArray:
    """Mean over the first axis of the values that are not NaN; NaN where there is none."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0).astype(np.float64))
