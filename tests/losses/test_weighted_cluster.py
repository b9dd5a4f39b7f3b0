import copy

import pytest
import torch
from loss_reference import reference_cluster, reference_cluster_step, reference_reduce, reference_spread
from torch import nn

from affectflow.losses import WeightedClusterLoss, center_spread, weighted_cluster_loss


def arguments(batch):
    return batch["features"], batch["target"], batch["centers"], batch["class_weights"]


def as_lists(batch):
    return [tensor.tolist() for tensor in arguments(batch)]


def loss_at(batch, **settings):
    """A module in float64 whose centers are the batch's."""
    classes, width = batch["centers"].shape
    loss = WeightedClusterLoss(classes, width, batch["class_weights"], **settings).double()
    loss.set_centers(batch["centers"])
    return loss


@pytest.mark.parametrize("alpha", [1.0, 0.01, 50.0])
@pytest.mark.parametrize("reduction", ["weighted_mean", "mean", "sum"])
def test_the_loss_is_the_hand_written_sum(batch, reduction, alpha):
    losses = reference_cluster(*as_lists(batch), alpha)
    weights = [float(batch["class_weights"][y]) for y in batch["target"]]
    wanted = reference_reduce(losses, reduction, weights)
    got = weighted_cluster_loss(*arguments(batch), alpha, reduction)
    assert float(got) == pytest.approx(wanted, rel=1e-10)
    assert float(loss_at(batch, alpha=alpha, reduction=reduction)(*arguments(batch)[:2])) == pytest.approx(
        wanted, rel=1e-10
    )


def test_spread_is_the_sum_of_squared_distances_to_the_other_centers(batch):
    centers = batch["centers"]
    wanted = [reference_spread(centers.tolist(), j) for j in range(len(centers))]
    torch.testing.assert_close(
        center_spread(centers), torch.tensor(wanted, dtype=torch.float64), rtol=1e-10, atol=0
    )


def test_gradients_of_every_input_are_those_of_finite_differences(small):
    inputs = [small[k].clone().requires_grad_() for k in ("features", "centers", "class_weights")]
    alpha = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    for reduction in ("weighted_mean", "mean", "sum"):
        assert torch.autograd.gradcheck(
            lambda x, c, w, a, r=reduction: weighted_cluster_loss(x, small["target"], c, w, a, r), (*inputs, alpha)
        )


def test_the_gradient_of_a_feature_is_equation_7(small):
    features = small["features"].clone().requires_grad_()
    weighted_cluster_loss(features, *arguments(small)[1:], reduction="sum").backward()
    for i, y in enumerate(small["target"].tolist()):
        spread = reference_spread(small["centers"].tolist(), y)
        wanted = small["class_weights"][y] * (small["features"][i] - small["centers"][y]) / (spread + 1)
        torch.testing.assert_close(features.grad[i], wanted)


def test_order_of_the_batch_and_of_the_classes_do_not_matter(small):
    features, target, centers, weights = arguments(small)
    whole = weighted_cluster_loss(features, target, centers, weights)
    order = torch.randperm(len(target))
    torch.testing.assert_close(weighted_cluster_loss(features[order], target[order], centers, weights), whole)
    names = torch.randperm(len(centers))
    renamed = torch.argsort(names)[target]
    torch.testing.assert_close(weighted_cluster_loss(features, renamed, centers[names], weights[names]), whole)


def test_shifting_features_and_centers_together_changes_nothing(small):
    features, target, centers, weights = arguments(small)
    shift = torch.full((1, features.shape[1]), 17.0, dtype=torch.float64)
    torch.testing.assert_close(
        weighted_cluster_loss(features + shift, target, centers + shift, weights),
        weighted_cluster_loss(features, target, centers, weights),
    )


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("gamma", [1.0, 0.3])
def test_the_center_step_is_equations_8_and_9_by_hand(batch, alpha, gamma):
    loss = loss_at(batch, alpha=alpha, gamma=gamma, center_step_limit=None)
    loss.update_centers(batch["features"], batch["target"])
    wanted = reference_cluster_step(*as_lists(batch), alpha, gamma)
    torch.testing.assert_close(loss.centers, torch.tensor(wanted), rtol=1e-9, atol=1e-14)


def test_a_center_moves_towards_the_mean_of_its_class_and_absent_classes_stay(small):
    target = small["target"].clone()
    target[target == 6] = 1
    loss = loss_at(small)
    loss.update_centers(small["features"], target)
    for j in range(8):
        mine = small["features"][target == j]
        if len(mine):
            before, after = (torch.dist(c[j], mine.mean(dim=0)) for c in (small["centers"], loss.centers))
            assert after < before
        else:
            assert torch.equal(loss.centers[j], small["centers"][j])
    assert 6 not in target


def test_many_steps_bring_the_centers_to_the_class_means():
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0]])
    loss = WeightedClusterLoss(3, 2, torch.tensor([0.2, 0.5, 1.0]), seed=5)
    for _ in range(600):
        target = torch.randint(0, 3, (30,), generator=generator)
        features = means[target] + 0.1 * torch.randn(30, 2, generator=generator)
        loss.update_centers(features, target)
    assert torch.dist(loss.centers, means) < 0.15


def test_the_step_limit_keeps_a_center_from_overshooting_and_counts():
    features, target = torch.tensor([[4.0, 0.0]] * 3), torch.tensor([0, 0, 0])
    weights = torch.tensor([1.0, 0.5])
    limited = WeightedClusterLoss(2, 2, weights, center_init="zeros")
    limited.update_centers(features, target)
    assert limited.centers[0].tolist() == [4.0, 0.0]
    assert int(limited.limited_steps) == 1
    free = WeightedClusterLoss(2, 2, weights, center_init="zeros", center_step_limit=None)
    free.update_centers(features, target)
    assert free.centers[0].tolist() == [12.0, 0.0]
    assert int(free.limited_steps) == 0
    half = WeightedClusterLoss(2, 2, weights, center_init="zeros", center_step_limit=0.5)
    half.update_centers(features, target)
    assert half.centers[0].tolist() == [2.0, 0.0]


def test_paper_mode_gives_the_centers_no_gradient_and_gradient_mode_steps_along_it(small):
    paper = loss_at(small)
    features = small["features"].clone().requires_grad_()
    paper(features, small["target"]).backward()
    assert paper.centers.grad is None
    assert not paper.centers.requires_grad
    moving = loss_at(small, gamma=0.2, center_update="gradient")
    (3 * moving(features, small["target"])).backward()
    moving.step_centers(features, small["target"])
    centers = small["centers"].clone().requires_grad_()
    (3 * weighted_cluster_loss(small["features"], small["target"], centers, small["class_weights"])).backward()
    torch.testing.assert_close(moving.centers, small["centers"] - 0.2 * centers.grad)


def test_gradient_mode_pushes_centers_of_other_classes_too():
    loss = WeightedClusterLoss(2, 1, torch.ones(2), center_update="gradient")
    loss.set_centers(torch.tensor([[0.0], [1.0]]))
    loss(torch.tensor([[0.5]]), torch.tensor([0])).backward()
    loss.step_centers(torch.tensor([[0.5]]), torch.tensor([0]))
    assert loss.centers[1, 0] > 1


def test_gradient_mode_undoes_the_loss_scale_and_forgets_a_skipped_step(small):
    wanted = loss_at(small, center_update="gradient")
    wanted(small["features"], small["target"]).backward()
    wanted.step_centers(small["features"], small["target"])
    scaled = loss_at(small, center_update="gradient")
    (float("inf") * scaled(small["features"], small["target"])).backward()
    scaled.discard_step()
    scaled.step_centers(small["features"], small["target"])
    assert torch.equal(scaled.centers, small["centers"])
    (1024 * scaled(small["features"], small["target"])).backward()
    scaled.step_centers(small["features"], small["target"], grad_scale=1024.0)
    torch.testing.assert_close(scaled.centers, wanted.centers)


@pytest.mark.parametrize("update", ["paper", "gradient"])
def test_evaluation_moves_no_center(small, update):
    loss = loss_at(small, center_update=update).eval()
    value = loss(small["features"].clone().requires_grad_(), small["target"])
    value.backward()
    loss.step_centers(small["features"], small["target"])
    loss.update_centers(small["features"], small["target"])
    assert torch.equal(loss.centers, small["centers"])


@pytest.mark.parametrize("update", ["paper", "gradient"])
def test_forward_moves_no_center(small, update):
    loss = loss_at(small, center_update=update)
    loss(small["features"], small["target"])
    assert torch.equal(loss.centers, small["centers"])


@pytest.mark.parametrize("update", ["paper", "gradient"])
def test_an_optimiser_of_everything_never_touches_the_centers(small, update):
    loss = loss_at(small, center_update=update)
    model = nn.ModuleList([nn.Linear(5, 5).double(), loss])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=0.5)
    for _ in range(2):
        loss(model[0](small["features"]), small["target"]).backward()
        optimizer.step()
    assert torch.equal(loss.centers, small["centers"])


def test_the_state_dict_holds_the_centers_and_restores_them(small):
    loss = loss_at(small, center_step_limit=0.01)
    loss.update_centers(small["features"], small["target"])
    other = WeightedClusterLoss(8, 5, small["class_weights"], center_init="class_means").double()
    assert other.needs_class_means
    other.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert torch.equal(other.centers, loss.centers)
    assert int(other.limited_steps) == int(loss.limited_steps) > 0
    assert not other.needs_class_means


def test_class_means_must_be_set_before_use(small):
    loss = WeightedClusterLoss(8, 5, small["class_weights"], center_init="class_means").double()
    with pytest.raises(RuntimeError, match="set_centers"):
        loss(small["features"], small["target"])
    loss.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert loss.needs_class_means
    with pytest.raises(ValueError, match=r"classes \[3\]"):
        loss.set_centers(torch.where(torch.arange(8)[:, None] == 3, torch.nan, small["centers"]))
    loss.set_centers(small["centers"])
    assert loss(small["features"], small["target"]) > 0


def test_the_normal_start_is_standard_normal_and_depends_on_the_seed_alone():
    first, same, other = (WeightedClusterLoss(8, 512, torch.ones(8), seed=seed).centers for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert abs(float(first.mean())) < 0.05
    assert abs(float(first.std()) - 1) < 0.05
    assert torch.equal(WeightedClusterLoss(8, 4, torch.ones(8), center_init="zeros").centers, torch.zeros(8, 4))


def test_l2_norm_makes_the_length_of_features_and_centers_irrelevant(small):
    loss = loss_at(small, feature_norm="l2")
    features, target = small["features"], small["target"]
    unit_x, unit_c = (v / v.norm(dim=1, keepdim=True) for v in (features, small["centers"]))
    torch.testing.assert_close(
        loss(3 * features, target), weighted_cluster_loss(unit_x, target, unit_c, small["class_weights"])
    )
    loss.update_centers(5 * features, target)
    wanted = reference_cluster_step(*(v.tolist() for v in (unit_x, target, unit_c, small["class_weights"])))
    present = target.unique()
    torch.testing.assert_close(loss.centers[present], torch.tensor(wanted)[present])


def test_alpha_by_features_makes_the_loss_independent_of_their_scale(small):
    for scale in (1e-3, 1.0, 1e3):
        loss = loss_at(small, alpha=0.5, alpha_scale="features")
        loss.set_centers(scale * small["centers"])
        got = loss(scale * small["features"], small["target"])
        alpha = 0.5 * float(small["features"].square().sum(dim=1).mean())
        wanted = weighted_cluster_loss(*arguments(small), alpha)
        torch.testing.assert_close(got, wanted)
        assert float(loss.last_alpha) == pytest.approx(alpha * scale**2)


def test_alpha_by_features_survives_features_of_zero():
    loss = WeightedClusterLoss(2, 3, torch.ones(2), alpha_scale="features", center_init="zeros")
    assert loss(torch.zeros(2, 3), torch.tensor([0, 1])) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_computed_in_float32(dtype):
    features = (300 * torch.ones(2, 8)).to(dtype)  # 300² overflows float16
    got = weighted_cluster_loss(features, torch.tensor([0, 1]), torch.zeros(2, 8), torch.ones(2))
    assert got.dtype == torch.float32
    assert got == pytest.approx(0.5 * 8 * 300**2, rel=1e-6 if dtype == torch.float16 else 1e-2)


def test_autocast_does_not_lower_the_precision(small):
    features = small["features"].float()
    loss = loss_at(small).float()
    wanted = loss(features, small["target"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss(features, small["target"])
        loss.update_centers(features, small["target"])
    assert torch.equal(got, wanted)
    other = loss_at(small).float()
    other.update_centers(features, small["target"])
    assert torch.equal(loss.centers, other.centers)


def test_compiles_without_a_graph_break(small):
    explanation = torch._dynamo.explain(weighted_cluster_loss)(*arguments(small))
    assert explanation.graph_break_count == 0
