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
