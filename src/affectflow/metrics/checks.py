"""Checks of what every metric is given: true classes and predicted probabilities of the same samples."""

from typing import Any

import numpy as np
import numpy.typing as npt

from affectflow.errors import what_got_wanted

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: How far a row of probabilities may be from a sum of 1 (half-precision softmax is within 5e-4).
SUM_TOLERANCE = 1e-3


def check_predictions(target: npt.ArrayLike, probability: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    """Return ``target`` as int64 and ``probability`` as float64 when every metric can use them.

    Args:
        target: true classes, in [0, C).
        probability: class probabilities; rows sum to 1 within :data:`SUM_TOLERANCE`.

    Shape:
        target (N,) with N >= 1; probability (N, C) with C >= 2.

    Raises:
        ValueError: a wrong shape, length or width, a label that is no class, NaN, a negative probability, or
            a row that does not sum to 1.
    """
    scores = np.asarray(probability)
    if scores.ndim != 2 or scores.shape[1] < 2 or scores.dtype.kind not in "fiu":
        raise _bad("probability", _kind(scores), "numbers of shape (N, C) with C >= 2", "pass a row a sample")
    labels = _labels("target", target, scores.shape[1])
    if len(labels) != len(scores):
        raise _bad(
            "probability",
            f"{len(scores)} rows for {len(labels)} targets",
            "one row per target",
            "score the samples that the targets belong to",
        )
    scores = scores.astype(np.float64, copy=False)
    if np.isnan(scores).any():
        row = int(np.flatnonzero(np.isnan(scores).any(axis=1))[0])
        raise _bad("probability", f"NaN in row {row}", "finite numbers", "look for a loss that diverged")
    if scores.min() < 0:
        row = int(np.flatnonzero((scores < 0).any(axis=1))[0])
        raise _bad("probability", f"{scores[row].min():g} in row {row}", "values in [0, 1]", "apply a softmax")
    off = np.abs(scores.sum(axis=1) - 1) > SUM_TOLERANCE
    if off.any():
        row = int(np.flatnonzero(off)[0])
        raise _bad(
            "probability",
            f"a sum of {scores[row].sum():g} in row {row}",
            f"1 within {SUM_TOLERANCE:g}",
            "apply a softmax to logits",
        )
    return labels, scores


def check_predicted(name: str, predicted: npt.ArrayLike, target: IntArray) -> IntArray:
    """Return predicted classes as int64: whole numbers, as many as ``target``.

    Raises:
        ValueError: another shape, length or type.
    """
    labels = _labels(name, predicted, None)
    if len(labels) != len(target):
        raise _bad(name, f"{len(labels)} classes", f"{len(target)}, one per target", "use the same samples")
    return labels


def check_labels(target: npt.ArrayLike) -> IntArray:
    """Return true classes as int64 without knowing how many classes there are.

    Raises:
        ValueError: no samples, another shape, or no whole numbers from 0 up.
    """
    return _labels("target", target, None)


def check_groups(groups: npt.ArrayLike | None, n: int) -> IntArray | None:
    """Return each sample's group as a number from 0 to G - 1, or None when samples stand alone.

    Args:
        groups: a value a sample (text or numbers); samples with equal values belong together.
        n: number of samples.

    Raises:
        ValueError: not one value per sample.
    """
    if groups is None:
        return None
    values = np.asarray(groups)
    if values.shape != (n,):
        raise _bad("groups", f"shape {values.shape}", f"({n},), a group per sample", "pass the column 'group'")
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _labels(name: str, values: npt.ArrayLike, classes: int | None) -> IntArray:
    labels = np.asarray(values)
    if labels.ndim != 1 or len(labels) == 0 or labels.dtype.kind not in "iu":
        raise _bad(name, _kind(labels), "whole numbers of shape (N,) with N >= 1", "pass a class per sample")
    top = int(labels.max())
    low = int(labels.min())
    if low < 0 or (classes is not None and top >= classes):
        wanted = "classes from 0 up" if classes is None else f"classes from 0 to {classes - 1}"
        raise _bad(name, f"label {low if low < 0 else top}", wanted, "check the labels and the number of classes")
    return labels.astype(np.int64, copy=False)


def _kind(values: npt.NDArray[Any]) -> str:
    return f"{values.dtype} of shape {values.shape}"


def _bad(what: str, got: str, wanted: str, do: str) -> ValueError:
    return ValueError(what_got_wanted(what, got=got, wanted=wanted, do=do))
