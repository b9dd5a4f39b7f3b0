import subprocess
import sys

import numpy as np
import pytest
from metric_cases import CASES, CLASSES, predictions, reference
from sklearn import metrics as sk

from affectflow.metrics import (
    METRICS,
    accuracy,
    average_precision,
    cohen_kappa,
    confusion_matrix,
    evaluate_all,
    f1_macro,
    mean_roc_curve,
    most_confident_mistakes,
    per_class,
    precision_recall_curves,
    resample_metrics,
    roc_auc,
    roc_curves,
    uar,
)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", METRICS)
def test_metric_equals_scikit_learn_or_krippendorff(name, case):
    target, probability = CASES[case]()
    expected = reference(name, target, probability)
    value = METRICS[name](target, probability)
    assert value == (None if expected is None else pytest.approx(expected, abs=1e-12))


@pytest.mark.parametrize("case", CASES)
def test_metric_is_a_float_or_none_and_never_nan(case):
    for name, metric in METRICS.items():
        value = metric(*CASES[case]())
        assert value is None or (type(value) is float and np.isfinite(value)), name


@pytest.mark.parametrize("case", CASES)
def test_weighted_form_with_weights_of_one_equals_the_metric(case):
    target, probability = CASES[case]()
    whole = resample_metrics(target, probability, resamples=1)
    for name, metric in METRICS.items():
        value = metric(target, probability)
        assert whole.values[name] == pytest.approx(np.nan if value is None else value, abs=1e-12, nan_ok=True), (
            name
        )


def test_perfect_predictions_reach_the_best_value_of_every_metric():
    best = dict.fromkeys(METRICS, 1.0) | {"expected_calibration_error": 0.0, "brier_score": 0.0}
    for name, metric in METRICS.items():
        assert metric(*CASES["perfect"]()) == best[name], name


def test_constant_prediction_is_chance():
    target, probability = CASES["constant"]()
    assert accuracy(target, probability) == uar(target, probability) == 1 / CLASSES
    assert cohen_kappa(target, probability) == 0
    assert roc_auc(target, probability) == 0.5
    assert average_precision(target, probability) == pytest.approx(1 / CLASSES)


@pytest.mark.parametrize("signal", [0.0, 0.7, 2.0])
def test_kappa_on_a_balanced_set_follows_from_accuracy(signal):
    target = np.repeat(np.arange(CLASSES), 25)
    logits = np.random.default_rng(1).normal(size=(len(target), CLASSES))
    logits[np.arange(len(target)), target] += signal
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = (accuracy(target, probability) - 1 / 8) / (7 / 8)
    assert cohen_kappa(target, probability) == pytest.approx(expected, abs=1e-12)


def test_class_absent_from_targets_and_predictions_changes_no_metric_of_the_others():
    target, probability = predictions(200, classes=4)
    wider = np.hstack([probability, np.zeros((200, 2))])
    for name, metric in METRICS.items():
        assert metric(target, wider) == pytest.approx(metric(target, probability), abs=1e-12), name


def test_class_predicted_but_absent_from_targets_counts_as_zero_in_f1_and_not_in_uar():
    target = [0, 0, 1, 1]
    probability = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert uar(target, probability) == 0.75
    assert f1_macro(target, probability) == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_agreement_is_none_when_truth_and_prediction_are_one_class():
    target, probability = [1, 1, 1], [[0.2, 0.8]] * 3
    undefined = {"cohen_kappa", "cohen_kappa_ovr", "krippendorff_alpha", "roc_auc"}
    assert {name for name, metric in METRICS.items() if metric(target, probability) is None} == undefined


def test_equal_probabilities_choose_the_first_class():
    assert confusion_matrix([0, 1], [[0.5, 0.5], [0.5, 0.5]]).tolist() == [[1, 0], [1, 0]]


def test_confusion_matrix_has_truth_in_rows_and_absent_classes_as_zeros():
    target, probability = CASES["absent classes"]()
    counts = confusion_matrix(target, probability)
    assert counts.shape == (CLASSES, CLASSES)
    assert counts.sum(axis=1).tolist() == np.bincount(target, minlength=CLASSES).tolist()
    assert counts.sum(axis=0).tolist() == np.bincount(probability.argmax(axis=1), minlength=CLASSES).tolist()


def test_per_class_equals_scikit_learn_and_is_none_where_undefined():
    target, probability = CASES["absent classes"]()
    predicted = probability.argmax(axis=1)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        target, predicted, labels=np.arange(CLASSES), zero_division=np.nan
    )
    for code, row in enumerate(per_class(target, probability).values()):
        expected = {"recall": recall[code], "precision": precision[code], "f1": f1[code]}
        for name, value in expected.items():
            assert row[name] == (None if np.isnan(value) else pytest.approx(value)), (code, name)
        assert row["support"] == support[code]


def test_per_class_names_the_expressions_in_code_order():
    names = list(per_class(*CASES["random"]()))
    assert names[0] == "neutral" and names[7] == "contempt" and len(names) == 8


def test_evaluate_all_holds_every_metric_and_is_json():
    import json

    target, probability = CASES["one class"]()
    everything = json.loads(json.dumps(evaluate_all(target, probability), allow_nan=False))
    assert set(METRICS) < set(everything)
    assert everything["n"] == 60 and everything["roc_auc"] is None


def test_roc_curves_hold_the_areas_of_the_metric_and_end_in_the_corners():
    target, probability = CASES["absent classes"]()
    curves = roc_curves(target, probability)
    assert [curve.code for curve in curves] == [0, 1, 2, 4, 5, 6]
    assert np.mean([curve.area for curve in curves]) == pytest.approx(roc_auc(target, probability))
    assert all((curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1) for curve in curves)


def test_mean_roc_curve_rises_from_corner_to_corner():
    false_rate, true_rate = mean_roc_curve(*CASES["skilled"](), points=11)
    assert false_rate.tolist() == pytest.approx(np.linspace(0, 1, 11).tolist())
    assert true_rate[-1] == 1 and (np.diff(true_rate) >= 0).all()
    assert (true_rate[1:-1] > false_rate[1:-1]).all()
    assert mean_roc_curve(*CASES["one class"]()) is None


def test_precision_recall_curves_hold_the_areas_of_the_metric():
    target, probability = CASES["tied"]()
    curves = precision_recall_curves(target, probability)
    assert np.mean([curve.area for curve in curves]) == pytest.approx(average_precision(target, probability))
    for curve in curves:
        steps = np.sum(np.diff(curve.x) * curve.y[1:])
        assert steps == pytest.approx(curve.area)


def test_most_confident_mistakes_are_wrong_and_sorted():
    target, probability = CASES["random"]()
    rows = most_confident_mistakes(target, probability, 10)
    confidence = probability.max(axis=1)
    wrong = probability.argmax(axis=1) != target
    assert len(rows) == 10 and wrong[rows].all()
    assert confidence[rows].tolist() == sorted(confidence[wrong], reverse=True)[:10]
    assert len(most_confident_mistakes(*CASES["perfect"](), 10)) == 0


def test_importing_the_metrics_loads_no_slow_library():
    heavy = ["torch", "sklearn", "matplotlib", "scipy", "krippendorff", "pandas"]
    code = f"import sys, affectflow.metrics; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
