"""Is the difference between two models more than noise: McNemar's test, seeds in pairs, Holm's correction."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from affectflow.errors import what_got_wanted
from affectflow.metrics.checks import check_labels, check_predicted


class McNemar(TypedDict):
    """Samples that only a or only b got right, and two-sided p-values of both being equally likely."""

    only_a: int
    only_b: int
    p_value: float
    mid_p: float


class SeedComparison(TypedDict):
    """Means and standard deviations over seeds, and the difference a - b by seed; None where undefined."""

    n: int
    mean_a: float
    sd_a: float | None
    mean_b: float
    sd_b: float | None
    difference: float
    sd_difference: float | None
    low: float | None
    high: float | None
    p_value: float | None


def mcnemar(target: npt.ArrayLike, predicted_a: npt.ArrayLike, predicted_b: npt.ArrayLike) -> McNemar:
    """Test whether two models are right equally often on the same samples (McNemar 1947, exact binomial).

    Args:
        target: true classes.
        predicted_a: classes that model a predicted.
        predicted_b: classes that model b predicted, for the same samples in the same order.

    Shape:
        target, predicted_a and predicted_b (N,) int.

    Note:
        ``p_value`` is the exact one; ``mid_p`` counts the observed split half (Fagerland et al. 2013), which
        is less strict. Samples are taken as independent: with groups, trust the paired bootstrap.

    Raises:
        ValueError: arrays of another shape, length or type.

    Example:
        >>> mcnemar([0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1])["p_value"]
        0.0625
    """
    from scipy.stats import binom

    truth = check_labels(target)
    right_a = check_predicted("predicted_a", predicted_a, truth) == truth
    right_b = check_predicted("predicted_b", predicted_b, truth) == truth
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    rarer, split = min(only_a, only_b), only_a + only_b
    tail = 2 * float(binom.cdf(rarer, split, 0.5))
    observed = float(binom.pmf(rarer, split, 0.5))
    return McNemar(only_a=only_a, only_b=only_b, p_value=min(1.0, tail), mid_p=tail - observed)


def compare_seeds(values_a: Sequence[float], values_b: Sequence[float], *, level: float = 0.95) -> SeedComparison:
    """Compare two models trained with the same seeds by the differences seed for seed (paired t-test).

    Args:
        values_a: a metric of model a, one value a seed.
        values_b: the same of model b, in the same order of seeds.
        level: of the interval of the mean difference, in (0, 1).

    Note:
        Standard deviations are those of a sample (divisor n - 1). With one seed, or when all differences are
        equal, there is no spread to judge by: interval and p-value are None.

    Raises:
        ValueError: no values, different numbers of values, or a value that is not finite.

    Example:
        >>> compare_seeds([0.5, 0.7], [0.4, 0.5])["sd_a"]
        0.14142135623730948
    """
    from scipy.stats import t as student

    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        line = what_got_wanted(
            "values of the seeds",
            got=f"shapes {a.shape} and {b.shape}",
            wanted="as many finite numbers for a as for b, at least one",
            do="compare the seeds that both models were trained with",
        )
        raise ValueError(line)
    gap = a - b
    spread = _deviation(gap)
    low = high = p_value = None
    if spread is not None and spread > 1e-12 * max(1.0, float(np.abs(gap).max())):
        error = spread / np.sqrt(len(gap))
        reach = float(student.ppf((1 + level) / 2, len(gap) - 1)) * error
        low, high = float(gap.mean() - reach), float(gap.mean() + reach)
        p_value = 2 * float(student.sf(abs(gap.mean()) / error, len(gap) - 1))
    return SeedComparison(
        n=len(gap),
        mean_a=float(a.mean()),
        sd_a=_deviation(a),
        mean_b=float(b.mean()),
        sd_b=_deviation(b),
        difference=float(gap.mean()),
        sd_difference=spread,
        low=low,
        high=high,
        p_value=p_value,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for being a family of tests (Holm 1979), in the given order.

    The i-th smallest of m becomes (m - i + 1) p, never below the one before it, at most 1.

    Raises:
        ValueError: a p-value outside [0, 1], or NaN.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        line = what_got_wanted("p_values", got=f"{list(p_values)}", wanted="values in [0, 1]", do="pass p-values")
        raise ValueError(line)
    order = np.argsort(values, kind="stable")
    corrected = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    result = np.empty_like(values)
    result[order] = np.minimum(corrected, 1.0)
    return [float(value) for value in result]


def _deviation(values: npt.NDArray[np.float64]) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None
