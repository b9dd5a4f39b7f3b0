import copy

import pytest
import torch
from loss_reference import reference_center, reference_cluster, reference_reduce, reference_softmax
from torch import nn

from affectflow.losses import LOSSES, ClassStatistics, JointLoss, build_loss, weighted_softmax_loss

WEIGHTED = [name for name in LOSSES if "weighted" in name]
WITH_CENTERS = [name for name in LOSSES if "+" in name]


def loss_at(name, batch, **settings):
    """A joint loss in float64 whose centers are the batch's."""
    loss = build_loss(
        name, class_weights=batch["class_weights"], num_classes=8, feature_dim=5, **settings
    ).double()
    if loss.auxiliary is not None:
        loss.set_centers(batch["centers"])
    return loss


def by_hand(name, batch, reduction):
    lists = {key: value.tolist() for key, value in batch.items()}
    weights = [lists["class_weights"][y] for y in lists["target"]]
    softmax = reference_softmax(lists["logits"], lists["target"])
    center = reference_center(lists["features"], lists["target"], lists["centers"])
    cluster = reference_cluster(lists["features"], lists["target"], lists["centers"], lists["class_weights"])
    values = {
        "softmax": reference_reduce(softmax, reduction),
        "weighted_softmax": reference_reduce(
            [w * v for w, v in zip(weights, softmax, strict=True)], reduction, weights
        ),
        "center": reference_reduce(center, reduction),
        "weighted_cluster": reference_reduce(cluster, reduction, weights),
    }
    return {part: values[part] for part in name.split("+")}


@pytest.mark.parametrize("reduction", ["weighted_mean", "mean", "sum"])
@pytest.mark.parametrize("name", LOSSES)
def test_total_and_parts_are_the_hand_written_sums(small, name, reduction):
    value = loss_at(name, small, reduction=reduction)(small["logits"], small["features"], small["target"])
    parts = by_hand(name, small, reduction)
    assert {part: float(v) for part, v in value.parts.items()} == pytest.approx(parts, rel=1e-10)
    factor = {"center": 0.5, "weighted_cluster": 1.0}
    total = sum(factor.get(part, 1.0) * v for part, v in parts.items())
    assert float(value.total) == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("name", WEIGHTED)
def test_at_lambda_0_the_total_is_the_weighted_softmax_loss(small, name):
    value = loss_at(name, small, lambda_=0.0)(small["logits"], small["features"], small["target"])
    wanted = weighted_softmax_loss(small["logits"], small["target"], small["class_weights"])
    assert torch.equal(value.total, wanted)


def test_lambda_may_be_set_between_steps_but_not_below_0(small):
    loss = loss_at("center+softmax", small)
    batch = small["logits"], small["features"], small["target"]
    loss.lambda_ = 2.0
    value = loss(*batch)
    torch.testing.assert_close(value.total, value.parts["softmax"] + 2 * value.parts["center"])
    with pytest.raises(ValueError, match=r"lambda: got -0\.1"):
        loss.lambda_ = -0.1


@pytest.mark.parametrize("name", WITH_CENTERS)
def test_gradient_centers_take_a_step_on_the_joint_loss_with_lambda_and_denominator(small, name):
    before, batch = small["centers"], (small["logits"], small["features"], small["target"])
    steps = {}
    for lambda_ in (0.25, 1.0):
        loss = loss_at(name, small, lambda_=lambda_, center_update="gradient")
        loss(*batch).total.backward()
        loss.step_centers(small["features"], small["target"])
        steps[lambda_] = loss.auxiliary.centers - before
    torch.testing.assert_close(steps[0.25], 0.25 * steps[1.0])
    assert float(steps[1.0].abs().max()) > 0


@pytest.mark.parametrize("name", WITH_CENTERS)
def test_the_published_center_step_holds_no_lambda(small, name):
    after = []
    for lambda_ in (0.25, 1.0):
        loss = loss_at(name, small, lambda_=lambda_)
        loss.step_centers(small["features"], small["target"])
        after.append(loss.auxiliary.centers)
    assert torch.equal(*after)


def test_lambda_and_the_center_step_are_the_published_ones_unless_set():
    found = {}
    for name in WITH_CENTERS:
        loss = build_loss(name, class_weights=[0.5] * 8, num_classes=8, feature_dim=5)
        found[name] = (loss.lambda_, loss.auxiliary.gamma)
        other = build_loss(name, class_weights=[0.5] * 8, num_classes=8, feature_dim=5, gamma=0.3)
        assert other.auxiliary.gamma == 0.3
    assert found == {
        "center+softmax": (0.5, 0.5),
        "center+weighted_softmax": (0.5, 0.5),
        "weighted_cluster+weighted_softmax": (1.0, 1.0),
    }


@pytest.mark.parametrize("name", LOSSES)
def test_the_state_dict_restores_a_loss(small, name):
    loss = loss_at(name, small)
    loss.step_centers(small["features"], small["target"])
    other = build_loss(name, class_weights=small["class_weights"], num_classes=8, feature_dim=5, seed=9).double()
    other.load_state_dict(copy.deepcopy(loss.state_dict()))
    batch = small["logits"], small["features"], small["target"]
    assert torch.equal(other(*batch).total, loss(*batch).total)


@pytest.mark.parametrize("name", LOSSES)
def test_centers_are_no_parameters(name):
    loss = build_loss(name, class_weights=[0.5] * 8, num_classes=8, feature_dim=5)
    assert list(loss.parameters()) == []
    assert ("auxiliary.centers" in loss.state_dict()) == (name in WITH_CENTERS)


@pytest.mark.parametrize("init", ["normal", "zeros", "class_means"])
@pytest.mark.parametrize("update", ["paper", "gradient"])
@pytest.mark.parametrize("name", LOSSES)
def test_200_steps_of_every_setting_stay_finite(name, update, init):
    torch.manual_seed(0)
    inputs, target = torch.randn(24, 6), torch.arange(24) % 8
    body, head = nn.Linear(6, 5), nn.Linear(5, 8)
    weights = torch.tensor([0.0437, 0.0243, 0.1302, 0.2391, 0.5529, 0.9840, 0.1333, 1])
    settings = {"center_update": update, "center_init": init}
    loss = build_loss(name, class_weights=weights, num_classes=8, feature_dim=5, **settings)
    if loss.needs_class_means:
        features = body(inputs).relu().detach()
        loss.set_centers(torch.stack([features[target == j].mean(dim=0) for j in range(8)]))
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=1e-2, momentum=0.9)
    totals = []
    for _ in range(200):
        features = body(inputs).relu()
        value = loss(head(features), features, target)
        optimizer.zero_grad()
        value.total.backward()
        optimizer.step()
        loss.step_centers(features, target)
        totals.append(value.total.detach())
    assert torch.stack(totals).isfinite().all()
    assert totals[-1] < totals[0]


def test_an_unknown_name_lists_the_five():
    with pytest.raises(ValueError, match="one of softmax, center\\+softmax, weighted_softmax, "):
        build_loss("island", class_weights=[1.0] * 8, num_classes=8, feature_dim=5)


def test_unweighted_losses_need_no_class_weights_and_weighted_ones_do():
    assert build_loss("center+softmax", class_weights=None, num_classes=8, feature_dim=5).lambda_ == 0.5
    with pytest.raises(ValueError, match=r"class_weights: got \(0,\) float32, wanted \(8,\)"):
        build_loss("weighted_softmax", class_weights=None, num_classes=8, feature_dim=5)


@pytest.mark.parametrize("settings", [{}, {"feature_norm": "l2"}, {"alpha_scale": "features"}])
@pytest.mark.parametrize("update", ["paper", "gradient"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_training_step_never_reads_a_value_back_from_the_device(name, update, settings):
    # Tensors on "meta" have no values: reading one (.item(), a branch on one) raises.
    loss = build_loss(
        name, class_weights=[0.5] * 8, num_classes=8, feature_dim=5, center_update=update, **settings
    ).to("meta")
    logits = torch.zeros(4, 8, device="meta", requires_grad=True)
    features = torch.zeros(4, 5, device="meta", requires_grad=True)
    target = torch.zeros(4, dtype=torch.int64, device="meta")
    loss(logits, features, target).total.backward()
    loss.step_centers(features, target, grad_scale=2.0)
    statistics = ClassStatistics(8, 5, device="meta")
    statistics.update(features, target)


def test_a_loss_without_centers_takes_none():
    loss = build_loss("softmax", class_weights=None, num_classes=8, feature_dim=5)
    with pytest.raises(ValueError, match="centers: got some for the loss 'softmax', wanted none"):
        loss.set_centers(torch.zeros(8, 5))


@pytest.mark.parametrize("between", ["set_centers", "evaluation"])
def test_a_gradient_of_the_centers_that_no_step_took_is_not_kept(between):
    def build() -> JointLoss:
        return build_loss(
            "center+softmax", class_weights=None, num_classes=2, feature_dim=3, center_update="gradient"
        )

    def step(loss: JointLoss) -> float:
        value = loss(torch.zeros(2, 2, requires_grad=True), torch.ones(2, 3), torch.tensor([0, 1]))
        value.total.backward()
        return float(value.total.detach())

    loss, fresh = build(), build()
    step(loss)
    if between == "set_centers":
        for each in (loss, fresh):
            each.set_centers(torch.full((2, 3), 4.0))
    else:
        loss.eval()
        loss.step_centers(torch.ones(2, 3), torch.tensor([0, 1]))
        loss.train()
    assert step(loss) == step(fresh)
    for each in (loss, fresh):
        each.step_centers(torch.ones(2, 3), torch.tensor([0, 1]))
    assert torch.equal(loss.auxiliary.centers, fresh.auxiliary.centers)
