import pytest
import torch
from torch.nn import functional

from affectflow.models import ExpressionModel, create_backbone


@pytest.mark.parametrize("activation", ["relu", "none"])
def test_features_are_what_the_output_layer_sees(activation):
    model = ExpressionModel(create_backbone("test_resnet"), 5, 16, activation=activation).eval()
    images = torch.randn(3, 3, 32, 32)
    logits, features = model(images)
    assert logits.shape == (3, 5)
    assert features.shape == (3, 16)
    torch.testing.assert_close(logits, functional.linear(features, model.output.weight, model.output.bias))
    linear = functional.linear(model.backbone(images), model.feature.weight, model.feature.bias)
    torch.testing.assert_close(features, linear.relu() if activation == "relu" else linear)
    assert bool((features < 0).any()) == (activation == "none")


def test_dropout_acts_on_the_logits_in_training_alone_and_never_on_the_features():
    model = ExpressionModel(create_backbone("test_resnet"), dropout=0.5)
    model.backbone.eval()
    images = torch.randn(2, 3, 32, 32)
    (first, features), (second, same) = model(images), model(images)
    assert torch.equal(features, same)
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(images)[0], model(images)[0])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"activation": "gelu"}, "activation: got 'gelu', wanted one of relu, none"),
        ({"dropout": 1.0}, "dropout: got 1, wanted a share"),
        ({"num_classes": 0}, "num_classes and feature_dim: got 0 and 512"),
    ],
)
def test_wrong_settings_are_refused(settings, line):
    with pytest.raises(ValueError, match=line):
        ExpressionModel(create_backbone("test_resnet"), **settings)
