"""The three data steps through ``run``: what they write fits together, and bad input is one line."""

import re
from pathlib import Path
from typing import Any

import pytest
from face_trees import encoded, line, pixels, put, write_manual, write_traps

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


def test_official_splits_test_on_the_validation_list_and_leave_out_its_copies(tmp_path: Path) -> None:
    rows, validation = [], []
    for number in range(80):
        put(tmp_path / "root", f"1/{number}.png", encoded(pixels(number), "PNG"))
        (validation if number % 10 == 0 else rows).append(line(f"1/{number}.png", number // 10))
    put(tmp_path / "root", "1/copy.png", encoded(pixels(10), "PNG"))
    # A copy of a test face in the training list, and a row of the validation list word for word.
    root = write_manual(tmp_path / "root", [*rows, line("1/copy.png", 1), validation[2]], validation)
    header = ingest(tmp_path, source=str(root))
    assert header["repeated_rows"] == 1
    assert header["held_out_lists"] == ["Manually_Annotated_file_lists/validation.csv"]
    header = split(tmp_path / "faces", tmp_path, policy="official", val_per_class=2)
    assert header["policy"] == "official"
    assert header["left_out"] == 1
    assert header["test_per_class"] is None
    assert set(header["counts"]["test"].values()) == {1}
    assert set(header["counts"]["val"].values()) == {2}
    assert set(header["counts"]["train"].values()) == {7}
    table, _ = read_splits(tmp_path / "splits")
    faces = Faces.open(tmp_path / "faces").manifest.merge(
        table, on=["image_id", "group", "expression"], how="left"
    )
    assert (faces["source_list"].str.contains("validation") == (faces["split"] == "test")).all()
    assert faces.loc[faces["split"].isna(), "source_path"].tolist() == ["1/copy.png"]
    assert "1 faces with the content of a test face are left out" in (tmp_path / "splits.md").read_text()


def test_splits_do_not_depend_on_how_faces_are_cut_and_stored(made: Path, tmp_path: Path) -> None:
    ingest(tmp_path, face_size=48, margin=0.3, image_format="jpeg")
    split(tmp_path / "faces", tmp_path)
    other, table = read_splits(tmp_path / "splits")[0], read_splits(made / "splits")[0]
    assert other.equals(table)


def test_official_splits_need_a_held_out_list(tmp_path: Path) -> None:
    for number in range(16):
        file = tmp_path / "root" / str(number % 8) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(pixels(number), "PNG"))
    ingest(tmp_path, source=str(tmp_path / "root"))
    with pytest.raises(DataError, match="layout folder without a validation list") as error:
        split(tmp_path / "faces", tmp_path, policy="official")
    assert "\n" not in str(error.value)
    with pytest.raises(SettingsError, match="--policy"):
        split(tmp_path / "faces", tmp_path, policy="mine")


def test_counts_pages_and_the_quarantine_are_logged_to_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)  # MLflow's own files
    traps = write_traps(tmp_path / "root")
    # KFP gives outputs names without an ending.
    header = ingest(
        tmp_path, source=str(tmp_path / "root"), max_quarantined=0.9, contact_sheet=str(tmp_path / "sheet")
    )
    client = MlflowClient()
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["data.faces"] == header["faces"]
    assert run.data.metrics["data.quarantined"] == sum(trap.reason is not None for trap in traps)
    assert run.data.metrics["data.quarantined.truncated"] == header["quarantined"]["truncated"]
    assert run.data.metrics["data.faces.sad"] == 1
    assert run.data.params["data.layout"] == "auto"
    logged = client.download_artifacts(run.info.run_id, "data", str(tmp_path))
    for name, written in (
        ("quarantine.parquet", "faces/quarantine.parquet"), ("summary.md", "summary.md"),
        ("quarantine_sheet.html", "quarantine_sheet.html"), ("contact_sheet.html", "sheet"),
        ("class_distribution.html", "class_distribution.html"),
    ):  # fmt: skip
        assert (Path(logged) / name).read_bytes() == (tmp_path / written).read_bytes()


def test_the_quarantine_sheet_shows_what_can_be_seen_and_names_all_reasons(tmp_path: Path) -> None:
    traps = write_traps(tmp_path / "root")
    ingest(tmp_path, source=str(tmp_path / "root"), max_quarantined=0.9)
    page = (tmp_path / "quarantine_sheet.html").read_text()
    for reason in {trap.reason for trap in traps if trap.reason}:
        number = sum(trap.reason == reason for trap in traps)
        assert f"<h2>{reason}: {number}</h2>" in page
    # Boxes that cannot be used (7), bad labels (3), rows with a readable path, and halves of JPEGs.
    seen = re.findall(r'<img alt="([^"]*)', page)
    for name in ("t/cut.jpg", "t/damaged.jpg", "t/box_null.jpg", "t/box_outside.jpg", "t/code_11.jpg"):
        assert any(name in text for text in seen), name
    for name in ("secret.jpg", "passwd", "bomb.png", "missing.jpg", "zero.jpg", "text.jpg", "link_out"):
        assert not any(name in text for text in seen), name
        assert name in page


def test_an_empty_quarantine_says_so(made: Path) -> None:
    assert "Nothing was set aside" in (made / "quarantine_sheet.html").read_text()


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
        ({"image_format": "gif"}, SettingsError, "--image-format"),
        ({"conflicting_labels": "mend"}, SettingsError, "--conflicting-labels"),
        ({"near_duplicate_distance": 9}, SettingsError, "--near-duplicate-distance"),
        ({"checkpoint_dir": "gs://bucket"}, SettingsError, "s3://bucket/prefix"),
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
    with pytest.raises(DataError, match="--val-per-class and --test-per-class 5 or less"):
        split(made / "faces", tmp_path, val_per_class=500, test_per_class=500)
    with pytest.raises(SettingsError, match="--test-per-class"):
        split(made / "faces", tmp_path, test_per_class=0)
    with pytest.raises(ArtifactError, match="'faces'"):
        split(made / "splits", tmp_path)
    assert list(tmp_path.iterdir()) == []
