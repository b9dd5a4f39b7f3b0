"""Faces of the same content: exact and near duplicates, and labels that contradict each other."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from face_trees import encoded, line, pixels, put, write_manual
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_runs import ingest_step
from PIL import Image

from affectflow.data.crops import perceptual_hash
from affectflow.data.duplicates import conflicting, find_groups, find_looks
from affectflow.data.faces import Faces
from affectflow.errors import DataError, SettingsError

PICTURE = "0,0,120,100"


def slow_looks(hashes: list[int], distance: int) -> list[int]:
    """Number looks by comparing everything with everything."""
    look = list(range(len(hashes)))
    for one in range(len(hashes)):
        for other in range(one):
            if (hashes[one] ^ hashes[other]).bit_count() <= distance and look[one] != look[other]:
                look = [look[other] if number == look[one] else number for number in look]
    return look


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=9)), max_size=25),
    st.integers(0, 8),
)
def test_looks_are_those_of_comparing_everything(
    seeds: list[int], changes: list[tuple[int, set[int]]], distance: int
) -> None:
    hashes = list(seeds)
    for place, bits in changes:
        hashes.append(hashes[place % len(hashes)] ^ sum(1 << bit for bit in bits))
    fast = find_looks(np.array(hashes, dtype=np.uint64), distance)
    slow = slow_looks(hashes, distance)
    for one in range(len(hashes)):
        assert [number == fast[one] for number in fast] == [number == slow[one] for number in slow]


def test_looks_join_groups_as_sources_and_crops_do() -> None:
    assert find_groups(["a", "b", "c"], ["3", "2", "1"]) == ["a", "b", "c"]
    assert find_groups(["a", "b", "c"], ["3", "2", "1"], np.array([0, 1, 0])) == ["a", "b", "a"]
    assert find_groups([], [], np.array([], dtype=int)) == []


def test_450_000_faces_are_grouped_within_seconds() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, 450_000).astype(np.uint64)
    hashes[1::1000] = hashes[::1000] ^ np.uint64(0b101)
    looks = find_looks(hashes, 2)
    assert len(np.unique(looks)) == 450_000 - 450


def test_the_hash_hardly_changes_with_encoding_and_much_with_the_face() -> None:
    face = pixels(1, 200, 200)
    again = np.asarray(Image.open(io.BytesIO(encoded(face, quality=40))))
    brighter = np.clip(face.astype(int) + 10, 0, 255).astype(np.uint8)
    for like in (again, brighter):
        assert (perceptual_hash(face) ^ perceptual_hash(like)).bit_count() <= 2
    assert (perceptual_hash(face) ^ perceptual_hash(pixels(2, 200, 200))).bit_count() > 8


def near_tree(root: Path) -> Path:
    face = pixels(1)
    put(root, "1/a.jpg", encoded(face, quality=95))
    put(root, "1/recompressed.jpg", encoded(face, quality=50))
    put(root, "1/other.jpg", encoded(pixels(2)))
    rows = [line("1/a.jpg", 1, PICTURE), line("1/other.jpg", 1, PICTURE)]
    return write_manual(root, rows, [line("1/recompressed.jpg", 2, PICTURE)])


def test_near_duplicates_share_a_group_only_when_asked_for(tmp_path: Path) -> None:
    root = near_tree(tmp_path / "root")
    ingest_step(root, tmp_path / "exact")
    assert Faces.open(tmp_path / "exact" / "faces").manifest["group"].nunique() == 3
    header = ingest_step(root, tmp_path / "near", near_duplicate_distance=2)
    first, other, again = Faces.open(tmp_path / "near" / "faces").manifest["group"]
    assert first == again != other
    assert header["groups_of_several"] == 1
    assert header["largest_group"] == 2
    assert header["settings"]["near_duplicate_distance"] == 2
    assert header["conflicting_labels"] == 0, "looking alike is no proof of a wrong label"


def conflict_tree(root: Path) -> Path:
    put(root, "1/a.png", encoded(pixels(1), "PNG"))
    put(root, "1/a.bmp", encoded(pixels(1), "BMP"))
    put(root, "1/b.png", encoded(pixels(2), "PNG"))
    put(root, "1/c.png", encoded(pixels(3), "PNG"))
    put(root, "1/c.bmp", encoded(pixels(3), "BMP"))
    rows = [line(f"1/{name}", code, PICTURE) for name, code in (("a.png", 1), ("b.png", 3), ("c.png", 4))]
    return write_manual(root, rows, [line("1/a.bmp", 6, PICTURE), line("1/c.bmp", 4, PICTURE)])


def test_conflicting_labels_are_kept_and_reported_by_default(tmp_path: Path) -> None:
    header = ingest_step(conflict_tree(tmp_path / "root"), tmp_path, max_quarantined=0.0)
    assert header["faces"] == 5
    assert header["conflicting_labels"] == 1
    text = (tmp_path / "summary.md").read_text()
    assert "Same pixels, several labels" in text
    assert "| 1/a.png | Manually_Annotated_file_lists/training.csv | 2 | happy |" in text
    assert "c.png" not in text


def test_conflicting_labels_are_dropped_into_the_quarantine_on_demand(tmp_path: Path) -> None:
    header = ingest_step(
        conflict_tree(tmp_path / "root"), tmp_path, conflicting_labels="drop", max_quarantined=0.0
    )
    faces = Faces.open(tmp_path / "faces")
    assert faces.manifest["source_path"].tolist() == ["1/b.png", "1/c.png", "1/c.bmp"]
    assert header["faces"] == 3
    assert header["conflicting_labels"] == 1
    assert header["quarantined"] == {"conflicting_labels": 2}
    assert set(faces.quarantine["detail"]) == {"the same face is labelled happy and anger"}
    ids = faces.manifest["image_id"].tolist()
    shard = pa.ipc.open_file(faces.path / "images-00000.arrow").read_all()
    stored = dict(zip(shard["image_id"].to_pylist(), shard["image"].to_pylist(), strict=True))
    for index, image_id in enumerate(ids):
        assert bytes(faces.image_bytes(index)) == stored[image_id]


def test_a_dataset_of_nothing_but_conflicts_is_an_error_when_they_are_dropped(tmp_path: Path) -> None:
    put(tmp_path / "root", "1/a.png", encoded(pixels(1), "PNG"))
    root = write_manual(tmp_path / "root", [line("1/a.png", 1, PICTURE)], [line("1/a.png", 2, PICTURE)])
    with pytest.raises(DataError, match="conflicting_labels"):
        ingest_step(root, tmp_path / "out", conflicting_labels="drop")
    with pytest.raises(SettingsError, match="--conflicting-labels"):
        ingest_step(root, tmp_path / "out", conflicting_labels="mend")


def test_conflicts_are_between_labels_of_the_same_pixels() -> None:
    found = conflicting(["a", "a", "b", "b", "c"], np.array([1, 2, 3, 3, 4], dtype=np.int8))
    assert found.tolist() == [True, True, False, False, False]
