"""The block of SE-ResNets says what timm's says, forwards and backwards."""

import pytest
import timm
import torch
from torch import nn

from affectflow.models import ExpressionModel, create_backbone, folded_batchnorms
from affectflow.training.inference import autocast

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)).contiguous(
    memory_format=torch.channels_last
)


@pytest.fixture
def networks() -> tuple[nn.Module, nn.Module]:
    """Return ours and timm's with the same weights, none of them symmetric."""
    torch.manual_seed(1)
    ours = create_backbone("se_resnet50")
    theirs = timm.create_model("legacy_seresnet50", num_classes=0, drop_rate=0.0)
    with torch.no_grad():
        for module in ours.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.2, 0.6)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    theirs.load_state_dict(ours.state_dict())
    return tuple(network.to(memory_format=torch.channels_last) for network in (ours, theirs))


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_features_are_those_of_timm(networks, mode):
    ours, theirs = (network.eval() for network in networks)
    with mode():
        assert error(ours(IMAGES), theirs(IMAGES)) < 1e-5


def test_training_moves_weights_and_statistics_as_with_timm(networks):
    directions = torch.randn(4, 2048, generator=torch.Generator().manual_seed(2))
    # In float64, since batch statistics of four small pictures enlarge what rounding does.
    ours, theirs = (network.double().train() for network in networks)
    for network in (ours, theirs):
        (network(IMAGES.double()) * directions).sum().backward()
    for (name, found), wanted in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert error(found.grad, wanted.grad) < 1e-8, name
    for (name, found), wanted in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-10), name


def test_gradient_passes_through_to_the_images(networks):
    ours, theirs = (network.double().eval() for network in networks)
    gradients = []
    for network in (ours, theirs):
        images = IMAGES.double().requires_grad_()
        network(images).square().sum().backward()
        gradients.append(images.grad)
    assert error(*gradients) < 1e-8


def test_gates_can_train_alone(networks):
    """Their gradient needs the residual, which must not be overwritten then."""
    gradients = []
    for network in (network.double().eval() for network in networks):
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith("layer1.0.se_module"))
        network(IMAGES.double()).square().sum().backward()
        gradients.append(network.layer1[0].se_module.fc1.weight.grad)
    assert error(*gradients) < 1e-8


def test_a_step_in_bfloat16_with_frozen_and_folded_stages_is_timms_to_rounding(networks):
    """As ``fine_tune`` runs it; the yardstick is how far timm's own gradients in bfloat16 are from float32's."""
    gradients = []
    for network, precision in ((networks[0], "bfloat16"), (networks[1], "bfloat16"), (networks[1], "float32")):
        torch.manual_seed(3)
        model = ExpressionModel(network, feature_dim=16).train()
        model.freeze(3, keep_batchnorm="all")
        model.zero_grad()
        with folded_batchnorms(model, IMAGES[:1]) as folded, autocast(torch.device("cpu"), precision):
            assert folded
            logits, _ = model(IMAGES)
            logits.float().square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.backbone.parameters() if p.grad is not None]))
    ours, theirs, wanted = gradients
    usual = float((theirs - wanted).norm() / wanted.norm())
    assert float((ours - wanted).norm() / wanted.norm()) < 1.2 * usual
    assert usual < 0.1


def test_bfloat16_is_as_near_to_float32_as_timms(networks):
    ours, theirs = (network.eval() for network in networks)
    with torch.no_grad():
        wanted = theirs(IMAGES)
        with torch.autocast("cpu", torch.bfloat16):
            far, usual = (error(network(IMAGES).float(), wanted) for network in (ours, theirs))
    assert far < 1.2 * usual
    assert usual < 0.1
