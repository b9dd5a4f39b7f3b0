import pytest
import torch
from loss_reference import reference_center, reference_center_step, reference_reduce

from affectflow.losses import CenterLoss, center_loss


@pytest.mark.parametrize("reduction", ["weighted_mean", "mean", "sum"])
def test_center_loss_is_the_hand_written_sum(batch, reduction):
    got = center_loss(batch["features"], batch["target"], batch["centers"], reduction)
    losses = reference_center(*(batch[k].tolist() for k in ("features", "target", "centers")))
    assert float(got) == pytest.approx(reference_reduce(losses, reduction), rel=1e-12)


def test_gradients_are_those_of_finite_differences(small):
    inputs = (small["features"].clone().requires_grad_(), small["centers"].clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda x, c: center_loss(x, small["target"], c), inputs)


def test_the_published_step_is_wens_equation_4_by_hand(batch):
    classes, width = batch["centers"].shape
    loss = CenterLoss(classes, width).double()
    loss.set_centers(batch["centers"])
    loss.step_centers(batch["features"], batch["target"])
    wanted = reference_center_step(*(batch[k].tolist() for k in ("features", "target", "centers")))
    torch.testing.assert_close(loss.centers, torch.tensor(wanted), rtol=1e-10, atol=1e-14)


def test_the_gradient_step_is_gamma_times_the_gradient(small):
    loss = CenterLoss(8, 5, gamma=0.3, center_update="gradient").double()
    loss.set_centers(small["centers"])
    (7 * loss(small["features"], small["target"])).backward()
    loss.step_centers(small["features"], small["target"])
    centers = small["centers"].clone().requires_grad_()
    (7 * center_loss(small["features"], small["target"], centers)).backward()
    torch.testing.assert_close(loss.centers, small["centers"] - 0.3 * centers.grad)


def test_order_of_the_batch_and_shifts_of_features_and_centers_do_not_matter(small):
    features, target, centers = small["features"], small["target"], small["centers"]
    whole = center_loss(features, target, centers)
    order = torch.randperm(len(target))
    torch.testing.assert_close(center_loss(features[order], target[order], centers), whole)
    torch.testing.assert_close(center_loss(features + 17, target, centers + 17), whole)


def test_a_center_moves_towards_the_mean_of_its_class_and_absent_classes_stay(small):
    target = small["target"].clone()
    target[target == 6] = 1
    loss = CenterLoss(8, 5).double()
    loss.set_centers(small["centers"])
    loss.step_centers(small["features"], target)
    for j in range(8):
        mine = small["features"][target == j]
        if len(mine):
            before, after = (torch.dist(c[j], mine.mean(dim=0)) for c in (small["centers"], loss.centers))
            assert after < before
        else:
            assert torch.equal(loss.centers[j], small["centers"][j])


@pytest.mark.parametrize("update", ["paper", "gradient"])
def test_neither_forward_nor_evaluation_moves_a_center(small, update):
    loss = CenterLoss(8, 5, center_update=update).double()
    loss.set_centers(small["centers"])
    loss(small["features"], small["target"])
    assert torch.equal(loss.centers, small["centers"])
    loss.eval()
    loss(small["features"].clone().requires_grad_(), small["target"]).backward()
    loss.step_centers(small["features"], small["target"])
    assert torch.equal(loss.centers, small["centers"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_computed_in_float32(dtype):
    features = (300 * torch.ones(2, 8)).to(dtype)  # 300² overflows float16
    got = center_loss(features, torch.tensor([0, 1]), torch.zeros(2, 8))
    assert got.dtype == torch.float32
    assert got == pytest.approx(0.5 * 8 * 300**2, rel=1e-2)
