"""Folded frozen stages compute the same, and leave no trace."""

import copy

import pytest
import torch
from torch import nn

from affectflow.models import ExpressionModel, create_backbone, folded_batchnorms


def model_of(backbone: str, stages: int = 3, keep_batchnorm: str = "frozen") -> ExpressionModel:
    torch.manual_seed(0)
    model = ExpressionModel(create_backbone(backbone), feature_dim=16)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
    model.freeze(stages, keep_batchnorm)
    return model.train()


@pytest.mark.parametrize(
    ("backbone", "folded"), [("legacy_seresnet50", 24), ("resnet10t", 8), ("mobilenetv1_100", 11)]
)
def test_outputs_and_gradients_are_the_plain_ones(backbone: str, folded: int) -> None:
    """In float64, where rounding hides no difference: two steps' outputs, gradients and running statistics."""
    model = model_of(backbone).double()
    plain = copy.deepcopy(model)
    images = torch.randn(3, 3, 48, 48, dtype=torch.float64)
    with folded_batchnorms(model, images[:1]) as number:
        assert number == folded
        outputs = two_steps(model, images)
    for one, other in zip(outputs, two_steps(plain, images), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-9)
    assert list(model.state_dict()) == list(plain.state_dict())
    for tensor, other in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=1e-9, atol=1e-9)


def two_steps(model: ExpressionModel, images: torch.Tensor) -> list[torch.Tensor]:
    for _ in range(2):
        outputs = model(images)
        outputs[0].square().sum().backward()
    return list(outputs)


@pytest.mark.parametrize("backbone", ["legacy_seresnet50", "mobilenetv1_100"])
def test_outputs_in_float32_are_the_plain_ones_to_rounding(backbone: str) -> None:
    model = model_of(backbone).eval()
    images = torch.randn(3, 3, 48, 48)
    wanted = model(images)
    with folded_batchnorms(model, images[:1]) as number:
        assert number > 0
        assert not model.training
        for one, other in zip(model(images), wanted, strict=True):
            assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_frozen_batchnorm_does_no_work_and_all_is_as_before_afterwards() -> None:
    model = model_of("resnet10t")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.randn(1, 3, 64, 64)
    with folded_batchnorms(model, images):
        x = torch.randn(1, model.backbone.bn1.num_features, 4, 4)
        assert torch.equal(model.backbone.bn1(x), x)
        assert list(model.state_dict()) == list(before)
    assert not torch.equal(model.backbone.bn1(x), x)
    assert model.training and not model.backbone.bn1.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("stages", "keep_batchnorm"), [(0, "frozen"), (3, "none")])
def test_what_trains_or_takes_batch_statistics_is_not_folded(stages: int, keep_batchnorm: str) -> None:
    with folded_batchnorms(model_of("resnet10t", stages, keep_batchnorm), torch.randn(1, 3, 64, 64)) as number:
        assert number == 0


def test_a_batchnorm_behind_something_else_is_not_folded() -> None:
    class Behind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.requires_grad_(False)

        def train(self, mode: bool = True) -> "Behind":
            super().train(mode)
            self.norm.eval()
            return self

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.norm(self.conv(images).relu())

    with folded_batchnorms(Behind().train(), torch.randn(1, 3, 8, 8)) as number:
        assert number == 0


def test_where_the_outputs_would_differ_nothing_is_folded() -> None:
    """The convolution's output is used once more, past the BatchNorm layer."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.norm.running_var.fill_(4.0)
            self.requires_grad_(False)

        def train(self, mode: bool = True) -> "Both":
            super().train(mode)
            self.norm.eval()
            return self

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            made = self.conv(images)
            return made + self.norm(made)

    model = Both().train()
    with folded_batchnorms(model, torch.randn(1, 3, 8, 8)) as number:
        assert number == 0
        assert "forward" not in model.conv.__dict__
