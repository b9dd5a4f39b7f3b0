"""Temperature scaling (Guo et al. 2017, arXiv:1706.04599): one number against over- and under-confidence."""

import numpy as np
import numpy.typing as npt

from affectflow.errors import what_got_wanted
from affectflow.metrics.checks import FloatArray, check_predictions

#: Temperatures outside are not looked for: perfect predictions would drive it to 0, random ones to infinity.
TEMPERATURE_RANGE = (0.05, 20.0)

_SMALLEST = 1e-12


def fit_temperature(target: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Return the temperature T that minimises the mean of -log softmax(log p / T) of the true class.

    T > 1 means over-confident, T < 1 under-confident. Fit it on validation data and apply it to test data.

    Args:
        target: true classes.
        probability: class probabilities; zeros are taken as 1e-12. Logits z give the same as softmax(z).

    Shape:
        target (N,) int in [0, C); probability (N, C) float; returns a float in :data:`TEMPERATURE_RANGE`.

    Raises:
        ValueError: see :func:`affectflow.metrics.checks.check_predictions`.
    """
    from scipy.optimize import minimize_scalar

    labels, scores = check_predictions(target, probability)
    logs = _logs(scores)
    truth = logs[np.arange(len(labels)), labels]

    def negative_log_likelihood(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float(np.mean(_log_sum_exp(logs * inverse) - truth * inverse))

    low, high = np.log(TEMPERATURE_RANGE)
    found = minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def apply_temperature(probability: npt.ArrayLike, temperature: float) -> FloatArray:
    """Return softmax(log p / T): the same order of classes, with other confidences.

    Args:
        probability: class probabilities; zeros are taken as 1e-12.
        temperature: T > 0; 1 changes nothing.

    Shape:
        probability (N, C) float; returns (N, C) float64, rows summing to 1.

    Raises:
        ValueError: ``temperature`` is not positive, or ``probability`` is not (N, C).

    Example:
        >>> apply_temperature([[0.9, 0.1]], 2.0).round(2).tolist()
        [[0.75, 0.25]]
    """
    if not (np.isfinite(temperature) and temperature > 0):
        line = what_got_wanted("temperature", got=f"{temperature}", wanted="a number > 0", do="fit it on val")
        raise ValueError(line)
    scores = np.asarray(probability, dtype=np.float64)
    _, scores = check_predictions(np.zeros(len(scores), dtype=np.int64), scores)
    logs = _logs(scores) / temperature
    return np.asarray(np.exp(logs - _log_sum_exp(logs)[:, np.newaxis]))


def _logs(scores: FloatArray) -> FloatArray:
    return np.asarray(np.log(np.maximum(scores, _SMALLEST)))


def _log_sum_exp(logs: FloatArray) -> FloatArray:
    top = logs.max(axis=1)
    return np.asarray(top + np.log(np.exp(logs - top[:, np.newaxis]).sum(axis=1)))
