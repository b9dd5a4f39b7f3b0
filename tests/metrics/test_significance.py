import numpy as np
import pytest
from scipy import stats

from affectflow.metrics import compare_seeds, holm, mcnemar


def counts(only_a, only_b, both=5, neither=3):
    """Targets and predictions in which so many samples are right in only a, only b, both and neither."""
    target = np.zeros(only_a + only_b + both + neither, dtype=int)
    a, b = np.ones_like(target), np.ones_like(target)
    a[:only_a] = 0
    b[only_a : only_a + only_b] = 0
    a[only_a + only_b : only_a + only_b + both] = b[only_a + only_b : only_a + only_b + both] = 0
    return target, a, b


def test_mcnemar_equals_the_worked_example_of_fagerland():
    # Fagerland, Lydersen & Laake 2013 (doi:10.1186/1471-2288-13-91), their example: 1 and 7 discordant pairs.
    found = mcnemar(*counts(1, 7))
    assert (found["only_a"], found["only_b"]) == (1, 7)
    assert found["p_value"] == pytest.approx(0.0703, abs=5e-5)
    assert found["mid_p"] == pytest.approx(0.0391, abs=5e-5)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 6), (10, 3), (4, 4), (0, 0), (30, 50)])
def test_mcnemar_is_the_two_sided_binomial_test(only_a, only_b):
    found = mcnemar(*counts(only_a, only_b))
    exact = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert found["p_value"] == pytest.approx(exact)
    assert 0 <= found["mid_p"] <= found["p_value"]


def test_mcnemar_takes_no_side():
    forward, backward = mcnemar(*counts(9, 2)), mcnemar(*counts(2, 9))
    assert forward["p_value"] == backward["p_value"] and forward["mid_p"] == backward["mid_p"]


def test_mcnemar_of_equal_predictions_finds_nothing():
    assert mcnemar(*counts(0, 0)) == {"only_a": 0, "only_b": 0, "p_value": 1.0, "mid_p": 1.0}


def test_mcnemar_refuses_predictions_of_other_samples():
    with pytest.raises(ValueError, match="predicted_b: got 2 classes, wanted 3"):
        mcnemar([0, 1, 2], [0, 1, 2], [0, 1])


def test_holm_equals_a_worked_example():
    # Sorted 0.01, 0.02, 0.03, 0.04, 0.05 times 5, 4, 3, 2, 1, kept from falling.
    assert holm([0.03, 0.01, 0.05, 0.02, 0.04]) == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])


def test_holm_never_passes_one_nor_falls_below_the_p_value():
    p_values = np.random.default_rng(0).uniform(size=30)
    corrected = holm(list(p_values))
    assert max(corrected) == 1.0 and (np.array(corrected) >= p_values).all()
    assert min(corrected) == pytest.approx(30 * p_values.min())


def test_holm_of_one_and_of_none_changes_nothing():
    assert holm([0.2]) == [0.2] and holm([]) == []


@pytest.mark.parametrize("bad", [[1.2], [-0.1], [float("nan")]])
def test_holm_refuses_what_is_no_p_value(bad):
    with pytest.raises(ValueError, match="p_values"):
        holm(bad)


def test_seeds_are_compared_in_pairs():
    a, b = [0.55, 0.60, 0.58, 0.62], [0.50, 0.57, 0.55, 0.57]
    found = compare_seeds(a, b)
    expected = stats.ttest_rel(a, b)
    bounds = expected.confidence_interval(0.95)
    assert found["p_value"] == pytest.approx(expected.pvalue)
    assert (found["low"], found["high"]) == pytest.approx((bounds.low, bounds.high))
    assert (found["mean_a"], found["sd_a"]) == pytest.approx((np.mean(a), np.std(a, ddof=1)))
    assert found["difference"] == pytest.approx(0.04) and found["n"] == 4
    assert found["p_value"] < stats.ttest_ind(a, b).pvalue


def test_one_seed_has_a_difference_and_no_test():
    found = compare_seeds([0.6], [0.5])
    assert found["difference"] == pytest.approx(0.1)
    assert found["sd_a"] is found["low"] is found["p_value"] is None


def test_equal_differences_of_all_seeds_give_no_test():
    found = compare_seeds([0.6, 0.7], [0.5, 0.6])
    assert found["low"] is found["p_value"] is None


@pytest.mark.parametrize(("a", "b"), [([0.5], [0.5, 0.6]), ([], []), ([float("nan")], [0.5])])
def test_seeds_that_do_not_pair_are_refused(a, b):
    with pytest.raises(ValueError, match="values of the seeds"):
        compare_seeds(a, b)
