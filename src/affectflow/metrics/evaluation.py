"""All scalar metrics by name, and all of them at once."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from affectflow.metrics.calibration import brier_score, expected_calibration_error
from affectflow.metrics.classification import (
    accuracy,
    cohen_kappa,
    cohen_kappa_ovr,
    confusion_matrix,
    f1_macro,
    krippendorff_alpha,
    per_class,
    uar,
)
from affectflow.metrics.ranking import average_precision, roc_auc

Metric = Callable[[npt.ArrayLike, npt.ArrayLike], float | None]

#: Name → function of (target, probability): the paper's six in its order, UAR, then what stands beside them.
METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "accuracy": accuracy,
        "f1_macro": f1_macro,
        "cohen_kappa": cohen_kappa,
        "krippendorff_alpha": krippendorff_alpha,
        "average_precision": average_precision,
        "roc_auc": roc_auc,
        "uar": uar,
        "cohen_kappa_ovr": cohen_kappa_ovr,
        "expected_calibration_error": expected_calibration_error,
        "brier_score": brier_score,
    }
)

#: Metrics of how far a probability means what it says, which a temperature changes.
CALIBRATION_METRICS = ("expected_calibration_error", "brier_score")

#: Metrics of which less is better; of all others more is.
LOWER_IS_BETTER = frozenset(CALIBRATION_METRICS)


def evaluate_all(
    target: npt.ArrayLike, probability: npt.ArrayLike, *, classes: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """Return every metric of :data:`METRICS`, ``n``, ``per_class`` and the confusion matrix as JSON values.

    ``confusion_matrix`` holds counts, ``confusion_matrix_shares`` shares of each true class.

    Args:
        target: true classes.
        probability: class probabilities.
        classes: C names in code order; None takes AffectNet's for 8 classes.

    Shape:
        target (N,) int in [0, C); probability (N, C) float.

    Note:
        What an absent class does stands with each metric; an undefined value is None (JSON null).

    Raises:
        ValueError: see :func:`affectflow.metrics.checks.check_predictions`.
    """
    counts = confusion_matrix(target, probability)
    return {
        **{name: metric(target, probability) for name, metric in METRICS.items()},
        "n": int(counts.sum()),
        "per_class": per_class(target, probability, classes=classes),
        "confusion_matrix": counts.tolist(),
        "confusion_matrix_shares": [
            [count / sum(row) for count in row] if sum(row) else [None] * len(row) for row in counts.tolist()
        ],
    }
