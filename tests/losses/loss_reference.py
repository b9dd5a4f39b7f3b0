"""The formulas again, by hand: NumPy, float64, a loop over samples, classes and dimensions. Shares no code."""

import math

import numpy as np


def reference_softmax(logits, target):
    """-log p of each sample."""
    losses = []
    for row, y in zip(logits, target, strict=True):
        top = max(row)
        losses.append(top + math.log(sum(math.exp(v - top) for v in row)) - row[y])
    return losses


def reference_spread(centers, j):
    """S_j = Σ_{l≠j} ‖c_l − c_j‖²."""
    total = 0.0
    for k, center in enumerate(centers):
        if k != j:
            for a, b in zip(center, centers[j], strict=True):
                total += (a - b) ** 2
    return total


def reference_center(features, target, centers):
    """½ ‖x_i − c_{y_i}‖² of each sample."""
    return [
        0.5 * sum((a - b) ** 2 for a, b in zip(x, centers[y], strict=True))
        for x, y in zip(features, target, strict=True)
    ]


def reference_cluster(features, target, centers, weights, alpha=1.0):
    """½ W_{y_i} ‖x_i − c_{y_i}‖² / (S_{y_i} + α) of each sample."""
    return [
        weights[y] * half / (reference_spread(centers, y) + alpha)
        for half, y in zip(reference_center(features, target, centers), target, strict=True)
    ]


def reference_reduce(losses, reduction, weights=None):
    """Reduce per-sample losses, already weighted; ``weights`` are the samples' own."""
    if reduction == "sum":
        return sum(losses)
    if reduction == "mean" or weights is None:
        return sum(losses) / len(losses)
    return sum(losses) / sum(weights)


def reference_cluster_step(features, target, centers, weights, alpha=1.0, gamma=1.0):
    """Eq. 8–9 with the sign mended, to the letter: all steps from the old centers."""
    new = [list(center) for center in centers]
    for j in range(len(centers)):
        spread = reference_spread(centers, j)
        for x, y in zip(features, target, strict=True):
            if y == j:
                for k in range(len(x)):
                    new[j][k] += gamma * weights[j] * (x[k] - centers[j][k]) / (spread + alpha)
    return np.array(new)


def reference_center_step(features, target, centers, rate=0.5):
    """Wen et al. 2016, Eq. 4."""
    new = [list(center) for center in centers]
    for j in range(len(centers)):
        mine = [x for x, y in zip(features, target, strict=True) if y == j]
        for k in range(len(centers[j])):
            new[j][k] += rate * sum(x[k] - centers[j][k] for x in mine) / (1 + len(mine))
    return np.array(new)
