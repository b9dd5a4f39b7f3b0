import pytest
import torch
from torch import nn

from affectflow.models import ExpressionModel, create_backbone, freeze_stages, stage_of_parameters
from affectflow.models.freezing import stage_of_modules

#: Parameters by stage.
COUNTS = {
    "se_resnet50": [9536, 241_200, 1_352_832, 7_891_328, 16_544_128],
    "resnet50": [9536, 215_808, 1_219_584, 7_098_368, 14_964_736],
    "mobilenetv1_100": [3456, 27_200, 103_552, 1_478_912, 1_593_856],
}
STEMS = {"se_resnet50": "layer0.", "resnet50": ("conv1.", "bn1.")}


@pytest.mark.parametrize("name", COUNTS)
def test_stages_hold_the_parameters_of_table_2(name):
    backbone = create_backbone(name)
    counts = dict.fromkeys(range(1, 7), 0)
    for key, stage in stage_of_parameters(backbone).items():
        counts[stage] += backbone.get_parameter(key).numel()
    assert list(counts.values()) == [*COUNTS[name], 0]


@pytest.mark.parametrize("name", STEMS)
def test_stages_are_conv1_to_conv5_x(name):
    for key, stage in stage_of_parameters(create_backbone(name)).items():
        assert key.startswith(STEMS[name] if stage == 1 else f"layer{stage - 1}."), key


@pytest.mark.parametrize(
    "name", ["resnet18", "efficientnet_b0", "mobilenetv3_small_050", "regnetx_002", "densenet121"]
)
def test_stages_follow_the_order_in_which_the_network_runs(name):
    backbone = create_backbone(name).eval()
    order = []
    stages = stage_of_modules(backbone)
    for key, module in backbone.named_modules():
        if key in stages and list(module.parameters(recurse=False)):
            module.register_forward_hook(lambda *_, key=key: order.append(stages[key]))
    with torch.no_grad():
        backbone(torch.zeros(1, 3, 64, 64))
    assert order == sorted(order)
    assert set(order) >= {1, 2, 3, 4, 5}


@pytest.mark.parametrize("stages", range(6))
def test_frozen_stages_take_no_gradient_and_the_others_do(stages):
    model = ExpressionModel(create_backbone("resnet10t"))
    frozen = model.freeze(stages)
    logits, _ = model(torch.randn(2, 3, 32, 32))
    logits.sum().backward()
    of = stage_of_parameters(model.backbone)
    for key, parameter in model.backbone.named_parameters():
        assert parameter.requires_grad == (of[key] > stages)
        assert (parameter.grad is None) == (of[key] <= stages)
    assert set(frozen.parameters) == {key for key, stage in of.items() if stage <= stages}
    assert model.feature.weight.grad is not None


def test_frozen_stages_run_without_a_graph():
    model = ExpressionModel(create_backbone("resnet10t"))
    model.freeze(3)
    graphs = {}
    for name in ("layer1", "layer2", "layer3"):
        model.backbone.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: graphs.update({name: out.grad_fn is not None})
        )
    model(torch.randn(2, 3, 32, 32))
    assert graphs == {"layer1": False, "layer2": False, "layer3": True}


@pytest.mark.parametrize("keep", ["frozen", "all", "none"])
def test_batchnorm_keeps_its_statistics_where_it_is_told_to(keep):
    model = ExpressionModel(create_backbone("resnet10t"))
    frozen = model.freeze(3, keep_batchnorm=keep)
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    nn.ModuleList([model]).train()  # as a wrapper's train() reaches it
    model(torch.randn(4, 3, 32, 32))
    of = stage_of_modules(model.backbone)
    norms = [key for key, m in model.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)]
    for key in norms:
        moved = not torch.equal(before[f"{key}.running_mean"], model.backbone.get_buffer(f"{key}.running_mean"))
        assert moved == {"frozen": of[key] > 3, "all": False, "none": True}[keep], key
    assert set(frozen.batch_norms) == {key for key in norms if of[key] <= 3}


def test_thawing_undoes_a_freeze():
    model = ExpressionModel(create_backbone("resnet10t"))
    model.freeze(5)
    model.freeze(0)
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())


def test_evaluation_stays_evaluation_when_frozen():
    model = ExpressionModel(create_backbone("resnet10t")).eval()
    model.freeze(2)
    assert not any(m.training for m in model.modules())


@pytest.mark.parametrize("stages", [-1, 6])
def test_another_number_of_stages_is_refused(stages):
    with pytest.raises(ValueError, match=f"frozen stages: got {stages}, wanted 0 to 5"):
        freeze_stages(create_backbone("resnet10t"), stages)


@pytest.mark.parametrize("name", ["convnext_atto", "levit_128s"])
def test_a_backbone_of_fewer_levels_has_as_many_stages(name):
    backbone = create_backbone(name)
    levels = len(backbone.feature_info)
    frozen = freeze_stages(backbone, levels - 1)
    last = backbone.feature_info[levels - 1]["module"]
    assert any(key.startswith("stem.") for key in frozen.parameters)
    trained = {key for key, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert trained.isdisjoint(frozen.parameters)
    assert any(key.startswith(f"{last}.") for key in trained)
    assert not any(key.startswith(f"{last}.") for key in frozen.parameters)
    with pytest.raises(
        ValueError, match=rf"to freeze: got 5, wanted 0 to {levels}, as it has {levels} .*freeze fewer"
    ):
        freeze_stages(backbone, 5)


def test_a_backbone_whose_levels_are_not_in_order_is_refused_unless_none_is_frozen():
    backbone = create_backbone("hrnet_w18_small")
    freeze_stages(backbone, 0)
    with pytest.raises(ValueError, match=r"stages of HighResolutionNet.*: got .*, wanted stages in order"):
        freeze_stages(backbone, 1)


def test_another_choice_of_batchnorm_is_refused():
    with pytest.raises(ValueError, match="keep_batchnorm: got 'freeze', wanted one of frozen, all, none"):
        ExpressionModel(create_backbone("resnet10t")).freeze(1, keep_batchnorm="freeze")
