"""Class weights against the paper's numbers, and what their reader refuses."""

from pathlib import Path

import pytest

from affectflow.artifacts import new_artifact
from affectflow.data.class_weights import class_weights_fields, compute_class_weights, read_class_weights
from affectflow.errors import ArtifactError, DataError
from affectflow.labels import EXPRESSIONS

TABLE_3_TRAIN = (74_374, 133_915, 24_959, 13_590, 5_878, 3_303, 24_382, 3_250)


def test_table_3_gives_the_weights_of_equation_6_in_code_order() -> None:
    weights = compute_class_weights(dict(zip(EXPRESSIONS, TABLE_3_TRAIN, strict=True)))
    expected = [0.0437, 0.0243, 0.1302, 0.2391, 0.5529, 0.9840, 0.1333, 1.0]
    assert weights == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_class_without_training_faces_is_named(name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: got 0"):
        compute_class_weights(dict.fromkeys(EXPRESSIONS, 5) | {name: 0})


def test_written_weights_are_read_back(tmp_path: Path) -> None:
    fields = class_weights_fields(dict(zip(EXPRESSIONS, TABLE_3_TRAIN, strict=True)))
    with new_artifact(tmp_path / "w", "class_weights", fields):
        pass
    weights, header = read_class_weights(tmp_path / "w")
    assert weights == fields["weights"]
    assert header["classes"] == list(EXPRESSIONS)
    assert header["counts"] == list(TABLE_3_TRAIN)
    assert header["formula"] == "N_min / N_j"


@pytest.mark.parametrize(
    "change",
    [{"classes": sorted(EXPRESSIONS)}, {"weights": [1.0] * 7}, {"weights": [0.0] * 8}, {"weights": "1"}],
)
def test_weights_of_other_classes_or_form_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    fields = class_weights_fields(dict.fromkeys(EXPRESSIONS, 5)) | change
    with new_artifact(tmp_path / "w", "class_weights", fields):
        pass
    with pytest.raises(ArtifactError):
        read_class_weights(tmp_path / "w")
