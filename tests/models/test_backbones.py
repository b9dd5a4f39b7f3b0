import pytest
import torch

from affectflow.models import PAPER_BACKBONES, ExpressionModel, create_backbone, feature_width, timm_name

#: Table 2: side of the output at an input of 224, by stage.
SIDES = [112, 56, 28, 14, 7]
#: Parameters of the whole network of Table 2 with 512-d and 8-class layers.
PARAMETERS = {"se_resnet50": 26_039_024 + 2048 * 512 + 512 + 512 * 8 + 8, "resnet50": 24_561_224}


@pytest.fixture(scope="module", params=PAPER_BACKBONES)
def paper(request):
    return request.param, create_backbone(request.param).eval()


@torch.no_grad()
def test_shapes_at_224_are_those_of_table_2(paper):
    _, backbone = paper
    sides = {}
    for stage, info in enumerate(backbone.feature_info, start=1):
        module = backbone.get_submodule(info["module"])
        module.register_forward_hook(lambda _m, _i, out, s=stage: sides.update({s: (out.shape[-1], out.shape[1])}))
    features = backbone(torch.zeros(1, 3, 224, 224))
    assert [sides[s] for s in range(1, 6)] == list(zip(SIDES, [64, 256, 512, 1024, 2048], strict=True))
    assert features.shape == (1, 2048)
    assert feature_width(backbone) == 2048


def test_blocks_and_parameters_are_those_of_table_2(paper):
    name, backbone = paper
    assert [len(getattr(backbone, f"layer{i}")) for i in (1, 2, 3, 4)] == [3, 4, 6, 3]
    model = ExpressionModel(backbone)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert tuple(model.feature.weight.shape) == (512, 2048)
    assert tuple(model.output.weight.shape) == (8, 512)


@pytest.mark.parametrize("name", ["se_resnet50", "legacy_seresnet50.in1k"])
def test_se_resnet50_is_the_caffe_form_without_dropout(name):
    backbone = create_backbone(name)
    assert timm_name("se_resnet50") == "legacy_seresnet50"
    assert backbone.layer2[0].conv1.stride == (2, 2)
    assert backbone.layer2[0].conv2.stride == (1, 1)
    assert (backbone.pool0.ceil_mode, backbone.pool0.padding) == (True, 0)
    assert backbone.drop_rate == 0
    assert backbone.layer1[0].se_module.fc1.bias is not None


@pytest.mark.parametrize(
    "name", ["mobilenetv1_100", "mobilenetv3_small_050", "resnet18", "regnetx_002", "convnext_atto", "test_vit"]
)
def test_other_models_of_timm_give_features_of_the_width_they_say(name):
    backbone = create_backbone(name).eval()
    side = 160 if name == "test_vit" else 64
    assert backbone(torch.zeros(2, 3, side, side)).shape == (2, feature_width(backbone))


def test_backbone_args_reach_timm():
    assert create_backbone("mobilenetv1_100", {"pad_type": "same"}).conv_stem.__class__.__name__ == "Conv2dSame"


def test_an_unknown_name_lists_close_ones():
    with pytest.raises(ValueError, match=r"backbone: got 'seresnet-50'.*did you mean .*se_?resnet50"):
        create_backbone("seresnet-50")


@pytest.mark.parametrize("args", [{"pad_typ": "same"}, {"num_classes": 8}, {"pretrained": True}])
def test_arguments_that_the_backbone_cannot_take_are_refused(args):
    with pytest.raises(ValueError, match=f"backbone_args: got .*{next(iter(args))}"):
        create_backbone("mobilenetv1_100", args)


def test_a_refusal_names_what_was_asked_for_alone():
    with pytest.raises(ValueError, match=r'^backbone_args: got \{"pad_typ": "same"\}, wanted'):
        create_backbone("se_resnet50", {"pad_typ": "same"})
