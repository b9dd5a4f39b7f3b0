import pytest
import torch

from affectflow.losses import (
    CenterLoss,
    WeightedClusterLoss,
    build_loss,
    center_loss,
    softmax_loss,
    weighted_cluster_loss,
    weighted_softmax_loss,
)

FEATURES, TARGET, CENTERS, WEIGHTS = torch.zeros(3, 4), torch.tensor([0, 1, 1]), torch.zeros(2, 4), torch.ones(2)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"target": TARGET[:2]}, "features and target: got 3 features and 2 targets, wanted as many of each"),
        ({"target": TARGET.float()}, r"target: got \(3,\) float32, wanted \(N,\) int64"),
        ({"target": TARGET[:, None]}, r"target: got \(3, 1\) int64"),
        ({"target": torch.tensor([0, 2, 1])}, "target: got codes from 0 to 2, wanted codes from 0 to 1"),
        ({"target": torch.tensor([0, -100, 1])}, "target: got codes from -100 to 1"),
        ({"features": FEATURES[0]}, r"features: got \(4,\) float32"),
        ({"features": FEATURES.long()}, r"features: got \(3, 4\) int64"),
        ({"features": FEATURES[:0], "target": TARGET[:0]}, r"features: got \(0, 4\)"),
        ({"centers": torch.zeros(2, 5)}, r"centers: got \(2, 5\) float32, wanted \(C, 4\)"),
        ({"centers": torch.zeros(2, 4, dtype=torch.int64)}, "centers: got"),
        ({"class_weights": torch.ones(3)}, r"class_weights: got \(3,\) float32, wanted \(2,\)"),
        ({"class_weights": torch.tensor([1.0, 0.0])}, "class_weights: got 0 for class 1"),
        ({"class_weights": torch.tensor([-1.0, 1.0])}, "class_weights: got -1 for class 0"),
        ({"class_weights": torch.tensor([1.0, torch.nan])}, "class_weights: got nan for class 1"),
        ({"class_weights": torch.tensor([1.0, torch.inf])}, "class_weights: got inf for class 1"),
        ({"alpha": 0.0}, "alpha: got 0, wanted a finite number above 0"),
        ({"alpha": float("nan")}, "alpha: got nan"),
        ({"reduction": "none"}, "reduction: got 'none', wanted one of weighted_mean, mean, sum"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(changed, line):
    arguments = {
        "features": FEATURES,
        "target": TARGET,
        "centers": CENTERS,
        "class_weights": WEIGHTS,
        "alpha": 1.0,
        "reduction": "mean",
        **changed,
    }
    with pytest.raises(ValueError, match=line) as caught:
        weighted_cluster_loss(**arguments)
    assert "\n" not in str(caught.value)


def test_the_other_losses_check_the_same_way():
    with pytest.raises(ValueError, match="codes from 0 to 2"):
        center_loss(FEATURES, torch.tensor([0, 2, 1]), CENTERS)
    with pytest.raises(ValueError, match="3 logits and 2 targets"):
        softmax_loss(FEATURES, TARGET[:2])
    with pytest.raises(ValueError, match="class_weights"):
        weighted_softmax_loss(FEATURES, TARGET, WEIGHTS)
    with pytest.raises(ValueError, match="codes from 0 to 2"):
        WeightedClusterLoss(2, 4, WEIGHTS).update_centers(FEATURES, torch.tensor([0, 2, 1]))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"lambda_": -1.0}, "lambda: got -1, wanted a finite number of at least 0"),
        ({"lambda_": float("inf")}, "lambda: got inf"),
        ({"alpha": -1.0}, "alpha: got -1"),
        ({"gamma": 0.0}, "gamma: got 0"),
        ({"center_update": "adam"}, "center_update: got 'adam', wanted one of paper, gradient"),
        ({"center_init": "ones"}, "center_init: got 'ones'"),
        ({"center_step_limit": 0.0}, "center_step_limit: got 0"),
        ({"feature_norm": "l1"}, "feature_norm: got 'l1'"),
        ({"alpha_scale": "batch"}, "alpha_scale: got 'batch'"),
        ({"reduction": "none"}, "reduction: got 'none'"),
        ({"class_weights": [1.0] * 7}, r"class_weights: got \(7,\)"),
        ({"class_weights": [1.0] * 7 + [0.0]}, "class_weights: got 0 for class 7"),
        ({"feature_norm": "l2", "center_update": "gradient", "center_init": "zeros"}, "center_init: got 'zeros'"),
    ],
)
def test_build_loss_refuses_a_wrong_setting(settings, line):
    arguments = {"class_weights": [1.0] * 8, "num_classes": 8, "feature_dim": 4, **settings}
    with pytest.raises(ValueError, match=line):
        build_loss("weighted_cluster+weighted_softmax", **arguments)


def test_center_loss_refuses_a_step_of_0():
    with pytest.raises(ValueError, match="gamma: got 0"):
        CenterLoss(2, 4, gamma=0.0)
