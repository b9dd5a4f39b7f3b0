import pytest
import torch
from torch import nn

from affectflow.losses import ClassStatistics, build_loss, center_diagnostics, cluster_state

WEIGHTS = [0.0437, 0.0243, 0.1302, 0.2391, 0.5529, 0.9840, 0.1333, 1.0]


def train_toy(name, start):
    """Train a small network on imbalanced, noisy inputs and return its diagnostics and its UAR on other ones."""
    torch.manual_seed(2)
    means, weights = 0.1 * torch.randn(8, 512), torch.tensor(WEIGHTS)
    body, head = nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()), nn.Linear(32, 8)
    loss = build_loss(name, class_weights=weights, num_classes=8, feature_dim=32, center_init=start)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.03, momentum=0.9)
    for _ in range(500):
        target = torch.multinomial(1 / weights, 40, replacement=True)
        features = body(means[target] + torch.randn(40, 512))
        optimizer.zero_grad()
        loss(head(features), features, target).total.backward()
        optimizer.step()
        loss.step_centers(features, target)
    target = torch.arange(800) % 8
    with torch.no_grad():
        features = body(means[target] + torch.randn(800, 512))
        uar = float((head(features).argmax(dim=1) == target).float().mean())
    statistics = ClassStatistics(8, 32)
    statistics.update(features, target)
    centers = None if loss.auxiliary is None else loss.auxiliary.centers
    return center_diagnostics(statistics, centers), uar


def test_zeros_and_small_features_collapse_and_are_called_so():
    found, uar = train_toy("weighted_cluster+weighted_softmax", "zeros")
    assert float(found["s_plus_alpha"].max()) == pytest.approx(1, abs=1e-3)  # S is gone
    assert uar == pytest.approx(1 / 8, abs=0.01)  # one class for all
    assert cluster_state(found) == "collapsed"


def test_normal_centers_let_the_same_network_learn():
    found, uar = train_toy("weighted_cluster+weighted_softmax", "normal")
    assert uar > 0.4
    assert cluster_state(found) != "collapsed"


def test_weighted_softmax_alone_lets_the_same_network_learn():
    found, uar = train_toy("weighted_softmax", "normal")
    assert uar > 0.4
    assert cluster_state(found) == "off"
