"""Metrics of the order that the probabilities give, and the curves behind them; scikit-learn's arithmetic."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectflow.metrics.checks import FloatArray, IntArray, check_predictions


@dataclass(frozen=True)
class Curve:
    """One class's curve: points (x, y) in [0, 1], and the area that its metric reports.

    Shape:
        x, y (K,) float64. ROC: false and true positive rate. Precision-recall: recall and precision.
    """

    code: int
    x: FloatArray
    y: FloatArray
    area: float


def roc_auc(target: npt.ArrayLike, probability: npt.ArrayLike) -> float | None:
    """Mean over classes of the area under the one-vs-rest ROC curve, in [0, 1]; chance is 0.5.

    Args:
        target: true classes.
        probability: class probabilities.

    Shape:
        target (N,) int in [0, C); probability (N, C) float.

    Note:
        Tied scores count one half. A class absent from the targets is left out, as is one that all targets
        have: neither has an area. None when that leaves no class.

    Raises:
        ValueError: see :func:`affectflow.metrics.checks.check_predictions`.

    Example:
        >>> roc_auc([0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
        1.0
    """
    from sklearn.metrics import roc_auc_score

    labels, scores = check_predictions(target, probability)
    areas = [
        float(roc_auc_score(labels == code, scores[:, code]))
        for code in _present(labels)
        if (labels != code).any()
    ]
    return float(np.mean(areas)) if areas else None


def average_precision(target: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Mean over classes of the one-vs-rest average precision, Σ (R_k - R_{k-1}) P_k, in [0, 1].

    The paper's AUC-PR. Chance is a class's share of the targets. Arguments and errors as for :func:`roc_auc`.

    Note:
        Tied scores are one threshold. A class absent from the targets is left out of the mean.
    """
    from sklearn.metrics import average_precision_score

    labels, scores = check_predictions(target, probability)
    areas = [average_precision_score(labels == code, scores[:, code]) for code in _present(labels)]
    return float(np.mean(areas))


def roc_curves(target: npt.ArrayLike, probability: npt.ArrayLike) -> list[Curve]:
    """Return the one-vs-rest ROC curve of every class that has one (see :func:`roc_auc`), in code order."""
    from sklearn.metrics import auc, roc_curve

    labels, scores = check_predictions(target, probability)
    curves = []
    for code in _present(labels):
        if (labels != code).any():
            false_rate, true_rate, _ = roc_curve(labels == code, scores[:, code])
            curves.append(Curve(code, false_rate, true_rate, float(auc(false_rate, true_rate))))
    return curves


def mean_roc_curve(
    target: npt.ArrayLike, probability: npt.ArrayLike, *, points: int = 101
) -> tuple[FloatArray, FloatArray] | None:
    """Return false and true positive rate, the latter averaged over the classes of :func:`roc_curves`.

    Args:
        target: true classes.
        probability: class probabilities.
        points: number of false positive rates, evenly from 0 to 1.

    Shape:
        target (N,) int in [0, C); probability (N, C) float; returns two (points,) arrays, or None when no class
        has a curve.

    Raises:
        ValueError: see :func:`affectflow.metrics.checks.check_predictions`.
    """
    curves = roc_curves(target, probability)
    if not curves:
        return None
    grid = np.linspace(0.0, 1.0, points)
    return grid, np.mean([np.interp(grid, curve.x, curve.y) for curve in curves], axis=0)


def precision_recall_curves(target: npt.ArrayLike, probability: npt.ArrayLike) -> list[Curve]:
    """Return the one-vs-rest precision-recall curve of every class among the targets, in code order."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    labels, scores = check_predictions(target, probability)
    curves = []
    for code in _present(labels):
        precision, recall, _ = precision_recall_curve(labels == code, scores[:, code])
        area = float(average_precision_score(labels == code, scores[:, code]))
        curves.append(Curve(code, recall[::-1], precision[::-1], area))
    return curves


def _present(labels: IntArray) -> list[int]:
    return [int(code) for code in np.unique(labels)]
