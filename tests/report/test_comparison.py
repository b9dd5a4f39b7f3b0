from dataclasses import replace

import numpy as np
import pytest
from comparison_runs import DIGEST, SAMPLES, TARGET, failed, finished

from affectflow.errors import DataError
from affectflow.metrics import bootstrap_intervals, compare_seeds, holm, mcnemar, paired_difference, uar
from affectflow.metrics.bootstrap import Difference
from affectflow.report import ScoredRun, compare
from affectflow.report.comparison import WITHIN_NOISE, in_points, verdict


def quick(runs):
    return compare(runs, resamples=200)


def test_one_run_has_its_intervals_and_no_difference():
    run = finished(10)
    comparison = quick([run])
    [scored] = comparison.models
    expected = bootstrap_intervals(TARGET, run.probability, groups=run.groups, resamples=200)
    assert dict(scored.intervals) == expected
    assert comparison.baselines == ()


def test_run_without_a_row_number_is_compared_as_well():
    comparison = quick([finished(None, loss="focal"), finished(8, skill=0.5)])
    assert [scored.model.first.number for scored in comparison.models] == [8, None]
    assert [pair.model for pair in comparison.baselines] == ["se_resnet50 · vggface2 · focal"]


def test_each_model_is_compared_with_the_loss_that_it_adds_to():
    comparison = quick([finished(number) for number in (10, 9, 8, 7, 6, 20, 16)])
    pairs = {(pair.model.split(" ")[0], pair.baseline.split(" ")[0]) for pair in comparison.baselines}
    assert pairs == {("7", "6"), ("8", "6"), ("9", "8"), ("10", "8")}


def test_difference_is_the_paired_one_with_holm_over_all_models_of_the_metric():
    runs = {number: finished(number, skill=skill) for number, skill in ((6, 0.8), (7, 0.4), (8, 0.9))}
    comparison = quick(list(runs.values()))
    expected = {
        number: paired_difference(
            TARGET,
            runs[number].probability,
            runs[6].probability,
            groups=runs[6].groups,
            metrics=["uar"],
            resamples=200,
        )["uar"]
        for number in (7, 8)
    }
    found = [pair.differences["uar"] for pair in comparison.baselines]
    assert [difference.paired for difference in found] == [expected[7], expected[8]]
    assert [difference.p_holm for difference in found] == holm([expected[n]["p_value"] for n in (7, 8)])


def test_mcnemar_is_that_of_the_predicted_classes():
    a, b = finished(8, skill=1.2), finished(6, skill=0.6)
    [pair] = quick([a, b]).baselines
    expected = mcnemar(TARGET, a.probability.argmax(axis=1), b.probability.argmax(axis=1))
    assert pair.mcnemar == {0: expected}


def test_seeds_are_one_model_with_their_mean_deviation_and_paired_comparison():
    seeds = (0, 1, 2)
    ours = [finished(8, skill=1.2, seed=seed) for seed in seeds]
    theirs = [finished(6, skill=0.9, seed=seed) for seed in seeds]
    comparison = quick([*theirs, *ours])
    assert len(comparison.models) == 2
    first = [uar(TARGET, run.probability) for run in ours]
    second = [uar(TARGET, run.probability) for run in theirs]
    scored = comparison.models[1]
    assert scored.intervals["uar"]["value"] == pytest.approx(np.mean(first))
    assert scored.deviations["uar"] == pytest.approx(np.std(first, ddof=1))
    [pair] = comparison.baselines
    assert pair.seeds == seeds
    assert pair.differences["uar"].seeds == pytest.approx(compare_seeds(first, second))
    assert pair.differences["uar"].seeds_p_holm == pytest.approx(compare_seeds(first, second)["p_value"])
    assert pair.differences["uar"].paired["difference"] == pytest.approx(np.mean(first) - np.mean(second))


def test_difference_is_over_the_seeds_that_both_have():
    runs = [finished(6, seed=0), finished(6, seed=1), finished(8, seed=1), finished(8, seed=2)]
    [pair] = quick(runs).baselines
    expected = uar(TARGET, runs[2].probability) - uar(TARGET, runs[1].probability)
    assert pair.seeds == (1,)
    assert pair.differences["uar"].paired["difference"] == pytest.approx(expected)


def test_runs_in_another_order_of_images_compare_alike():
    plain = [finished(6, skill=0.8), finished(8)]
    order = np.random.default_rng(3).permutation(SAMPLES)
    shuffled = replace(
        plain[1],
        target=TARGET[order],
        probability=plain[1].probability[order],
        image_ids=[plain[1].image_ids[row] for row in order],
        groups=plain[1].groups[order],
    )
    assert quick(plain).baselines == quick([plain[0], shuffled]).baselines


def test_baseline_is_the_one_that_shares_most_settings():
    settings = {"learning_rate": 0.01, "epochs": 5}
    other = finished(8, name="other", settings={"learning_rate": 0.001, "epochs": 9})
    same = finished(8, name="same", settings=settings)
    [pair] = [
        pair
        for pair in quick([other, same, finished(10, settings={**settings, "cluster_lambda": 2})]).baselines
        if pair.model.startswith("10")
    ]
    assert pair.baseline == "8 · se_resnet50 · vggface2 · weighted_softmax (epochs=5, learning_rate=0.01)"


def test_baseline_is_of_the_same_block_where_one_backbone_stands_for_both() -> None:
    runs = [finished(number, backbone="resnet18", name=str(number)) for number in (1, 11, 13)]
    [pair] = quick(runs).baselines
    assert (pair.model[:2], pair.baseline[:2]) == ("13", "11")


def test_failed_run_is_kept_as_failed_and_is_no_baseline():
    comparison = quick([failed(8), finished(10)])
    assert [scored.model.failed_seeds for scored in comparison.models] == [[0], []]
    assert comparison.models[0].intervals == {} and comparison.baselines == ()


def test_finished_rerun_replaces_the_failed_run_of_its_seed():
    again = finished(9, settings=failed(9).settings)
    for runs in ([failed(9), again], [again, failed(9)]):
        [scored] = quick(runs).models
        assert scored.model.failed_seeds == [] and scored.intervals


def test_failed_run_without_settings_belongs_to_the_model_of_its_row():
    lost = replace(failed(9, seed=1), settings={})
    for runs in ([lost, finished(9)], [finished(9), lost]):
        [scored] = quick(runs).models
        assert scored.model.failed_seeds == [1] and list(scored.model.finished) == [0]
        assert scored.model.label == "9 · se_resnet50 · vggface2 · center+weighted_softmax"


def test_models_are_shown_by_row_then_as_given():
    runs = [finished(None, loss="b"), finished(10), finished(None, loss="a"), failed(8), finished(6)]
    assert [scored.model.first.number for scored in quick(runs).models] == [6, 8, 10, None, None]
    assert [scored.model.first.loss for scored in quick(runs).models][3:] == ["b", "a"]


def test_all_runs_failed_is_a_comparison_without_test_set():
    comparison = quick([failed(8), failed(9)])
    assert comparison.test_set is None and len(comparison.models) == 2


def difference(low, high, p_value=0.01):
    return Difference(difference=(low + high) / 2, low=low, high=high, p_value=p_value)


@pytest.mark.parametrize(
    ("metric", "low", "high", "p_holm", "words"),
    [
        ("uar", -0.01, 0.02, 0.4, WITHIN_NOISE),
        ("uar", 0.0, 0.02, 0.06, WITHIN_NOISE),
        ("uar", 0.01, 0.02, 0.01, "better"),
        ("uar", -0.02, -0.01, 0.01, "worse"),
        ("uar", 0.01, 0.02, 0.2, "better, but not after Holm's correction"),
        ("brier_score", -0.02, -0.01, 0.01, "better"),
        ("brier_score", 0.01, 0.02, 0.01, "worse"),
    ],
)
def test_verdict_says_in_words_what_the_interval_shows(metric, low, high, p_holm, words):
    assert verdict(metric, difference(low, high), p_holm) == words


def test_verdict_of_an_undefined_difference():
    assert verdict("uar", Difference(difference=None, low=None, high=None, p_value=None), None) == "not defined"


def test_models_of_equal_skill_are_within_noise_and_unequal_ones_are_not():
    alike = quick([finished(6, skill=1.0, seed=0), finished(8, skill=1.0, seed=0)]).baselines[0]
    apart = quick([finished(6, skill=0.5, seed=0), finished(8, skill=1.5, seed=0)]).baselines[0]
    assert alike.differences["uar"].verdict == WITHIN_NOISE
    assert apart.differences["uar"].verdict == "better"


def test_runs_over_different_test_sets_are_refused_with_both_digests():
    with pytest.raises(DataError) as caught:
        quick([finished(8), finished(10, test_set_digest="e2" * 32)])
    message = str(caught.value)
    assert DIGEST in message and "e2" * 32 in message and "\n" not in message


@pytest.mark.parametrize(
    "changes",
    [
        {"image_ids": [f"other-{row:04d}" for row in range(SAMPLES)]},
        {"target": (TARGET + 1) % 8},
    ],
)
def test_same_digest_over_other_images_or_truth_is_refused(changes):
    with pytest.raises(DataError, match="different test sets"):
        quick([finished(8), finished(10, **changes)])


REFUSED = {
    "no runs": ([], "got none"),
    "an unknown row": ([replace(finished(10), number=21)], "got 21"),
    "an unknown status": ([finished(10, status="running")], "status 'running'"),
    "two runs of a model and seed": ([finished(10), finished(10, name="again")], "second run"),
    "repeated image ids": ([finished(10, image_ids=["one"] * SAMPLES)], "1 different image ids"),
    "faulty probabilities": ([finished(10, probability=np.ones((SAMPLES, 8)))], "a sum of 8"),
    "metrics of other predictions": ([finished(10, metrics={"accuracy": {"value": 0.9}})], "accuracy 0.900000"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_comparison_refuses(case):
    runs, says = REFUSED[case]
    with pytest.raises(DataError) as caught:
        quick(runs)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_metrics_that_agree_with_the_predictions_are_accepted():
    run = finished(10)
    accuracy = float(np.mean(run.probability.argmax(axis=1) == TARGET))
    assert quick([replace(run, metrics={"accuracy": {"value": accuracy, "low": 0, "high": 1}})]).models


def test_runs_of_one_name_and_settings_but_other_rows_of_data_are_told_apart():
    twins = [finished(8, name="same", seed=0), finished(8, name="same", seed=0)]
    assert twins[0] != twins[1] and twins.index(twins[1]) == 1


def test_failed_run_needs_no_predictions():
    run = ScoredRun("x", None, "resnet18", "none", "softmax", 0, status="failed")
    assert quick([run]).models[0].model.failed_seeds == [0]


@pytest.mark.parametrize(("difference", "words"), [(0.0131, "+1.3"), (-0.0004, "+0.0"), (-0.02, "-2.0")])
def test_a_difference_is_said_in_points(difference: float, words: str) -> None:
    assert in_points(difference) == words
