import numpy as np
import pytest
from metric_cases import CASES, predictions, reference, softmax

from affectflow.metrics import (
    METRICS,
    bootstrap,
    bootstrap_intervals,
    mean_resampled,
    paired_difference,
    resample_metrics,
)


def naive(name, target, probability, resamples, seed, groups=None):
    """The same resamples, one scikit-learn or krippendorff call each."""
    rng = np.random.default_rng(seed)
    members = [np.array([row]) for row in range(len(target))]
    if groups is not None:
        members = [np.flatnonzero(np.asarray(groups) == group) for group in np.unique(groups)]
    values = []
    for _ in range(resamples):
        rows = np.concatenate([members[unit] for unit in rng.integers(0, len(members), len(members))])
        value = reference(name, target[rows], probability[rows])
        values.append(np.nan if value is None else value)
    return np.array(values)


@pytest.mark.parametrize("case", ["skilled", "tied", "absent classes", "constant", "one class"])
@pytest.mark.parametrize("name", METRICS)
def test_every_resample_equals_a_plain_loop_over_the_libraries(name, case):
    target, probability = CASES[case]()
    drawn = resample_metrics(target, probability, metrics=[name], resamples=6, seed=3).drawn[name]
    assert drawn == pytest.approx(naive(name, target, probability, 6, 3), abs=1e-12, nan_ok=True)


def test_resamples_of_a_tiny_set_lose_classes_as_the_metrics_say():
    target, probability = predictions(6, classes=3, seed=2)
    for name in METRICS:
        drawn = resample_metrics(target, probability, metrics=[name], resamples=200).drawn[name]
        assert drawn == pytest.approx(naive(name, target, probability, 200, 0), abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("name", ["uar", "roc_auc", "average_precision"])
def test_groups_are_drawn_whole(name):
    target, probability = predictions(120, signal=1.0)
    groups = np.random.default_rng(4).integers(0, 30, 120).astype(str)
    drawn = resample_metrics(target, probability, groups=groups, metrics=[name], resamples=8, seed=1).drawn[name]
    assert drawn == pytest.approx(naive(name, target, probability, 8, 1, groups), abs=1e-12)


def test_intervals_of_copied_samples_are_honest_only_by_group():
    target, probability = predictions(150, signal=1.0)
    copies, groups = np.repeat(np.arange(150), 8), np.repeat(np.arange(150), 8)
    single = width(bootstrap_intervals(target, probability, resamples=400)["accuracy"])
    grouped = bootstrap_intervals(target[copies], probability[copies], groups=groups, resamples=400)
    ignored = bootstrap_intervals(target[copies], probability[copies], resamples=400)
    assert width(grouped["accuracy"]) == pytest.approx(single, rel=0.01)
    assert width(ignored["accuracy"]) < 0.5 * single


def test_groups_of_one_sample_each_draw_as_no_groups_do():
    target, probability = predictions(80)
    plain = resample_metrics(target, probability, resamples=20)
    grouped = resample_metrics(target, probability, groups=np.arange(80), resamples=20)
    for name in METRICS:
        assert (plain.drawn[name] == grouped.drawn[name]).all()


def test_chunks_for_memory_change_nothing(monkeypatch):
    target, probability = predictions(90)
    whole = resample_metrics(target, probability, resamples=50)
    monkeypatch.setattr(bootstrap, "_CHUNK_CELLS", 1)
    monkeypatch.setattr(bootstrap, "_SMALLEST_CHUNK", 7)
    chunked = resample_metrics(target, probability, resamples=50)
    for name in METRICS:
        assert whole.drawn[name] == pytest.approx(chunked.drawn[name], abs=1e-15)


def test_seed_decides_the_interval():
    target, probability = predictions(100)
    first, again = (bootstrap_intervals(target, probability, resamples=50, seed=5) for _ in range(2))
    assert first == again != bootstrap_intervals(target, probability, resamples=50, seed=6)


def test_interval_holds_the_asked_share_of_the_resamples():
    target, probability = predictions(200)
    drawn = resample_metrics(target, probability, resamples=1000).drawn["uar"]
    interval = bootstrap_intervals(target, probability, resamples=1000, level=0.8)["uar"]
    inside = np.mean((drawn >= interval["low"]) & (drawn <= interval["high"]))
    assert inside == pytest.approx(0.8, abs=0.01)
    assert interval["value"] == METRICS["uar"](target, probability)


@pytest.mark.filterwarnings("error")
def test_undefined_metric_has_null_value_and_bounds_and_warns_nobody():
    target, probability = [1, 1, 1], [[0.2, 0.8]] * 3
    intervals = bootstrap_intervals(target, probability, resamples=10)
    assert intervals["cohen_kappa"] == {"value": None, "low": None, "high": None}
    assert intervals["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}


@pytest.mark.parametrize("name", ["accuracy", "uar", "cohen_kappa", "roc_auc"])
def test_intervals_cover_the_truth_about_as_often_as_they_say(name):
    target, probability = predictions(200_000, classes=4, signal=1.0, seed=99)
    truth = METRICS[name](target, probability)
    covered = 0
    for trial in range(200):
        rows = slice(300 * trial, 300 * (trial + 1))
        interval = bootstrap_intervals(target[rows], probability[rows], metrics=[name], resamples=200, seed=trial)
        covered += interval[name]["low"] <= truth <= interval[name]["high"]
    assert 0.90 <= covered / 200 <= 0.985


@pytest.mark.parametrize(("classes", "samples", "least", "most"), [(4, 2000, 0.90, 1.0), (8, 320, 0.60, 0.85)])
def test_intervals_of_average_precision_cover_500_samples_a_class_and_sit_high_on_40(
    classes, samples, least, most
):
    truth = METRICS["average_precision"](*predictions(200_000, classes=classes, signal=1.0, seed=99))
    covered = low = 0
    for trial in range(100):
        target, probability = predictions(samples, classes=classes, signal=1.0, seed=1000 + trial)
        [found] = bootstrap_intervals(
            target, probability, metrics=["average_precision"], resamples=200, seed=trial
        ).values()
        covered += found["low"] <= truth <= found["high"]
        low += found["high"] < truth
    print(f"{covered} of 100 intervals hold the truth, {low} lie below it")
    assert least <= covered / 100 <= most
    assert low <= 3


def test_paired_difference_is_that_of_the_metrics_with_an_interval_around_it():
    target, better = predictions(500, signal=1.5)
    worse = softmax(np.log(better) + np.random.default_rng(8).normal(size=better.shape))
    differences = paired_difference(target, better, worse, resamples=300)
    for name, found in differences.items():
        expected = METRICS[name](target, better) - METRICS[name](target, worse)
        assert found["difference"] == pytest.approx(expected, abs=1e-12)
        assert found["low"] < found["difference"] < found["high"]
    assert differences["uar"]["low"] > 0 and differences["uar"]["p_value"] < 0.01


def test_paired_interval_of_similar_models_is_narrower_than_each_own():
    target, probability = predictions(500, signal=1.5)
    similar = softmax(np.log(probability) + 0.1 * np.random.default_rng(8).normal(size=probability.shape))
    paired = paired_difference(target, probability, similar, resamples=300)["accuracy"]
    assert width(paired) < 0.6 * width(bootstrap_intervals(target, probability, resamples=300)["accuracy"])


def test_model_does_not_differ_from_itself():
    target, probability = predictions(100)
    found = paired_difference(target, probability, probability, resamples=50)
    assert all(value == {"difference": 0, "low": 0, "high": 0, "p_value": 1} for value in found.values())


def test_p_values_under_no_difference_are_about_uniform():
    rng = np.random.default_rng(0)
    p_values = []
    for trial in range(150):
        target = rng.integers(0, 4, 200)
        a, b = rng.normal(size=(2, 200, 4))
        a[np.arange(200), target] += 1
        b[np.arange(200), target] += 1
        found = paired_difference(target, softmax(a), softmax(b), metrics=["uar"], resamples=199, seed=trial)
        p_values.append(found["uar"]["p_value"])
    assert 0.01 <= np.mean(np.array(p_values) <= 0.05) <= 0.10
    assert 0.40 <= np.mean(np.array(p_values) <= 0.5) <= 0.60


def test_mean_over_models_is_that_of_values_and_of_resamples():
    target, first = predictions(100, seed=1)
    second = softmax(np.log(first) + np.random.default_rng(2).normal(size=first.shape))
    a, b = (resample_metrics(target, scores, resamples=20) for scores in (first, second))
    mean = mean_resampled([a, b])
    assert mean.values["uar"] == pytest.approx((a.values["uar"] + b.values["uar"]) / 2)
    assert mean.drawn["uar"] == pytest.approx((a.drawn["uar"] + b.drawn["uar"]) / 2)


def width(interval):
    return interval["high"] - interval["low"]
