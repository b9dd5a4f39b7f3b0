"""The three data steps through ``run``: what they write fits together, and bad input is one line."""

from pathlib import Path
from typing import Any

import pytest

from affectflow.artifacts import artifact_digest
from affectflow.data.class_weights import read_class_weights
from affectflow.data.faces import Faces
from affectflow.data.splits import check_splits_belong, read_splits
from affectflow.errors import AffectflowError, ArtifactError, DataError, SettingsError
from components.compute_class_weights import step as weights_step
from components.ingest_affectnet import step as ingest_step
from components.split_dataset import step as split_step


def ingest(out: Path, **changes: Any) -> dict[str, Any]:
    arguments = {
        "source": "synthetic", "layout": "auto", "synthetic_images": 120, "face_size": 64, "margin": 0.1,
        "image_format": "auto", "jpeg_quality": 92, "max_quarantined": 0.05, "conflicting_labels": "keep",
        "near_duplicate_distance": -1, "seed": 0, "workers": 1, "checkpoint_dir": "", "source_digest": "",
        "faces": str(out / "faces"), "class_distribution": str(out / "class_distribution.html"),
        "contact_sheet": str(out / "contact_sheet.html"), "quarantine_sheet": str(out / "quarantine_sheet.html"),
        "summary": str(out / "summary.md"),
    }  # fmt: skip
    return ingest_step.run(**arguments | changes)


def split(faces: Path, out: Path, **changes: Any) -> dict[str, Any]:
    arguments = {
        "faces": str(faces), "policy": "paper", "val_per_class": 3, "test_per_class": 2, "seed": 0,
        "splits": str(out / "splits"), "summary": str(out / "splits.md"),
    }  # fmt: skip
    return split_step.run(**arguments | changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    ingest(out)
    split(out / "faces", out)
    weights_step.run(
        splits=str(out / "splits"), class_weights=str(out / "class_weights"), summary=str(out / "weights.md")
    )
    return out


def test_the_three_artifacts_fit_together(made: Path) -> None:
    faces = Faces.open(made / "faces")
    table, header = read_splits(made / "splits")
    weights, weights_header = read_class_weights(made / "class_weights")
    assert len(faces) == len(table) == 120
    assert table["image_id"].tolist() == faces.manifest["image_id"].tolist()
    check_splits_belong(header, faces)
    assert header["faces_digest"] == artifact_digest(faces.header)
    assert set(header["counts"]["val"].values()) == {3}
    assert set(header["counts"]["test"].values()) == {2}
    assert weights_header["counts"] == list(header["counts"]["train"].values())
    assert max(weights) == 1


def test_every_page_and_summary_is_written(made: Path) -> None:
    assert (made / "contact_sheet.html").read_text().count("<img") >= 8 * 12
    assert "<svg" in (made / "class_distribution.html").read_text()
    assert "| happy | " in (made / "summary.md").read_text()
    assert "| total | 80 | 24 | 16 |" in (made / "splits.md").read_text()
    assert "| contempt | 7 | 1.0000 |" in (made / "weights.md").read_text()


def test_the_same_settings_give_the_same_artifacts_whatever_the_processes(made: Path, tmp_path: Path) -> None:
    assert ingest(tmp_path, workers=2) is not None
    for name in ("dataset.json", "manifest.parquet", "images-00000.arrow"):
        assert (tmp_path / "faces" / name).read_bytes() == (made / "faces" / name).read_bytes()
    split(tmp_path / "faces", tmp_path)
    assert (tmp_path / "splits" / "splits.json").read_bytes() == (made / "splits" / "splits.json").read_bytes()


def test_splits_of_other_faces_are_refused(made: Path, tmp_path: Path) -> None:
    ingest(tmp_path, seed=1)
    _, header = read_splits(made / "splits")
    with pytest.raises(ArtifactError, match="drawn from"):
        check_splits_belong(header, Faces.open(tmp_path / "faces"))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"source": "nowhere"}, DataError, "nowhere"),
        ({"layout": "manuel"}, SettingsError, "--layout"),
        ({"layout": "csv"}, DataError, r"no \*\.csv"),
        ({"synthetic_images": 10}, SettingsError, "--synthetic-images"),
        ({"face_size": 8}, SettingsError, "--face-size"),
        ({"margin": -0.1}, SettingsError, "--margin"),
        ({"margin": float("nan")}, SettingsError, "--margin"),
        ({"jpeg_quality": 101}, SettingsError, "--jpeg-quality"),
        ({"max_quarantined": 1.5}, SettingsError, "--max-quarantined"),
        ({"workers": -1}, SettingsError, "--workers"),
        ({"seed": -1}, SettingsError, "--seed"),
    ],
)
def test_bad_settings_and_sources_are_one_line_and_leave_nothing(
    tmp_path: Path, changes: dict[str, Any], error: type[AffectflowError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        ingest(tmp_path, **changes)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_split_that_does_not_fit_leaves_nothing(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at most 5 for each"):
        split(made / "faces", tmp_path, val_per_class=500, test_per_class=500)
    with pytest.raises(SettingsError, match="--test-per-class"):
        split(made / "faces", tmp_path, test_per_class=0)
    with pytest.raises(ArtifactError, match="'faces'"):
        split(made / "splits", tmp_path)
    assert list(tmp_path.iterdir()) == []
