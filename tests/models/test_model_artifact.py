import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from affectflow.artifacts import new_artifact
from affectflow.errors import ArtifactError
from affectflow.labels import EXPRESSIONS
from affectflow.models import ExpressionModel, create_backbone, load_model, model_spec, write_weights
from affectflow.models.serialization import SPEC_FIELDS, WEIGHTS_FILE, build_from_spec, load_weights

ARGS = {"pad_type": "same"}
SPEC = model_spec(
    backbone="mobilenetv3_small_050",
    backbone_args=ARGS,
    classes=EXPRESSIONS,
    feature_dim=32,
    dropout=0.1,
    activation="none",
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    backbone = create_backbone("mobilenetv3_small_050", ARGS)
    return ExpressionModel(backbone, feature_dim=32, dropout=0.1, activation="none").eval()


def write(path, model, spec=SPEC):
    with new_artifact(path, "model", dict(spec)) as folder:
        write_weights(folder, model)
    return path


def test_a_written_model_is_read_back_with_equal_outputs(model, tmp_path):
    loaded, header = load_model(write(tmp_path / "model", model))
    images = torch.randn(2, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(loaded(images), model(images), strict=True))
    assert not loaded.training
    assert header["classes"] == list(EXPRESSIONS)


def test_equal_models_are_equal_bytes(model, tmp_path):
    first, second = (write(tmp_path / name, model) / WEIGHTS_FILE for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"classes": list(EXPRESSIONS[:7])}, r"output\.bias.*\[8\], \[7\]"),
        ({"feature_dim": 16}, r"feature\.bias.*\[32\], \[16\]"),
        ({"backbone": "resnet10t", "backbone_args": {}}, "entries that do not fit"),
        ({"backbone": "resnet1O"}, "fields that build no model .*did you mean"),
        ({"activation": "gelu"}, "fields that build no model .*activation"),
    ],
)
def test_weights_of_another_architecture_or_class_count_are_refused(changed, line, model, tmp_path):
    path = write(tmp_path / "model", model, {**SPEC, **changed})
    with pytest.raises(ArtifactError, match=line):
        load_model(path)


@pytest.mark.parametrize("field", SPEC_FIELDS)
def test_a_header_without_a_field_is_named(field):
    with pytest.raises(ArtifactError, match=f"no field '{field}'"):
        build_from_spec({key: value for key, value in SPEC.items() if key != field})


def test_changed_or_cut_weights_are_refused(model, tmp_path):
    path = write(tmp_path / "model", model)
    state = load_file(path / WEIGHTS_FILE)
    state["output.bias"] += 1
    save_file(state, path / WEIGHTS_FILE, metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match="changed content"):
        load_model(path)
    (tmp_path / "cut").write_bytes((path / WEIGHTS_FILE).read_bytes()[:100])
    with pytest.raises(ArtifactError, match="wanted a safetensors file"):
        load_weights(model, tmp_path / "cut")


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with new_artifact(tmp_path / "splits", "splits"):
        pass
    with pytest.raises(ArtifactError, match="kind 'splits', wanted an artifact of kind 'model'"):
        load_model(tmp_path / "splits")


def test_the_spec_is_json():
    assert json.loads(json.dumps(SPEC)) == SPEC
