import pytest
import torch
from loss_reference import reference_reduce, reference_softmax
from torch.nn import functional

from affectflow.losses import SoftmaxLoss, WeightedSoftmaxLoss, softmax_loss, weighted_softmax_loss


@pytest.mark.parametrize("reduction", ["weighted_mean", "mean", "sum"])
def test_softmax_is_the_hand_written_sum(batch, reduction):
    got = softmax_loss(batch["logits"], batch["target"], reduction)
    wanted = reference_reduce(reference_softmax(batch["logits"].tolist(), batch["target"].tolist()), reduction)
    assert float(got) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("reduction", ["weighted_mean", "mean", "sum"])
def test_weighted_softmax_is_the_hand_written_sum(batch, reduction):
    target = batch["target"].tolist()
    weights = [float(batch["class_weights"][y]) for y in target]
    losses = [w * v for w, v in zip(weights, reference_softmax(batch["logits"].tolist(), target), strict=True)]
    got = weighted_softmax_loss(batch["logits"], batch["target"], batch["class_weights"], reduction)
    assert float(got) == pytest.approx(reference_reduce(losses, reduction, weights), rel=1e-12)


def test_weighted_mean_is_torchs_weighted_cross_entropy(batch):
    wanted = functional.cross_entropy(batch["logits"], batch["target"], weight=batch["class_weights"])
    got = weighted_softmax_loss(batch["logits"], batch["target"], batch["class_weights"])
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)


def test_gradients_are_those_of_finite_differences(small):
    inputs = (small["logits"].clone().requires_grad_(), small["class_weights"].clone().requires_grad_())
    for reduction in ("weighted_mean", "mean", "sum"):
        assert torch.autograd.gradcheck(
            lambda z, w, r=reduction: weighted_softmax_loss(z, small["target"], w, r), inputs
        )
        assert torch.autograd.gradcheck(lambda z, r=reduction: softmax_loss(z, small["target"], r), inputs[:1])


def test_modules_are_the_functions(small):
    logits, target, weights = small["logits"], small["target"], small["class_weights"]
    assert SoftmaxLoss("sum")(logits, target) == softmax_loss(logits, target, "sum")
    assert WeightedSoftmaxLoss(weights)(logits, target) == weighted_softmax_loss(logits, target, weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(small, dtype):
    logits = small["logits"].to(dtype)
    got = weighted_softmax_loss(logits, small["target"], small["class_weights"])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, weighted_softmax_loss(logits.float(), small["target"], small["class_weights"]))


def test_order_of_the_batch_and_shifts_of_the_logits_do_not_matter(small):
    logits, target, weights = small["logits"], small["target"], small["class_weights"]
    whole = weighted_softmax_loss(logits, target, weights)
    order = torch.randperm(len(target))
    torch.testing.assert_close(weighted_softmax_loss(logits[order], target[order], weights), whole)
    torch.testing.assert_close(weighted_softmax_loss(logits + 17, target, weights), whole)
