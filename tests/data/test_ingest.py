"""Ingest: every trap ends as it must, and what is written depends on the source alone."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from face_trees import HEADER, encoded, line, pixels, put, write_manual, write_traps

from affectflow.artifacts import new_artifact
from affectflow.data import shards
from affectflow.data.duplicates import find_groups
from affectflow.data.faces import Faces, decode_image
from affectflow.data.ingest import CropSettings, ingest
from affectflow.data.layouts.manual import LISTS
from affectflow.data.listing import list_faces
from affectflow.data.manifest import MANIFEST_SCHEMA
from affectflow.errors import ArtifactError, DataError

SETTINGS = CropSettings(face_size=64, margin=0.0, jpeg_quality=92)


def run(root: Path, out: Path, *, max_quarantined: float = 1.0, workers: int = 1, layout: str = "auto") -> Faces:
    header: dict[str, Any] = {}
    with new_artifact(out, "faces", header) as folder:
        header |= ingest(
            list_faces(root, layout), folder, SETTINGS, max_quarantined=max_quarantined, workers=workers
        )
    return Faces.open(out)


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Faces]:
    folder = tmp_path_factory.mktemp("traps")
    found = write_traps(folder / "root")
    return found, run(folder / "root", folder / "faces")


def test_every_trap_at_its_row_is_kept_or_quarantined_for_its_reason(trapped: tuple[list[Any], Faces]) -> None:
    traps, faces = trapped
    training = f"{LISTS}/training.csv"
    expected = {number: trap.reason for number, trap in enumerate(traps, start=2)}
    kept = faces.manifest[faces.manifest["source_list"] == training]
    outcome: dict[int, str | None] = dict.fromkeys(kept["source_row"].tolist())
    quarantine = faces.quarantine
    assert (quarantine["source_list"] == training).all()
    outcome |= dict(zip(quarantine["source_row"].tolist(), quarantine["reason"].tolist(), strict=True))
    assert outcome == expected
    assert quarantine["source_row"].is_monotonic_increasing
    assert (quarantine["detail"].str.len() > 0).all()


def test_the_header_counts_what_the_tables_hold(trapped: tuple[list[Any], Faces]) -> None:
    traps, faces = trapped
    reasons = [trap.reason for trap in traps if trap.reason]
    assert faces.header["quarantined"] == {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    assert faces.header["faces"] == len(faces) == len(traps) - len(reasons) + 1
    assert faces.header["counts"]["happy"] == len(faces) - 1
    assert faces.header["counts"]["sad"] == 1


def test_the_manifest_has_the_columns_of_the_contract_and_fits_the_images(
    trapped: tuple[list[Any], Faces],
) -> None:
    _, faces = trapped
    assert list(faces.manifest.columns) == MANIFEST_SCHEMA.names
    assert faces.manifest["image_id"].is_unique
    for index, row in faces.manifest.iterrows():
        assert decode_image(faces.image_bytes(index)).shape == (row["height"], row["width"], 3)


def many(root: Path, number: int) -> Path:
    rows = []
    for index in range(number):
        path = f"{index % 3}/{index}.jpg"
        put(root, path, encoded(pixels(index)) if index % 10 else b"")
        rows.append(line(path, index % 8))
    return write_manual(root, rows)


def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    root = many(tmp_path / "root", 150)
    one, two = run(root, tmp_path / "one"), run(root, tmp_path / "two", workers=2)
    assert one.header == two.header
    for file in sorted(one.path.iterdir()):
        assert file.read_bytes() == (two.path / file.name).read_bytes(), file.name


def test_images_spread_over_shards_are_read_back_in_any_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = many(tmp_path / "root", 60)
    whole = run(root, tmp_path / "whole")
    monkeypatch.setattr(shards, "BATCH_ROWS", 7)
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    faces = run(root, tmp_path / "faces")
    assert faces.header["digest"] == whole.header["digest"]
    assert len(list(faces.path.glob("images-*.arrow"))) == 8
    copy = pickle.loads(pickle.dumps(faces))  # noqa: S301
    for index in range(len(faces)):
        assert bytes(faces.image_bytes(index)) == bytes(whole.image_bytes(index)) == bytes(copy.image_bytes(index))


def test_too_many_losses_stop_the_run_with_the_main_reason_and_an_example(tmp_path: Path) -> None:
    root = many(tmp_path / "root", 50)
    lost = 5 + 1  # the empty files, and the validation list's missing one
    assert len(run(root, tmp_path / "kept", max_quarantined=lost / 51)) == 45
    with pytest.raises(DataError) as error:
        run(root, tmp_path / "faces", max_quarantined=0.11)
    text = str(error.value)
    for words in ("6 of 51", "'zero_byte'", "'0/0.jpg'", "row 2", "--max-quarantined"):
        assert words in text, text
    assert not (tmp_path / "faces").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "root"]


def test_exactly_the_share_that_may_be_lost_does_not_stop_a_run(tmp_path: Path) -> None:
    put(tmp_path / "root", "1/a.jpg", encoded(pixels(1)))
    rows = [line("1/a.jpg", valence=f"0.{number:03d}") for number in range(71)]
    bad = [line(f"1/{number}.jpg", 11) for number in range(29)]
    faces = run(write_manual(tmp_path / "root", rows, bad), tmp_path / "faces", max_quarantined=0.29)
    assert (len(faces), len(faces.quarantine)) == (71, 29)


def test_a_source_with_no_usable_face_is_an_error_whatever_may_be_lost(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        run(write_manual(tmp_path / "root", [line("1/a.jpg")]), tmp_path / "faces")
    with pytest.raises(DataError, match="no face of the eight expressions"):
        run(write_manual(tmp_path / "other", [line("1/a.jpg", 8)], [line("1/b.jpg", 9)]), tmp_path / "faces")


def test_the_same_content_under_several_names_shares_a_group_and_conflicts_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "root"
    lossless = encoded(pixels(1, 60, 60), "PNG")
    put(root, "1/a.png", lossless)
    put(root, "1/b.png", lossless)
    put(root, "1/same_pixels.bmp", encoded(pixels(1, 60, 60), "BMP"))
    put(root, "1/two_faces.jpg", encoded(pixels(2, 200, 100)))
    put(root, "1/other.jpg", encoded(pixels(3)))
    box = "0,0,60,60"
    rows = [
        line("1/a.png", 1, box), line("1/same_pixels.bmp", 2, box), line("1/two_faces.jpg", 1),
        line("1/two_faces.jpg", 3, "110,10,80,80"), line("1/other.jpg", 1),
    ]  # fmt: skip
    faces = run(write_manual(root, rows, [line("1/b.png", 1, box)]), tmp_path / "faces")
    first, same, left, right, other, copy = faces.manifest["group"]
    assert first == same == copy
    assert left == right
    assert len({first, left, other}) == 3
    assert faces.header["conflicting_labels"] == 1
    assert faces.header["groups_of_several"] == 2


def test_groups_join_over_several_steps_and_do_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    sources = [f"s{number}" for number in rng.integers(0, 60, 100)]
    crops = [f"c{number:03d}" for number in rng.integers(0, 60, 100)]
    groups = find_groups(sources, crops)
    order = rng.permutation(100)
    shuffled = find_groups([sources[i] for i in order], [crops[i] for i in order])
    assert [groups[i] for i in order] == shuffled
    for index, (source, crop) in enumerate(zip(sources, crops, strict=True)):
        alike = [g for g, s, c in zip(groups, sources, crops, strict=True) if s == source or c == crop]
        assert set(alike) == {groups[index]}
    assert find_groups(["a", "a", "b", "c"], ["2", "1", "2", "3"]) == ["a", "a", "a", "c"]


def test_no_valence_is_stored_as_null(tmp_path: Path) -> None:
    root = write_manual(
        tmp_path / "root", [line("1/a.jpg", 0, valence="-2")], [line("1/a.jpg", 0, valence="0.75")]
    )
    put(root, "1/a.jpg", encoded(pixels(1)))
    faces = run(root, tmp_path / "faces")
    assert np.isnan(faces.manifest["valence"][0])
    assert faces.manifest["valence"][1] == 0.75
    assert faces.header["unusable_cells"] == {"valence": 1}


def test_a_changed_shard_or_a_manifest_of_other_rows_is_refused(tmp_path: Path) -> None:
    faces = run(many(tmp_path / "root", 20), tmp_path / "faces")
    shard = faces.path / "images-00000.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"images-00000\.arrow"):
        Faces.open(faces.path)
    with pytest.raises(ArtifactError):
        Faces.open(tmp_path / "root")


def test_a_header_line_alone_is_no_face(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        run(write_manual(tmp_path / "root", [], [HEADER]), tmp_path / "faces")


def test_all_real_faces_are_kept_with_their_pixels(tmp_path: Path, test_data: Path) -> None:
    root = tmp_path / "some"
    root.mkdir()
    (root / "images").symlink_to(test_data / "ferplus" / "images")
    lines = (test_data / "ferplus" / "labels.csv").read_text().splitlines()[:301]
    # Named as in images/, so that the table's paths stay within the linked folder.
    (root / "labels.csv").write_text("\n".join(lines).replace("images/", ""))
    faces = run(root, tmp_path / "faces", max_quarantined=0.0)
    assert len(faces) == 300
    assert set(faces.manifest["width"]) == {48}
