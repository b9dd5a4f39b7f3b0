"""Metrics of the predicted class, which is the most probable one (the first of equals).

scikit-learn and krippendorff do the arithmetic. A value that is not defined is None, never NaN.
"""

import math

import numpy as np
import numpy.typing as npt

from affectflow.labels import EXPRESSIONS
from affectflow.metrics.checks import FloatArray, IntArray, check_predictions


def accuracy(target: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Share of samples whose predicted class is the true one, in [0, 1].

    Args:
        target: true classes.
        probability: class probabilities.

    Shape:
        target (N,) int in [0, C); probability (N, C) float.

    Note:
        A class absent from the targets plays no part.

    Raises:
        ValueError: see :func:`affectflow.metrics.checks.check_predictions`.

    Example:
        >>> accuracy([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        0.5
    """
    from sklearn.metrics import accuracy_score

    labels, predicted, _ = _predicted(target, probability)
    return float(accuracy_score(labels, predicted))


def uar(target: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Unweighted average recall (balanced accuracy): the mean over classes of TP / (TP + FN), in [0, 1].

    Chance is 1 / C. Arguments and errors as for :func:`accuracy`.

    Note:
        A class absent from the targets has no recall and is left out of the mean.
    """
    from sklearn.metrics import recall_score

    labels, predicted, _ = _predicted(target, probability)
    return float(recall_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0))


def f1_macro(target: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN), in [0, 1].

    Arguments and errors as for :func:`accuracy`.

    Note:
        A class absent from the targets but predicted has F1 = 0 and counts; a class absent from both is left
        out (scikit-learn's default).
    """
    from sklearn.metrics import f1_score

    labels, predicted, _ = _predicted(target, probability)
    return float(f1_score(labels, predicted, average="macro", zero_division=0))


def cohen_kappa(target: npt.ArrayLike, probability: npt.ArrayLike) -> float | None:
    """Multi-class Cohen's kappa, (p_o - p_e) / (1 - p_e), in [-1, 1]; chance is 0.

    The published kappas are this one, not a one-vs-rest mean: on a balanced set of 8 classes it equals
    (accuracy - 1/8) / (7/8). Arguments and errors as for :func:`accuracy`.

    Note:
        A class absent from the targets counts only where it was predicted. None when targets and predictions
        are all of one class, because agreement by chance is then 1.
    """
    labels, predicted, _ = _predicted(target, probability)
    return _kappa(labels, predicted)


def cohen_kappa_ovr(target: npt.ArrayLike, probability: npt.ArrayLike) -> float | None:
    """Mean over classes of the two-class Cohen's kappa of one class against the rest, in [-1, 1].

    Arguments and errors as for :func:`accuracy`.

    Note:
        A class absent from the targets but predicted has kappa 0 and counts; a class absent from both is left
        out. None when no class has a kappa (targets and predictions are all of one class).
    """
    labels, predicted, probability = _predicted(target, probability)
    values = [_kappa(labels == code, predicted == code) for code in range(probability.shape[1])]
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def krippendorff_alpha(target: npt.ArrayLike, probability: npt.ArrayLike) -> float | None:
    """Krippendorff's alpha (nominal) of truth and prediction as two coders; at most 1, chance is 0.

    Arguments and errors as for :func:`accuracy`.

    Note:
        A class absent from the targets counts only where it was predicted. None when targets and predictions
        are all of one class. The krippendorff package needs about 24 N C² bytes; :func:`bootstrap_intervals`
        gives the same value from the confusion matrix.
    """
    import krippendorff

    labels, predicted, _ = _predicted(target, probability)
    if labels.min() == labels.max() == predicted.min() == predicted.max():
        return None
    pair = np.stack([labels, predicted])
    return float(krippendorff.alpha(reliability_data=pair, level_of_measurement="nominal"))


def confusion_matrix(target: npt.ArrayLike, probability: npt.ArrayLike) -> IntArray:
    """Count samples by true class (rows) and predicted class (columns).

    Arguments and errors as for :func:`accuracy`.

    Shape:
        Returns (C, C) int64. A class absent from the targets has a row of zeros.
    """
    from sklearn.metrics import confusion_matrix as count_pairs

    labels, predicted, probability = _predicted(target, probability)
    counts = count_pairs(labels, predicted, labels=np.arange(probability.shape[1]))
    return np.asarray(counts, dtype=np.int64)


def per_class(
    target: npt.ArrayLike, probability: npt.ArrayLike, *, classes: tuple[str, ...] | None = None
) -> dict[str, dict[str, float | int | None]]:
    """Return recall, precision, F1 (each in [0, 1]) and support (number of targets) of every class.

    Args:
        target: true classes.
        probability: class probabilities.
        classes: C names in code order; None takes :func:`class_names`.

    Shape:
        target (N,) int in [0, C); probability (N, C) float.

    Note:
        A class absent from the targets has recall None; one that is never predicted has precision None; one
        absent from both has F1 None.

    Raises:
        ValueError: see :func:`affectflow.metrics.checks.check_predictions`.
    """
    counts = confusion_matrix(target, probability)
    names = class_names(len(counts)) if classes is None else classes
    table: dict[str, dict[str, float | int | None]] = {}
    for code, name in enumerate(names):
        hits, support, chosen = int(counts[code, code]), int(counts[code].sum()), int(counts[:, code].sum())
        table[name] = {
            "recall": hits / support if support else None,
            "precision": hits / chosen if chosen else None,
            "f1": 2 * hits / (support + chosen) if support + chosen else None,
            "support": support,
        }
    return table


def most_confident_mistakes(target: npt.ArrayLike, probability: npt.ArrayLike, count: int) -> IntArray:
    """Return which samples are predicted wrongly with the highest probability, the worst first.

    Args:
        target: true classes.
        probability: class probabilities.
        count: how many at most, 0 or more.

    Shape:
        target (N,) int in [0, C); probability (N, C) float; returns (K,) int64 row numbers, K <= count.

    Raises:
        ValueError: see :func:`affectflow.metrics.checks.check_predictions`.
    """
    labels, predicted, scores = _predicted(target, probability)
    wrong = np.flatnonzero(labels != predicted)
    order = np.argsort(-scores.max(axis=1)[wrong], kind="stable")
    return wrong[order][:count]


def class_names(count: int) -> tuple[str, ...]:
    """Return AffectNet's names for its 8 expressions, the codes as text for another number of classes."""
    return EXPRESSIONS if count == len(EXPRESSIONS) else tuple(str(code) for code in range(count))


def _predicted(target: npt.ArrayLike, probability: npt.ArrayLike) -> tuple[IntArray, IntArray, FloatArray]:
    labels, scores = check_predictions(target, probability)
    return labels, scores.argmax(axis=1), scores


def _kappa(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    if len(np.union1d(first, second)) == 1:
        return None
    value = float(cohen_kappa_score(first, second))
    return None if math.isnan(value) else value
