"""BatchNorm over all processes, as far as it goes without GPUs: what is converted, and what stays."""

import pytest
import torch
from torch import nn

from affectflow.models import ExpressionModel, create_backbone
from affectflow.training.distributed import share_batchnorm


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv1_100", "legacy_seresnext26_32x4d"])
@pytest.mark.parametrize("keep", ["frozen", "all", "none"])
def test_layers_are_converted_in_place_and_keep_names_values_and_modes(backbone: str, keep: str) -> None:
    model = ExpressionModel(create_backbone(backbone), feature_dim=16)
    model.freeze(3, keep)
    model.train()
    images = torch.randn(2, 3, 64, 64)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    modes = {name: module.training for name, module in model.named_modules()}
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    model.eval()
    wanted = model(images)
    model.train()

    share_batchnorm(model)

    converted = {name for name, module in model.named_modules() if isinstance(module, nn.SyncBatchNorm)}
    assert converted == norms
    assert not any(type(module) is nn.BatchNorm2d for module in model.modules())
    for _ in range(2):
        assert {name: module.training for name, module in model.named_modules() if name in modes} == modes
        model.train()
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert {n: p.requires_grad for n, p in model.named_parameters()} == {
        n: p.requires_grad for n, p in parameters.items()
    }
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    model.eval()
    torch.testing.assert_close(model(images), wanted)
