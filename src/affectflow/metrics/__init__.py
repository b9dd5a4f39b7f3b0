"""Metrics as pure functions ``f(target (N,), probability (N, C))``, with intervals, tests and figures.

Figures are in :mod:`affectflow.metrics.figures`, for those who draw.
"""

from affectflow.metrics.bootstrap import (
    Resampled,
    bootstrap_intervals,
    mean_resampled,
    paired_difference,
    resample_metrics,
)
from affectflow.metrics.calibration import brier_score, expected_calibration_error, reliability_bins
from affectflow.metrics.classification import (
    accuracy,
    class_names,
    cohen_kappa,
    cohen_kappa_ovr,
    confusion_matrix,
    f1_macro,
    krippendorff_alpha,
    most_confident_mistakes,
    per_class,
    uar,
)
from affectflow.metrics.evaluation import CALIBRATION_METRICS, LOWER_IS_BETTER, METRICS, evaluate_all
from affectflow.metrics.ranking import (
    average_precision,
    mean_roc_curve,
    precision_recall_curves,
    roc_auc,
    roc_curves,
)
from affectflow.metrics.significance import compare_seeds, holm, mcnemar
from affectflow.metrics.temperature import apply_temperature, fit_temperature

__all__ = [
    "CALIBRATION_METRICS",
    "LOWER_IS_BETTER",
    "METRICS",
    "Resampled",
    "accuracy",
    "apply_temperature",
    "average_precision",
    "bootstrap_intervals",
    "brier_score",
    "class_names",
    "cohen_kappa",
    "cohen_kappa_ovr",
    "compare_seeds",
    "confusion_matrix",
    "evaluate_all",
    "expected_calibration_error",
    "f1_macro",
    "fit_temperature",
    "holm",
    "krippendorff_alpha",
    "mcnemar",
    "mean_resampled",
    "mean_roc_curve",
    "most_confident_mistakes",
    "paired_difference",
    "per_class",
    "precision_recall_curves",
    "reliability_bins",
    "resample_metrics",
    "roc_auc",
    "roc_curves",
    "uar",
]
