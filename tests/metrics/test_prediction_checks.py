import numpy as np
import pytest
from metric_cases import predictions

from affectflow.metrics import METRICS, bootstrap_intervals, paired_difference

TARGET, PROBABILITY = predictions(20, classes=3)


def changed(row, values):
    probability = PROBABILITY.copy()
    probability[row] = values
    return probability


BAD = {
    "do not sum to 1": (TARGET, changed(4, [0.5, 0.5, 0.5]), "a sum of 1.5 in row 4"),
    "are logits": (TARGET, changed(4, [2.0, -1.0, 0.0]), "-1 in row 4"),
    "are NaN": (TARGET, changed(7, [np.nan, 0.5, 0.5]), "NaN in row 7"),
    "are infinite": (TARGET, changed(7, [np.inf, 0, 0]), "inf in row 7"),
    "have another length": (TARGET[:-1], PROBABILITY, "20 rows for 19 targets"),
    "have one dimension": (TARGET, PROBABILITY[:, 0], "(N, C)"),
    "have one class": (TARGET, np.ones((20, 1)), "(N, C) with C >= 2"),
    "are too narrow for a label": (np.full(20, 3), PROBABILITY, "classes from 0 to 2"),
    "meet a negative label": (np.full(20, -1), PROBABILITY, "label -1"),
    "meet labels that are no whole numbers": (TARGET + 0.5, PROBABILITY, "whole numbers"),
    "are none": (np.zeros(0, dtype=int), np.zeros((0, 3)), "N >= 1"),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("case", BAD)
def test_metric_refuses_probabilities_that(case, name):
    target, probability, says = BAD[case]
    with pytest.raises(ValueError) as caught:
        METRICS[name](target, probability)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_probabilities_of_half_precision_are_accepted():
    target, probability = predictions(500)
    assert METRICS["accuracy"](target, probability.astype(np.float16)) > 0


def test_arguments_are_left_as_they_were():
    target, probability = TARGET.copy(), PROBABILITY.copy()
    bootstrap_intervals(target, probability, resamples=5)
    assert (target == TARGET).all() and (probability == PROBABILITY).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"resamples": 0}, "resamples: got 0"),
        ({"level": 1.0}, "level: got 1.0"),
        ({"metrics": ["f2"]}, "metrics: got f2"),
        ({"groups": ["a"]}, "groups: got shape (1,)"),
    ],
)
def test_bootstrap_refuses(arguments, says):
    with pytest.raises(ValueError, match="got") as caught:
        bootstrap_intervals(TARGET, PROBABILITY, **arguments)
    assert says in str(caught.value)


def test_paired_bootstrap_refuses_models_of_different_samples():
    with pytest.raises(ValueError, match="19 rows for 20 targets"):
        paired_difference(TARGET, PROBABILITY, PROBABILITY[1:])
