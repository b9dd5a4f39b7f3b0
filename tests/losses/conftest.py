import numpy as np
import pytest
import torch


def _batch(n, classes, width, *, scale=1.0, target=None, seed=0):
    generator = np.random.default_rng(seed)
    return {
        "features": torch.tensor(generator.normal(size=(n, width)) * scale),
        "logits": torch.tensor(generator.normal(size=(n, classes)) * 3),
        "target": torch.tensor(generator.integers(0, classes, size=n) if target is None else target),
        "centers": torch.tensor(generator.normal(size=(classes, width)) * scale),
        "class_weights": torch.tensor(generator.uniform(0.02, 1, size=classes)),
    }


#: Batches that every formula must get right, in float64.
BATCHES = {
    "random": _batch(13, 8, 5),
    "two classes absent": _batch(9, 8, 4, target=[0, 1, 2, 3, 3, 5, 5, 5, 7], seed=1),
    "one class only": _batch(4, 3, 4, target=[1, 1, 1, 1], seed=2),
    "single sample": _batch(1, 8, 6, seed=3),
    "two classes, one dimension": _batch(6, 2, 1, seed=4),
    "huge norms": _batch(7, 8, 5, scale=1e6, seed=5),
    "tiny norms": _batch(7, 8, 5, scale=1e-6, seed=6),
}


@pytest.fixture(params=BATCHES.values(), ids=BATCHES.keys())
def batch(request):
    return request.param


@pytest.fixture
def small():
    return BATCHES["random"]
