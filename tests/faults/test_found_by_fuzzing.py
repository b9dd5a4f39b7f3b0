"""What fuzzing found: each of these once ended in a traceback, or in memory without bound."""

import io
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from fuzz_edits import damage_table
from fuzz_limits import limits
from fuzz_targets import Target, run_case, targets
from small_pipeline import SmallPipeline

from affectflow.artifacts import dump_json, open_artifact
from affectflow.data.crops import decode_image
from affectflow.data.listing import list_faces
from affectflow.errors import AffectflowError, ArtifactError, CheckpointError, DataError, what_got_wanted


@pytest.fixture(scope="module")
def readers(pipeline: SmallPipeline) -> dict[str, Target]:
    return targets(pipeline)


def refused(target: Target, data: bytes, folder: Path, words: str) -> None:
    with limits(), pytest.raises(AffectflowError, match=words):
        target.read(data, folder)


def changed(content: bytes, change: Callable[[pa.Table], pa.Table]) -> bytes:
    from fuzz_targets import _open_table, _table_bytes

    return _table_bytes(change(_open_table(content, "x.parquet")), "x.parquet")


def with_cell(name: str, value: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        values = table.column(place).to_pylist()
        values[0] = value
        return table.set_column(place, table.field(place), pa.array(values, table.field(place).type))

    return change


@pytest.mark.parametrize(
    ("reader", "cell", "value", "words"),
    [
        ("manifest.parquet, cells", "shard", -1, "a face in no image shard"),
        ("manifest.parquet, cells", "shard", 2**31 - 1, "a face in no image shard"),  # once 16 GB
        ("manifest.parquet, cells", "shard_row", 2**31 - 1, "images, wanted"),
        ("manifest.parquet, cells", "expression", None, "1 rows without expression"),
        ("manifest.parquet, cells", "expression", 8, "an expression outside 0 to 7"),
        ("splits.parquet, cells", "image_id", "nobody", "faces that the dataset does not have"),
        ("splits.parquet, cells", "expression", -1, "an expression outside 0 to 7"),
        ("splits.parquet, cells", "split", "x", "a split of another name"),
        ("predictions.parquet, cells", "image_id", None, "1 rows without image_id"),
    ],
)
def test_a_cell_that_no_step_writes(
    reader: str, cell: str, value: Any, words: str, readers: dict[str, Target], fast_folder: Path
) -> None:
    refused(readers[reader], changed(readers[reader].seeds[0], with_cell(cell, value)), fast_folder, words)


@pytest.mark.parametrize("metadata", [b"{", b"{}", b'{"index_columns": 3}', b"\xff"])
def test_metadata_for_pandas_is_not_looked_at(
    metadata: bytes, readers: dict[str, Target], fast_folder: Path
) -> None:
    target = readers["manifest.parquet, cells"]
    content = changed(target.seeds[0], lambda table: table.replace_schema_metadata({b"pandas": metadata}))
    assert run_case(target, content, fast_folder)


@pytest.mark.parametrize("kind", ["splits", "predictions", "history", "manifest", "quarantine"])
def test_a_table_that_is_no_table(kind: str, readers: dict[str, Target], fast_folder: Path) -> None:
    refused(readers[f"{kind}.parquet, bytes"], b"PAR1 nothing PAR1", fast_folder, "an unreadable table")


def test_text_in_a_table_that_is_no_text(readers: dict[str, Target], fast_folder: Path) -> None:
    target = readers["history.parquet, cells"]
    texts = pa.array([b"\xff\xfe"] * 3).view(pa.string())
    content = changed(target.seeds[0], lambda table: table.set_column(0, "epoch", texts))
    refused(target, content, fast_folder, "an unreadable table")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"bytes": 3}, "its bytes and its sha256"),
        (3, "its bytes and its sha256"),
        ({"bytes": 1, "sha256": 0}, "its bytes"),
    ],
)
def test_a_header_whose_entry_of_a_file_is_broken(entry: Any, words: str, tmp_path: Path) -> None:
    dump_json(tmp_path / "splits.json", {"artifact": "splits", "schema_version": 1, "files": {"x": entry}})
    with pytest.raises(ArtifactError, match=words):
        open_artifact(tmp_path, "splits")


@pytest.mark.parametrize("value", ["NaN", '"\\ud800"', "[" * 100_000])
def test_a_header_with_what_has_no_digest(value: str, tmp_path: Path) -> None:
    (tmp_path / "splits.json").write_text(
        f'{{"artifact": "splits", "schema_version": 1, "files": {{}}, "x": {value}'
    )
    with (tmp_path / "splits.json").open("a") as file:
        file.write("]" * 100_000 + "}" if value[0] == "[" else "}")
    with pytest.raises(ArtifactError, match="unreadable JSON"):
        open_artifact(tmp_path, "splits")


@pytest.mark.parametrize(
    ("reader", "change", "words"),
    [
        ("model.json", {"backbone": 0.5}, "backbone 0.5"),
        ("model.json", {"backbone_args": {"x": 1}}, "fields that build no model"),
        ("model.json", {"feature_dim": 10**12}, "feature_dim"),
        ("model.json", {"classes": 8}, "classes 8"),
        ("metrics.json", {"model": None}, "model None"),
        ("metrics.json", {"test": {}}, "test.n"),
        ("metrics.json", {"test_set_digest": 1}, "test_set_digest 1"),
        ("tracking.json", {"run_id": "../x"}, "no run's id"),
    ],
)
def test_a_header_with_a_field_of_another_type(
    reader: str,
    change: dict[str, Any],
    words: str,
    readers: dict[str, Target],
    fast_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    header = json.loads(readers[reader].seeds[0]) | change
    refused(readers[reader], json.dumps(header).encode(), fast_folder, words)


def test_an_error_is_one_short_printable_line() -> None:
    line = what_got_wanted("x" * 5000, got="a\nb\x1b[31m\0\ud800" + "y" * 5000, wanted="\r", do="\u202e")
    assert len(line) < 2000
    assert line.isprintable()
    assert r"a b\x1b[31m\x00\ud800" in line


@pytest.mark.parametrize("image", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\nxxxx", b"GIF89a"])
def test_a_stored_face_that_is_none(image: bytes) -> None:
    with pytest.raises(DataError, match="a stored face"):
        decode_image(image)


def test_a_stored_face_that_claims_a_billion_pixels_is_not_decoded() -> None:
    import simplejpeg

    content = bytearray(simplejpeg.encode_jpeg(np.zeros((100, 100, 3), np.uint8)))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = (40_000).to_bytes(2, "big") * 2
    with pytest.raises(DataError, match="40000 × 40000"):
        decode_image(bytes(content))


def test_a_shard_with_a_row_without_an_image(readers: dict[str, Target], fast_folder: Path) -> None:
    from fuzz_targets import _open_table, _table_bytes

    target = readers["images-00000.arrow, cells"]
    table = with_cell("image", None)(_open_table(target.seeds[0], "x.arrow"))
    refused(target, _table_bytes(table, "x.arrow"), fast_folder, "rows without an image")


@pytest.mark.parametrize("missing", ["model", "loss", "progress", "optimizer", "scaler", "random"])
def test_a_checkpoint_without_an_entry(missing: str, readers: dict[str, Target], fast_folder: Path) -> None:
    target = readers["checkpoint, entries"]
    state = torch.load(io.BytesIO(target.seeds[0]), weights_only=True)
    del state[missing]
    stream = io.BytesIO()
    torch.save(state, stream)
    with pytest.raises(CheckpointError, match="entries that do not fit"):
        target.read(stream.getvalue(), fast_folder)


def test_a_checkpoint_that_says_it_is_past_its_end(readers: dict[str, Target], fast_folder: Path) -> None:
    target = readers["checkpoint, entries"]
    state = torch.load(io.BytesIO(target.seeds[0]), weights_only=True)
    state["progress"]["epoch"] = 99
    stream = io.BytesIO()
    torch.save(state, stream)
    with pytest.raises(CheckpointError, match="entries that do not fit"):
        target.read(stream.getvalue(), fast_folder)


def npy(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "annotation",
    [
        npy(b"{'descr': '<i8', ('"),  # once a TokenError
        npy(b"{'descr': '<U1', 'fortran_order': False, 'shape': (), }\n", b"\xff\xff\xff\xff"),  # a SystemError
        npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999,), }\n"),  # a MemoryError
    ],
)
def test_an_annotation_that_is_no_array(annotation: bytes, tmp_path: Path) -> None:
    for name in ("train_set", "val_set"):
        (tmp_path / name / "images").mkdir(parents=True)
        (tmp_path / name / "annotations").mkdir()
        np.save(tmp_path / name / "annotations" / "1_exp.npy", 3)
    (tmp_path / "train_set" / "annotations" / "2_exp.npy").write_bytes(annotation)
    with limits():
        listing = list_faces(tmp_path, "npy")
    assert [row.reason.value for row in listing.quarantined] == ["bad_label"]


def test_ingests_kept_shard_that_is_damaged_is_done_again(
    readers: dict[str, Target], fast_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = readers["ingest's kept shard"]
    target.read(target.seeds[0][:40] + b"\xff" * 8 + target.seeds[0][48:], fast_folder)
    assert "damaged" in capsys.readouterr().err


def test_the_damages_do_damage(readers: dict[str, Target]) -> None:
    """Fuzzing with what is left as it was would find nothing."""
    for target in readers.values():
        cases = [target.case(random.Random(number)) for number in range(30)]
        assert sum(case not in target.seeds for case in cases) > 15, target.name
    assert damage_table(pa.table({"a": [1, 2]}), random.Random(0)) is not None


def test_a_listed_file_name_that_no_file_can_have_is_refused(
    pipeline: SmallPipeline, readers: dict[str, Target], tmp_path: Path
) -> None:
    header = json.loads((pipeline.artifact("predictions") / "predictions.json").read_text())
    header["files"]["9" * 300] = next(iter(header["files"].values()))
    refused(readers["predictions.json"], json.dumps(header).encode(), tmp_path, "plain names of files beside it")


def test_weights_in_a_zip_of_several_parts_are_refused(readers: dict[str, Target], tmp_path: Path) -> None:
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 1, 0, 2)  # of the second of two parts
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0)
    refused(readers["weights .pth"], b"\0" * 64 + locator + end, tmp_path, "broken pickle")
