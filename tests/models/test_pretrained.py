import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from vggface2_files import caffe_state, numpy_state, python2_pickle, random_state

from affectflow.errors import WeightsError
from affectflow.models import (
    IMAGENET,
    InputNorm,
    PretrainedInfo,
    choose_input_norm,
    create_backbone,
    load_pretrained,
    merge_backbone_args,
    normalize_batch,
    read_weights_metadata,
)
from affectflow.models.pretrained import parse_timm_kwargs

CLASSES = 20  # 8,631 in the published files
RGB = InputNorm((131.0912, 103.8827, 91.4953), (1.0, 1.0, 1.0))
BGR = InputNorm((91.4953, 103.8827, 131.0912), (1.0, 1.0, 1.0), bgr=True)
FORMS = {
    # name: (form found, entries, native input, writer of the file)
    "timm.pth": ("timm", 384, IMAGENET, torch.save),
    "timm.safetensors": ("timm", 384, IMAGENET, lambda state, file: save_file(state, file)),
    "timm-checkpoint.pth": (
        "timm",
        384,
        IMAGENET,
        lambda s, f: torch.save({"epoch": 3, "state_dict": {f"module.{n}": t for n, t in s.items()}}, f),
    ),
    "senet50_ft_dag.pth": (
        "dag",
        331,
        RGB,
        lambda s, f: torch.save(caffe_state(s), f, _use_new_zipfile_serialization=False),
    ),
    "senet50_ft_pytorch.pth": ("oxford", 331, RGB, lambda s, f: torch.save(caffe_state(s, "classifier_1"), f)),
    "senet50_ft_weight.pkl": (
        "numpy-pickle",
        331,
        BGR,
        lambda s, f: Path(f).write_bytes(python2_pickle(numpy_state(s))),
    ),
    "senet50_ft_weight-protocol4.pkl": (
        "numpy-pickle",
        331,
        BGR,
        lambda s, f: Path(f).write_bytes(pickle.dumps(numpy_state(s), protocol=4)),
    ),
}


@pytest.fixture(scope="module")
def original():
    """A Caffe-form SE-ResNet-50 of random values, with its classifier."""
    model = timm.create_model("legacy_seresnet50", num_classes=CLASSES, drop_rate=0.0)
    model.load_state_dict(random_state(model))
    return model.eval()


@pytest.fixture(scope="module", params=FORMS)
def form(request, original, tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / request.param
    name, entries, norm, write = FORMS[request.param]
    write(original.state_dict(), file)
    return file, name, entries, norm


@pytest.fixture(scope="module")
def image():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_every_form_maps_all_entries_and_gives_equal_logits(form, original, image):
    file, name, entries, norm = form
    copy = timm.create_model("legacy_seresnet50", num_classes=CLASSES, drop_rate=0.0).eval()
    info = load_pretrained(copy, file, "se_resnet50")
    assert (info.format, info.entries, info.native_norm, info.classifier_left_out) == (name, entries, norm, ())
    for key, tensor in copy.state_dict().items():
        if entries == 384 or not key.endswith("num_batches_tracked"):
            assert torch.equal(tensor, original.state_dict()[key]), key
    torch.testing.assert_close(copy(image), original(image), rtol=0, atol=1e-5)


@torch.no_grad()
def test_every_form_loads_into_a_backbone_and_leaves_its_classifier_out(form, original, image):
    file, _, entries, _ = form
    backbone = create_backbone("se_resnet50").eval()
    info = load_pretrained(backbone, file, "se_resnet50")
    assert info.entries == entries - 2
    assert info.classifier_left_out == ("last_linear.bias", "last_linear.weight")
    wanted = original.forward_head(original.forward_features(image), pre_logits=True)
    torch.testing.assert_close(backbone(image), wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_native_input_is_what_each_forms_own_code_feeds(form, original):
    """Pixels less the mean, channels in the form's order; zero padding then pads with the mean face's grey."""
    file, _, _, norm = form
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    backbone = create_backbone("se_resnet50").eval()
    info = load_pretrained(backbone, file, "se_resnet50")
    if norm == IMAGENET:
        mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        fed = (pixels / 255 - mean) / std
    else:
        red, green, blue = (pixels[:, channel].float() for channel in range(3))
        planes = [red - 131.0912, green - 103.8827, blue - 91.4953]
        fed = torch.stack(planes[::-1] if norm.bgr else planes, dim=1)
    wanted = original.forward_head(original.forward_features(fed), pre_logits=True)
    got = backbone(normalize_batch(pixels, choose_input_norm("native", info)))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    assert choose_input_norm("paper", info) == IMAGENET


def test_names_of_one_form_under_anothers_file_are_still_mapped(original, tmp_path):
    save_file(
        {n: t.contiguous() for n, t in caffe_state(original.state_dict()).items()}, tmp_path / "w.safetensors"
    )
    assert (
        load_pretrained(create_backbone("se_resnet50"), tmp_path / "w.safetensors", "se_resnet50").format == "dag"
    )


@pytest.mark.parametrize("counters", [True, False])
def test_torchvisions_resnet50_names_fit_ours(counters, tmp_path):
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet50(weights=None).eval()
    state = {n: t for n, t in random_state(theirs).items() if counters or not n.endswith("num_batches_tracked")}
    theirs.load_state_dict(state, strict=False)
    torch.save(state, tmp_path / "resnet50.pth")
    ours = create_backbone("resnet50").eval()
    info = load_pretrained(ours, tmp_path / "resnet50.pth", "resnet50")
    assert info.entries == (318 if counters else 265)
    assert info.native_norm == IMAGENET
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(theirs.fc(ours(images)), theirs(images), rtol=0, atol=1e-4)


def test_folded_batchnorm_is_noticed_and_real_statistics_are_not_taken_for_it(tmp_path):
    model = create_backbone("test_resnet")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}  # fresh: mean 0, variance 1
    save_file(state, tmp_path / "folded.safetensors")
    state["bn1.running_var"] += 0.5
    save_file(state, tmp_path / "trained.safetensors")
    assert load_pretrained(model, tmp_path / "folded.safetensors", "test_resnet").folded_batchnorm
    assert not load_pretrained(model, tmp_path / "trained.safetensors", "test_resnet").folded_batchnorm


def test_float16_weights_become_float32(tmp_path):
    model = create_backbone("test_resnet")
    state = {n: t.half() if t.is_floating_point() else t for n, t in random_state(model).items()}
    save_file(state, tmp_path / "half.safetensors")
    load_pretrained(model, tmp_path / "half.safetensors", "test_resnet")
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32, torch.int64}
    assert torch.equal(model.state_dict()["conv1.0.weight"], state["conv1.0.weight"].float())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda s: s.pop("layer2.0.conv2.weight"), r"entries 1 missing, e\.g\. layer2\.0\.conv2\.weight, wanted"),
        (lambda s: s.update({"layer9.weight": torch.ones(1)}), r"entries 1 left over, e\.g\. layer9\.weight"),
        (
            lambda s: s.update({"bn1.weight2": s.pop("bn1.weight")}),
            r"1 missing, e\.g\. bn1\.weight; 1 left over, e\.g\. bn1\.weight2",
        ),
        (lambda s: s.update({"bn1.weight": torch.ones(3)}), r"entries 1 of another shape, e\.g\. bn1\.weight"),
        (
            lambda s: s.update({"bn1.weight": s["bn1.weight"] * torch.nan}),
            "values in 'bn1.weight' that are not finite",
        ),
        (lambda s: s.update({"bn1.weight": 3.0}), "an entry 'bn1.weight' of type float"),
        (lambda s: s.clear(), "instead of named weights"),
    ],
)
def test_a_file_that_fits_in_part_names_what_does_not(change, line, tmp_path):
    model = create_backbone("resnet10t", {"stem_type": ""})
    state = random_state(model)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    change(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=line) as caught:
        load_pretrained(model, tmp_path / "w.pth", "resnet10t")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_weights_of_another_network_are_refused(original, tmp_path):
    Path(tmp_path / "w.pkl").write_bytes(python2_pickle(numpy_state(original.state_dict())))
    with pytest.raises(WeightsError, match="got weights of legacy_seresnet50, wanted weights of resnet50"):
        load_pretrained(create_backbone("resnet50"), tmp_path / "w.pkl", "resnet50")


def test_an_entry_with_and_without_the_prefix_of_parallel_training_is_refused(tmp_path):
    backbone = create_backbone("test_resnet")
    state = backbone.state_dict()
    torch.save({**state, **{f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "both.pth")
    with pytest.raises(WeightsError, match=r"two entries '.*', one of them under 'module\.'"):
        load_pretrained(backbone, tmp_path / "both.pth", "test_resnet")


def test_a_missing_or_broken_file_is_named(tmp_path):
    backbone = create_backbone("test_resnet")
    with pytest.raises(WeightsError, match="no such file"):
        load_pretrained(backbone, tmp_path / "none.pth", "test_resnet")
    state = random_state(backbone)
    torch.save(state, tmp_path / "whole.pth")
    save_file(state, tmp_path / "whole.safetensors")
    (tmp_path / "whole.pkl").write_bytes(pickle.dumps({n: t.numpy() for n, t in state.items()}))
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("whole.pth", "whole.safetensors", "whole.pkl", "old.pth"):
        cut = tmp_path / f"cut-{name}"
        cut.write_bytes((tmp_path / name).read_bytes()[:1000])
        with pytest.raises(WeightsError, match=f"cut-{name}"):
            load_pretrained(backbone, cut, "test_resnet")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match="empty"):
        load_pretrained(backbone, tmp_path / "empty.pth", "test_resnet")


class RunsCode:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


@pytest.mark.parametrize("write", ["pickle2", "pickle4", "torch", "old torch"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(write, tmp_path):
    mark, file = tmp_path / "ran", tmp_path / "w.pkl"
    value = {"conv1.weight": np.ones(2, np.float32), "bn1.weight": RunsCode(mark)}
    if write.startswith("pickle"):
        file.write_bytes(pickle.dumps(value, protocol=int(write[-1])))
    else:
        torch.save({"bn1.weight": RunsCode(mark)}, file, _use_new_zipfile_serialization=write == "torch")
    with pytest.raises(WeightsError, match=r"mkdir.*can run code when loaded.*; where you trust the file"):
        load_pretrained(create_backbone("test_resnet"), file, "test_resnet")
    assert not mark.exists()


def test_a_pickled_module_is_refused_with_the_remedy(tmp_path):
    model = create_backbone("test_resnet")
    torch.save(model, tmp_path / "module.pth")
    with pytest.raises(WeightsError, match=r"timm\.models\.resnet\.ResNet, a pickled module.*state_dict\(\)"):
        load_pretrained(model, tmp_path / "module.pth", "test_resnet")


def test_metadata_asks_for_arguments_before_the_backbone_is_made(tmp_path):
    state = random_state(create_backbone("mobilenetv3_small_050"))
    metadata = {"timm": "mobilenetv3_small_050", "timm_kwargs": "pad_type=same", "input": "RGB, ImageNet mean/std"}
    save_file(state, tmp_path / "w.safetensors", metadata=metadata)
    assert read_weights_metadata(tmp_path / "w.safetensors")["timm_kwargs"] == "pad_type=same"
    merged = merge_backbone_args(tmp_path / "w.safetensors", "mobilenetv3_small_050", {"drop_rate": 0.1})
    assert merged == {"drop_rate": 0.1, "pad_type": "same"}
    images = torch.randn(1, 3, 64, 64)
    outputs = []
    for args in ({}, merged):
        backbone = create_backbone("mobilenetv3_small_050", args).eval()
        info = load_pretrained(backbone, tmp_path / "w.safetensors", "mobilenetv3_small_050")
        outputs.append(backbone(images))
    assert not torch.allclose(*outputs)  # a wrong guess would pass silently
    assert info.timm_kwargs == {"pad_type": "same"}
    with pytest.raises(WeightsError, match="pad_type='' in backbone_args, wanted pad_type='same'"):
        merge_backbone_args(tmp_path / "w.safetensors", "mobilenetv3_small_050", {"pad_type": ""})
    with pytest.raises(WeightsError, match="weights of mobilenetv3_small_050, wanted weights of resnet50"):
        merge_backbone_args(tmp_path / "w.safetensors", "resnet50", {})


def test_files_without_metadata_ask_for_nothing(form):
    assert merge_backbone_args(form[0], "se_resnet50", {"a": 1}) == {"a": 1}


def test_timm_kwargs_that_are_no_arguments_are_refused():
    assert parse_timm_kwargs("pad_type=same, flag=True,rate=0.5") == {
        "pad_type": "same",
        "flag": True,
        "rate": 0.5,
    }
    with pytest.raises(WeightsError, match="'pad_type'"):
        parse_timm_kwargs("pad_type")


def test_input_norm_paper_is_imagenets_and_native_the_weights_own():
    info = PretrainedInfo("dag", "0", 329, (), RGB, {}, False)
    assert choose_input_norm("paper", info) == IMAGENET
    assert choose_input_norm("native", info) == RGB
    assert choose_input_norm("native", None) == IMAGENET
    with pytest.raises(ValueError, match="input_norm: got 'caffe', wanted one of paper, native"):
        choose_input_norm("caffe", info)


def test_native_is_refused_where_the_weights_do_not_say(tmp_path):
    model = create_backbone("test_resnet")
    save_file(random_state(model), tmp_path / "w.safetensors", metadata={"input": "who knows"})
    info = load_pretrained(model, tmp_path / "w.safetensors", "test_resnet")
    with pytest.raises(WeightsError, match="'native' for weights that do not say"):
        choose_input_norm("native", info)


def test_the_real_vggface2_mobilenet_loads_with_the_padding_it_asks_for():
    data = os.environ.get("AFFECTFLOW_TEST_DATA")
    if not data:
        pytest.skip("AFFECTFLOW_TEST_DATA names no folder of real test data")
    file = Path(data) / "weights" / "vggface2_mobilenetv1_100.safetensors"
    args = merge_backbone_args(file, "mobilenetv1_100", {})
    assert args == {"pad_type": "same"}
    backbone = create_backbone("mobilenetv1_100", args).eval()
    info = load_pretrained(backbone, file, "mobilenetv1_100")
    assert (info.format, info.entries, info.classifier_left_out) == ("timm", 162, ())
    assert info.native_norm == IMAGENET
    assert info.folded_batchnorm
    wrong = create_backbone("mobilenetv1_100").eval()
    load_pretrained(wrong, file, "mobilenetv1_100")
    images = torch.randn(4, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        right, other = backbone(images), wrong(images)
    assert right.isfinite().all()
    assert float(torch.cosine_similarity(right, other).mean()) < 0.9
