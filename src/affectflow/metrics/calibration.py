"""Whether a probability means what it says: calibration error, Brier score, the bins behind the diagram."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectflow.metrics.checks import FloatArray, IntArray, check_predictions

#: Equal-width bins of confidence in (0, 1].
NUM_BINS = 15


@dataclass(frozen=True)
class ReliabilityBins:
    """Samples by the confidence of their predicted class; empty bins hold 0 in all three.

    Shape:
        count (B,) int64; confidence and accuracy (B,) float64 in [0, 1], means over the bin.
    """

    count: IntArray
    confidence: FloatArray
    accuracy: FloatArray


def reliability_bins(target: npt.ArrayLike, probability: npt.ArrayLike) -> ReliabilityBins:
    """Bin the samples by the probability of their predicted class, in :data:`NUM_BINS` bins of equal width.

    Args:
        target: true classes.
        probability: class probabilities.

    Shape:
        target (N,) int in [0, C); probability (N, C) float.

    Raises:
        ValueError: see :func:`affectflow.metrics.checks.check_predictions`.
    """
    labels, scores = check_predictions(target, probability)
    correct = (scores.argmax(axis=1) == labels).astype(np.float64)
    confidence = scores.max(axis=1)
    bins = confidence_bin(confidence)
    count = np.bincount(bins, minlength=NUM_BINS)
    size = np.maximum(count, 1)
    return ReliabilityBins(
        count=count,
        confidence=np.bincount(bins, weights=confidence, minlength=NUM_BINS) / size,
        accuracy=np.bincount(bins, weights=correct, minlength=NUM_BINS) / size,
    )


def confidence_bin(confidence: FloatArray) -> IntArray:
    """Return the bin of each confidence; bin b holds (b / B, (b + 1) / B]."""
    bins = np.ceil(confidence * NUM_BINS).astype(np.int64) - 1
    return np.clip(bins, 0, NUM_BINS - 1)


def expected_calibration_error(target: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Mean over samples of their bin's distance of confidence and accuracy, in [0, 1]; 0 is best.

    Guo et al. 2017 (arXiv:1706.04599, Eq. 3), on the predicted class. Arguments and errors as for
    :func:`reliability_bins`.

    Note:
        A class absent from the targets plays no part beyond the samples predicted as it.
    """
    bins = reliability_bins(target, probability)
    return float(np.sum(bins.count * np.abs(bins.accuracy - bins.confidence)) / bins.count.sum())


def brier_score(target: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Mean over samples of Σ_c (p_c - [y = c])², in [0, 2]; 0 is best.

    Brier 1950's multi-class form. Arguments and errors as for :func:`reliability_bins`.

    Note:
        A class absent from the targets adds the squares of its probabilities.
    """
    labels, scores = check_predictions(target, probability)
    return float(squared_errors(labels, scores).mean())


def squared_errors(labels: IntArray, scores: FloatArray) -> FloatArray:
    """Return each sample's Brier score, (N,), from checked arguments."""
    truth = scores[np.arange(len(labels)), labels]
    return np.asarray((scores**2).sum(axis=1) - 2 * truth + 1)
