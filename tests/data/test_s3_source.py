"""A source in a bucket: the same dataset as from a disk, whatever the network does; else one line."""

from collections import Counter
from pathlib import Path

import pytest
from face_trees import encoded, line, pixels, put, write_manual, write_npy, write_traps
from ingest_runs import content, ingest_step, write_many
from s3_server import S3Server, run_faulty_proxy

from affectflow import s3 as s3_module
from affectflow.data import shards
from affectflow.data.listing import list_faces
from affectflow.data.quarantine import FaceError, Reason
from affectflow.data.sources import S3Source
from affectflow.errors import AffectflowError, DataError, StorageError
from affectflow.storage import open_storage


def same_from_s3(s3: S3Server, root: Path, tmp_path: Path, prefix: str, **changes: object) -> None:
    """Check that a tree gives the same dataset from a bucket as from the disk."""
    s3.upload_folder(root, "open", prefix)
    ingest_step(root, tmp_path / "disk", **changes)
    ingest_step(f"s3://open/{prefix}", tmp_path / "s3", **changes)
    assert content(tmp_path / "disk" / "faces") == content(tmp_path / "s3" / "faces")


@pytest.mark.parametrize("workers", [1, 2])
def test_manual_with_traps_is_the_same_from_a_bucket(s3: S3Server, tmp_path: Path, workers: int) -> None:
    root = tmp_path / "root"
    write_traps(root)
    (root / "Manually_Annotated_Images" / "t" / "link_out.jpg").unlink()  # a bucket has no links
    same_from_s3(s3, root, tmp_path, f"manual-{workers}", max_quarantined=1.0, workers=workers)


def test_folders_tables_and_npy_are_the_same_from_a_bucket(s3: S3Server, tmp_path: Path) -> None:
    for number, name in enumerate(("train/happy/a.jpg", "train/happy/deep/b.jpg", "val/6/c.png", "train/2/d.jpg")):
        file = tmp_path / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(pixels(number)))
    same_from_s3(s3, tmp_path / "folder", tmp_path / "f", "folder")
    (tmp_path / "csv" / "images").mkdir(parents=True)
    (tmp_path / "csv" / "images" / "a b.jpg").write_bytes(encoded(pixels(9)))
    (tmp_path / "csv" / "labels.csv").write_text("\ufeffpath,label\r\na b.jpg,fear\r\n", encoding="utf-8")
    same_from_s3(s3, tmp_path / "csv", tmp_path / "c", "csv")
    same_from_s3(s3, write_npy(tmp_path / "npy", faces=40), tmp_path / "n", "npy")


def test_faults_of_the_network_change_nothing(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for number in range(60):
        put(tmp_path / "root", f"1/{number}.jpg", encoded(pixels(number)))
        rows.append(line(f"1/{number}.jpg", number % 8))
    root = write_manual(tmp_path / "root", rows, [line("1/1.jpg", 2)])
    s3.upload_folder(root, "open", "faults")
    ingest_step(root, tmp_path / "disk")
    monkeypatch.setattr(s3_module, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(s3_module, "PART_BYTES", 5000)  # the list too is read in ranges
    seen: Counter[str] = Counter()
    broken: Counter[str] = Counter()

    def every_third(method: str, path: str) -> str | None:
        seen[path] += 1
        if seen[path] > 2 or sum(seen.values()) % 3:
            return None
        kind = ("500", "reset", "half")[sum(broken.values()) % 3]
        broken[kind] += 1
        return kind

    with run_faulty_proxy(s3, every_third) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        open_storage.cache_clear()
        ingest_step("s3://open/faults", tmp_path / "s3")
    assert min(broken[kind] for kind in ("500", "reset", "half")) >= 5
    assert content(tmp_path / "disk" / "faces") == content(tmp_path / "s3" / "faces")


def test_a_bucket_that_is_missing_empty_or_forbidden_is_one_line(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: str, error: type[AffectflowError], words: str) -> None:
        with pytest.raises(error, match=words) as caught:
            ingest_step(source, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()

    refused("s3://nowhere/faces", StorageError, "no such bucket")
    refused("s3://open/no-such-prefix", DataError, "no object with this prefix")
    for name, value in s3.environment("reader").items():
        monkeypatch.setenv(name, value)
    open_storage.cache_clear()
    refused("s3://closed/secret", StorageError, "s3://closed/secret.*forbidden")


def test_rights_that_are_lost_on_the_way_stop_the_run_and_what_was_done_is_kept(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_many(tmp_path / "root", 200)
    s3.upload_folder(root, "open", "rights")
    monkeypatch.setattr(shards, "BATCH_ROWS", 16)
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    reads: Counter[str] = Counter()

    def after_a_while(method: str, path: str) -> str | None:
        reads["pictures"] += "/Manually_Annotated_Images/1/" in path
        return "403" if reads["pictures"] > 120 else None

    with run_faulty_proxy(s3, after_a_while) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        open_storage.cache_clear()
        with pytest.raises(StorageError, match="403: forbidden") as error:
            ingest_step("s3://open/rights", tmp_path / "out", checkpoint_dir=str(tmp_path / "kept"))
    assert "\n" not in str(error.value)
    assert len(list(tmp_path.glob("kept/*/shard-*.json"))) >= 3
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    open_storage.cache_clear()
    ingest_step("s3://open/rights", tmp_path / "resumed", checkpoint_dir=str(tmp_path / "kept"))
    ingest_step(root, tmp_path / "disk")
    assert content(tmp_path / "resumed" / "faces") == content(tmp_path / "disk" / "faces")


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "..", "x/../../../closed/a"]
)
def test_no_path_leads_out_of_a_prefix(s3: S3Server, path: str) -> None:
    open_storage("s3://open/walls").write("secret.jpg", b"secret")
    for folders in (("",), ("images",)):
        with pytest.raises(FaceError) as error:
            S3Source("s3://open/walls/images").read(folders, path)
        assert error.value.reason is Reason.OUTSIDE_ROOT


def test_two_layouts_in_one_prefix_are_named(s3: S3Server, tmp_path: Path) -> None:
    write_manual(tmp_path / "root", [line("1/a.jpg")])
    write_npy(tmp_path / "root")
    put(tmp_path / "root", "1/a.jpg", b"picture")
    s3.upload_folder(tmp_path / "root", "open", "two")
    with pytest.raises(DataError, match=r"several layouts: manual .* npy"):
        list_faces("s3://open/two")
