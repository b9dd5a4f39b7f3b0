"""Predictions on which metrics are held against scikit-learn and krippendorff, and those references."""

import warnings

import krippendorff
import numpy as np
from sklearn import metrics as sk

CLASSES = 8


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def predictions(n=400, *, classes=CLASSES, signal=1.0, decimals=None, seed=0, among=None):
    """Targets (of the classes ``among``) and probabilities; few ``decimals`` of the logits make ties."""
    rng = np.random.default_rng(seed)
    target = rng.choice(np.arange(classes) if among is None else among, size=n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), target] += signal
    if decimals is not None:
        logits = logits.round(decimals)
    return target, softmax(logits)


def perfect():
    target = np.arange(160) % CLASSES
    return target, np.eye(CLASSES)[target]


def constant():
    target = np.arange(160) % CLASSES
    return target, np.tile(softmax(np.arange(CLASSES, dtype=float)[None]), (len(target), 1))


def one_class():
    """All targets of one class, predictions of several."""
    return predictions(60, among=[3])


def absent_classes():
    """Two classes without targets, one of them predicted, the other never."""
    target, probability = predictions(300, among=[0, 1, 2, 4, 5, 6])
    probability[:, 7] = 0
    return target, probability / probability.sum(axis=1, keepdims=True)


CASES = {
    "random": lambda: predictions(signal=0.0),
    "skilled": lambda: predictions(signal=1.5),
    "tied": lambda: predictions(signal=1.0, decimals=0),
    "perfect": perfect,
    "constant": constant,
    "one class": one_class,
    "absent classes": absent_classes,
    "two classes": lambda: predictions(100, classes=2),
}


def reference(name, target, probability):
    """The metric by scikit-learn or krippendorff alone, None where it is not defined."""
    predicted = probability.argmax(axis=1)
    present = np.unique(target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        match name:
            case "accuracy":
                return sk.accuracy_score(target, predicted)
            case "uar":
                return sk.balanced_accuracy_score(target, predicted)
            case "f1_macro":
                return sk.f1_score(target, predicted, average="macro")
            case "cohen_kappa":
                value = sk.cohen_kappa_score(target, predicted)
                return None if np.isnan(value) else value
            case "cohen_kappa_ovr":
                seen = np.union1d(target, predicted)
                return np.mean([sk.cohen_kappa_score(target == c, predicted == c) for c in seen])
            case "krippendorff_alpha":
                if len(np.union1d(target, predicted)) == 1:
                    return None
                return krippendorff.alpha([target, predicted], level_of_measurement="nominal")
            case "roc_auc":
                if len(present) == 1:
                    return None
                return np.mean([sk.roc_auc_score(target == c, probability[:, c]) for c in present])
            case "average_precision":
                return np.mean([sk.average_precision_score(target == c, probability[:, c]) for c in present])
            case "brier_score":
                return np.mean(((probability - np.eye(probability.shape[1])[target]) ** 2).sum(axis=1))
            case "expected_calibration_error":
                return looped_calibration_error(target, probability)


def looped_calibration_error(target, probability, bins=15):
    total = 0.0
    for low in range(bins):
        inside = [
            (max(row), row.argmax() == truth)
            for truth, row in zip(target, probability, strict=True)
            if low / bins < max(row) <= (low + 1) / bins
        ]
        if inside:
            confidence, correct = np.mean(inside, axis=0)
            total += len(inside) * abs(confidence - correct)
    return total / len(target)
