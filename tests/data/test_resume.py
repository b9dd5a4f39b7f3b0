"""A killed ingest goes on where it was, from a folder or a bucket, and ends with the same bytes."""

import shutil
import time
from pathlib import Path

import psutil
import pytest
from ingest_runs import content, ingest_step, kill_when, run_on_small_disk, start, write_many
from s3_server import S3Server

from affectflow.data import cropping, shards
from affectflow.data.layouts.manual import IMAGES
from affectflow.errors import AffectflowError, DataError
from affectflow.storage import open_storage

FACES = 400


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_many(tmp_path_factory.mktemp("source") / "root", FACES)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BATCH_ROWS", 16)
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of the faces that were cut, as they are cut."""
    rows: list[int] = []
    whole = cropping._cut

    def count(content: bytes, face: cropping.ListedFace, settings: cropping.CropSettings) -> object:
        rows.append(face.source_row)
        return whole(content, face, settings)

    monkeypatch.setattr(cropping, "_cut", count)
    return rows


@pytest.fixture(scope="module")
def unbroken(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("unbroken")
    process = start(source, out)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return content(out / "faces")


def kept(folder: Path) -> int:
    return len(list(folder.glob("ingest_affectnet-*/shard-*.json")))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_is_killed_again_and_again_ends_with_the_bytes_of_an_unbroken_one(
    source: Path, unbroken: dict[str, bytes], tmp_path: Path, workers: int
) -> None:
    kept_at = tmp_path / "kept"
    done = 0
    for number, at_least in enumerate((1, 6, 12)):
        process = start(source, tmp_path / str(number), workers=workers, checkpoint_dir=str(kept_at))
        wanted = max(at_least, done + 1)
        kill_when(process, lambda wanted=wanted: kept(kept_at) >= wanted)
        assert kept(kept_at) > done
        done = kept(kept_at)
        assert not (tmp_path / str(number) / "faces").exists()
    process = start(source, tmp_path / "last", workers=workers, checkpoint_dir=str(kept_at))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "resuming: " in output
    assert "damaged" not in output
    assert content(tmp_path / "last" / "faces") == unbroken
    assert kept(kept_at) == 0, "what the dataset holds is no longer kept"


def test_a_run_killed_with_its_checkpoints_in_s3_is_resumed(
    s3: S3Server, source: Path, unbroken: dict[str, bytes], tmp_path: Path
) -> None:
    root = "s3://open/checkpoints"
    process = start(source, tmp_path / "first", checkpoint_dir=root)
    place = open_storage(root)
    kill_when(process, lambda: sum(entry.name.endswith(".json") for entry in place.entries()) >= 3)
    process = start(source, tmp_path / "second", checkpoint_dir=root)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "resuming: " in output
    assert content(tmp_path / "second" / "faces") == unbroken
    assert place.entries() == []


@pytest.mark.usefixtures("small_shards")
def test_finished_shards_are_not_done_again_and_damaged_ones_are(
    source: Path, unbroken: dict[str, bytes], tmp_path: Path, cut: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    kept_at = tmp_path / "kept"
    with pytest.raises(DataError, match="--max-quarantined"):  # the last faces are too many losses
        ingest_step(source, tmp_path / "first", checkpoint_dir=str(kept_at), max_quarantined=0.095)
    finished = kept(kept_at)
    assert finished > 15
    (folder,) = kept_at.iterdir()
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)

    cut.clear()
    ingest_step(source, tmp_path / "second", checkpoint_dir=str(kept_at))
    assert content(tmp_path / "second" / "faces") == unbroken
    assert len(cut) < 40, "only the last shards were left to do"

    damages = ["images-00002.arrow", "outcomes-00004.parquet", "shard-00006.json"]
    lost = ["images-00008.arrow", "outcomes-00010.parquet", "shard-00012.json"]
    shutil.copytree(whole, folder)
    for name in damages:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).unlink()
        (folder / name).write_bytes(data)
    for name in lost:
        (folder / name).unlink()
    cut.clear()
    capsys.readouterr()
    ingest_step(source, tmp_path / "third", checkpoint_dir=str(kept_at))
    assert content(tmp_path / "third" / "faces") == unbroken
    assert 6 * 16 <= len(cut) < 6 * 64, "six shards, of which each cuts a little ahead"
    assert capsys.readouterr().err.count("done again") == 5  # a lost record is no damage


@pytest.mark.usefixtures("small_shards")
def test_shards_that_no_longer_follow_each_other_are_done_again(tmp_path: Path) -> None:
    root, kept_at = write_many(tmp_path / "root", FACES), tmp_path / "kept"
    with pytest.raises(DataError, match="--max-quarantined"):
        ingest_step(root, tmp_path / "first", checkpoint_dir=str(kept_at), max_quarantined=0.095)
    (folder,) = kept_at.iterdir()
    (folder / "shard-00000.json").unlink()
    (root / IMAGES / "1" / "3.jpg").unlink()  # so that the first shard reaches further than it did
    ingest_step(root, tmp_path / "resumed", checkpoint_dir=str(kept_at))
    ingest_step(root, tmp_path / "fresh")
    assert content(tmp_path / "resumed" / "faces") == content(tmp_path / "fresh" / "faces")


@pytest.mark.usefixtures("small_shards")
def test_other_settings_lists_or_sources_resume_nothing(source: Path, tmp_path: Path, cut: list[int]) -> None:
    kept_at = tmp_path / "kept"
    for changes in ({}, {"face_size": 48}, {"jpeg_quality": 80}, {"source_digest": "other"}):
        cut.clear()
        with pytest.raises(DataError, match="--max-quarantined"):
            ingest_step(source, tmp_path / "out", checkpoint_dir=str(kept_at), max_quarantined=0.095, **changes)
        assert len(cut) > 300, changes
    assert len(list(kept_at.iterdir())) == 4


def test_a_killed_run_leaves_no_process_behind(source: Path, tmp_path: Path) -> None:
    process = start(source, tmp_path / "out", workers=2, checkpoint_dir=str(tmp_path / "kept"))
    seen: list[psutil.Process] = []

    def has_children() -> bool:
        seen[:] = psutil.Process(process.pid).children(recursive=True)
        return kept(tmp_path / "kept") >= 1

    kill_when(process, has_children)
    assert len(seen) >= 2
    end = time.monotonic() + 20
    while (left := [child for child in seen if child.is_running() and child.status() != "zombie"]) and (
        time.monotonic() < end
    ):
        time.sleep(0.1)
    assert not left


def test_a_checkpoint_folder_that_cannot_be_written_is_one_line(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(AffectflowError, match="file") as error:
        ingest_step(source, tmp_path / "out", checkpoint_dir=str(tmp_path / "file"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("full", ["output", "checkpoints"])
def test_a_full_disk_is_one_line_and_what_was_done_is_kept(
    source: Path, unbroken: dict[str, bytes], tmp_path: Path, full: str
) -> None:
    disk = tmp_path / "disk"
    places = {"checkpoint_dir": str(tmp_path / "kept"), "faces": str(tmp_path / "first" / "faces")}
    places["faces" if full == "output" else "checkpoint_dir"] = str(disk / "faces")
    done = run_on_small_disk(source, tmp_path / "first", disk, 400, **places)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (error,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert "full disk" in error
    if full == "output":
        assert kept(tmp_path / "kept") >= 3
        process = start(source, tmp_path / "second", checkpoint_dir=str(tmp_path / "kept"))
        output, _ = process.communicate(timeout=120)
        assert "resuming: " in output
        assert content(tmp_path / "second" / "faces") == unbroken
