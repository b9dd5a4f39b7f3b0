import numpy as np
import pytest
from metric_cases import CASES, looped_calibration_error, predictions, softmax

from affectflow.metrics import (
    accuracy,
    apply_temperature,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)
from affectflow.metrics.temperature import TEMPERATURE_RANGE


def log_loss(target, probability):
    return -np.mean(np.log(probability[np.arange(len(target)), target]))


def calibrated(n=20_000, seed=0):
    """Probabilities from which the targets were drawn."""
    rng = np.random.default_rng(seed)
    probability = softmax(1.5 * rng.normal(size=(n, 4)))
    target = (probability.cumsum(axis=1) < rng.uniform(size=(n, 1))).sum(axis=1)
    return np.minimum(target, 3), probability


def test_calibrated_probabilities_have_next_to_no_error():
    assert expected_calibration_error(*calibrated()) < 0.01


def test_bins_count_every_sample_once():
    target, probability = CASES["skilled"]()
    bins = reliability_bins(target, probability)
    assert bins.count.sum() == len(target)
    assert np.sum(bins.count * bins.accuracy) / len(target) == pytest.approx(accuracy(target, probability))
    assert np.sum(bins.count * bins.confidence) / len(target) == pytest.approx(probability.max(axis=1).mean())


def test_bin_edges_belong_to_the_bin_below():
    probability = [[0.6, 0.4], [1.0, 0.0], [0.5, 0.5]]
    assert np.flatnonzero(reliability_bins([0, 0, 0], probability).count).tolist() == [7, 8, 14]
    assert expected_calibration_error([0, 1, 0], probability) == pytest.approx(
        looped_calibration_error([0, 1, 0], np.array(probability))
    )


def test_brier_score_spans_from_zero_to_two():
    assert brier_score([0, 1], [[1, 0], [0, 1]]) == 0
    assert brier_score([0, 1], [[0, 1], [1, 0]]) == 2


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
def test_fitted_temperature_undoes_a_wrong_one(true_temperature):
    target, probability = calibrated()
    wrong = softmax(np.log(probability) * true_temperature)
    found = fit_temperature(target, wrong)
    assert found == pytest.approx(true_temperature, rel=0.05)
    assert expected_calibration_error(target, apply_temperature(wrong, found)) < 0.015


def test_fitted_temperature_is_the_best_one():
    target, probability = predictions(500, signal=0.5)
    best = fit_temperature(target, probability)
    loss = log_loss(target, apply_temperature(probability, best))
    for other in best * np.array([0.9, 0.99, 1.01, 1.1]):
        assert loss < log_loss(target, apply_temperature(probability, other))


def test_temperature_keeps_the_order_and_one_changes_nothing():
    _, probability = predictions(100)
    assert apply_temperature(probability, 1.0) == pytest.approx(probability)
    softer = apply_temperature(probability, 3.0)
    assert softer.sum(axis=1) == pytest.approx(np.ones(100))
    assert (np.argsort(softer) == np.argsort(probability)).all()
    assert (softer.max(axis=1) < probability.max(axis=1)).all()


def test_temperature_of_perfect_predictions_stays_in_range():
    target, probability = CASES["perfect"]()
    found = fit_temperature(target, probability)
    assert TEMPERATURE_RANGE[0] <= found <= TEMPERATURE_RANGE[1]
    assert np.isfinite(apply_temperature(probability, found)).all()
    assert (apply_temperature(probability, 2.0) > 0).all()


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_must_be_a_positive_number(bad):
    with pytest.raises(ValueError, match="temperature: got"):
        apply_temperature([[0.5, 0.5]], bad)
