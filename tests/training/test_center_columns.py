"""What the history says of the centers: in the space in which the term compares them with the features."""

import pytest
import torch
from torch.nn import functional

from affectflow.losses import build_loss, center_spread
from affectflow.training.centers import center_columns
from affectflow.training.inference import Outputs

TARGET = torch.arange(64) % 8


def columns_of(name: str, *, features: torch.Tensor | None = None, **settings):
    if features is None:
        features = torch.rand(64, 512, generator=torch.Generator().manual_seed(1))
    loss = build_loss(name, class_weights=[1.0] * 8, num_classes=8, feature_dim=512, **settings)
    before = loss.auxiliary.centers.clone()
    loss(torch.zeros(64, 8, requires_grad=True), features.clone(), TARGET).total.backward()
    loss.step_centers(features, TARGET)
    return center_columns(loss, before, Outputs(torch.zeros(64, 8), features, TARGET)), loss, features, before


@pytest.mark.parametrize("center_update", ["paper", "gradient"])
def test_with_l2_features_and_centers_are_measured_as_the_term_sees_them(center_update):
    got, loss, features, before = columns_of(
        "weighted_cluster+weighted_softmax", feature_norm="l2", center_update=center_update
    )
    centers, start = (functional.normalize(c, dim=1) for c in (loss.auxiliary.centers, before))
    mean = functional.normalize(features, dim=1)[TARGET == 0].mean(dim=0)
    assert got["cluster_state"] == "active"  # centers of length 1 are no further apart than 2
    assert got["center.s_plus_alpha.neutral"] == pytest.approx(float(center_spread(centers)[0]) + 1, rel=1e-5)
    assert got["center.center_to_mean.neutral"] == pytest.approx(float(torch.dist(centers[0], mean)), rel=1e-4)
    assert got["center.center_moved.neutral"] == pytest.approx(float(torch.dist(centers[0], start[0])), rel=1e-3)
    assert got["center.mean_square_norm"] == pytest.approx(1)


def test_the_center_part_has_no_denominator_that_could_switch_it_off():
    got, loss, _, _ = columns_of("center+softmax")
    assert float(center_spread(loss.auxiliary.centers).min()) > 1000
    assert got["cluster_state"] == "active"


@pytest.mark.parametrize("name", ["center+softmax", "weighted_cluster+weighted_softmax"])
def test_a_part_of_weight_0_is_called_off(name):
    assert columns_of(name, lambda_=0.0, center_init="zeros")[0]["cluster_state"] == "off"


@pytest.mark.parametrize("name", ["center+softmax", "weighted_cluster+weighted_softmax"])
def test_equal_features_are_called_collapsed_whatever_the_part_is(name):
    got = columns_of(name, features=torch.ones(64, 512), lambda_=0.0)[0]
    assert got["cluster_state"] == "collapsed"
