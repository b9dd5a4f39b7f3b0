"""Artifacts are whole or absent, and a changed one is named."""

import fcntl
import json
from pathlib import Path

import pytest

from affectflow.artifacts import (
    TRACKING_SIDECAR,
    artifact_digest,
    new_artifact,
    open_artifact,
    read_header,
    write_file,
)
from affectflow.errors import ArtifactError


def write_splits(path: Path, content: bytes = b"rows") -> None:
    with new_artifact(path, "splits", {"seed": 3}) as folder:
        (folder / "splits.parquet").write_bytes(content)


def test_header_holds_kind_schema_own_fields_and_files(tmp_path: Path) -> None:
    write_splits(tmp_path / "splits")
    header = open_artifact(tmp_path / "splits", "splits")
    assert (header["artifact"], header["schema_version"], header["seed"]) == ("splits", 1, 3)
    assert header["files"]["splits.parquet"]["bytes"] == 4


def test_failure_leaves_nothing_and_keeps_the_older_artifact(tmp_path: Path) -> None:
    write_splits(tmp_path / "splits", b"old")
    with pytest.raises(KeyError), new_artifact(tmp_path / "splits", "splits") as folder:
        (folder / "splits.parquet").write_bytes(b"new")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["splits"]
    assert (tmp_path / "splits" / "splits.parquet").read_bytes() == b"old"


def test_rewriting_replaces_the_older_artifact_whole(tmp_path: Path) -> None:
    with new_artifact(tmp_path / "splits", "splits") as folder:
        (folder / "left-over").write_bytes(b"")
    write_splits(tmp_path / "splits")
    assert sorted(path.name for path in (tmp_path / "splits").iterdir()) == ["splits.json", "splits.parquet"]
    assert [path.name for path in tmp_path.iterdir()] == ["splits"]


def test_same_content_has_the_same_bytes_and_digest(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_splits(tmp_path / name)
    texts = [(tmp_path / name / "splits.json").read_bytes() for name in ("a", "b")]
    assert texts[0] == texts[1]
    digests = {artifact_digest(open_artifact(tmp_path / name, "splits")) for name in ("a", "b")}
    assert len(digests) == 1


def test_sidecar_belongs_to_no_digest(tmp_path: Path) -> None:
    write_splits(tmp_path / "plain")
    with new_artifact(tmp_path / "tracked", "splits", {"seed": 3}) as folder:
        (folder / "splits.parquet").write_bytes(b"rows")
        (folder / TRACKING_SIDECAR).write_text('{"run_id": "1"}')
    plain, tracked = (open_artifact(tmp_path / name, "splits") for name in ("plain", "tracked"))
    assert artifact_digest(plain) == artifact_digest(tracked)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda folder: (folder / "splits.parquet").write_bytes(b"row!"), "changed content"),
        (lambda folder: (folder / "splits.parquet").write_bytes(b"rows+"), "5 bytes"),
        (lambda folder: (folder / "splits.parquet").unlink(), "no file"),
        (lambda folder: (folder / "splits.json").unlink(), "without splits.json"),
        (lambda folder: (folder / "splits.json").write_text("{"), "unreadable JSON"),
        (lambda folder: (folder / "splits.json").write_text("[]"), "without the field 'files'"),
        (lambda folder: (folder / "splits.json").write_bytes(b"\xff"), "unreadable JSON"),
    ],
)
def test_a_changed_artifact_is_named_in_one_line(tmp_path: Path, break_it, says: str) -> None:
    write_splits(tmp_path / "splits")
    break_it(tmp_path / "splits")
    with pytest.raises(ArtifactError) as caught:
        open_artifact(tmp_path / "splits", "splits")
    assert says in str(caught.value)
    assert str(tmp_path / "splits") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("schema_version", 99, "schema_version 99"), ("artifact", "faces", "kind 'faces'")],
)
def test_another_schema_or_kind_is_refused(tmp_path: Path, field: str, value: object, says: str) -> None:
    write_splits(tmp_path / "splits")
    file = tmp_path / "splits" / "splits.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(ArtifactError, match=says):
        read_header(tmp_path / "splits", "splits")


def test_a_file_name_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    write_splits(tmp_path / "splits")
    (tmp_path / "secret").write_bytes(b"rows")
    file = tmp_path / "splits" / "splits.json"
    header = json.loads(file.read_text())
    header["files"] = {"../secret": header["files"]["splits.parquet"]}
    file.write_text(json.dumps(header))
    with pytest.raises(ArtifactError, match="plain names"):
        open_artifact(tmp_path / "splits", "splits")


def test_an_artifact_of_another_kind_is_called_by_its_name(tmp_path: Path) -> None:
    write_splits(tmp_path / "splits")
    with pytest.raises(ArtifactError, match="an artifact of kind 'splits', wanted an artifact of kind 'model'"):
        open_artifact(tmp_path / "splits", "model")


def test_a_file_that_a_dead_writer_left_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    dead, living, other = (
        tmp_path / f".{name}.partial" for name in ("page.html.0", "page.html.1", "other.html.0")
    )
    for left in (dead, living, other):
        left.touch()
    with living.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        write_file(tmp_path / "page.html", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([living, other, tmp_path / "page.html"])
