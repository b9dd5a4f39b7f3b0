"""What is fuzzed: each reader of files, with good files to damage.

A reader may accept what it is given, put a face into the quarantine, or raise an ``AffectflowError`` of one line.
Anything else that it raises, a hang, or memory beyond :data:`MEMORY` is a fault.

Artifacts' headers hold a digest of every file, so a damaged file alone would be refused by its digest. Here it is
given the header that fits it: what is tested is the parser behind.
"""

import contextlib
import functools
import hashlib
import io
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fuzz_edits import damage, damage_json, damage_table, damage_tree
from PIL import Image
from safetensors.torch import save_file
from small_pipeline import SmallPipeline

from affectflow.artifacts import HEADERS, sha256_file
from affectflow.data.class_weights import read_class_weights
from affectflow.data.crops import make_crop, salvage
from affectflow.data.faces import Faces
from affectflow.data.layouts.manual import COLUMNS, IMAGES, LISTS
from affectflow.data.listing import list_faces
from affectflow.data.manifest import OUTCOME_SCHEMA
from affectflow.data.quarantine import FaceError
from affectflow.data.resume import ShardCheckpoints
from affectflow.errors import AffectflowError
from affectflow.models import load_model
from affectflow.models.pretrained import parse_timm_kwargs
from affectflow.models.weight_files import read_weights, read_weights_metadata
from affectflow.report.comparison import compare
from affectflow.storage import open_storage
from affectflow.tracking import existing_run
from affectflow.training.checkpoints import CheckpointStore
from affectflow.training.inputs import open_inputs
from components.compare_runs.step import read_run

#: Bytes of address space that reading one file may take beyond what the process has.
MEMORY = 1536 << 20
#: Seconds that reading one file may take.
SECONDS = 10.0
#: Characters that the line of an error may have.
LONGEST_LINE = 4000

_LANDMARKS = ";".join("1.5;2.5" for _ in range(68))


@dataclass(frozen=True)
class Target:
    """A reader to be fuzzed.

    Attributes:
        name: as the table of results shows it.
        seeds: good files.
        read: gives a file's bytes to the reader; the folder is the target's own, and is kept between cases.
        change: damages a good file.
    """

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes, Path], None]
    change: Callable[[bytes, random.Random], bytes]

    def case(self, chance: random.Random) -> bytes:
        """Return a damaged file."""
        return self.change(chance.choice(self.seeds), chance)


class TooLongAnErrorError(Exception):
    """An error that its user must read is not one line, or a very long one."""


def run_case(target: Target, data: bytes, folder: Path) -> bool:
    """Give bytes to a target; return whether they were accepted. Every exception that this raises is a fault."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            target.read(data, folder)
        except AffectflowError as error:
            line = str(error)
            if "\n" in line or len(line) > LONGEST_LINE:
                raise TooLongAnErrorError(line[:500]) from error
            return False
    return True


def targets(pipeline: SmallPipeline) -> dict[str, Target]:
    """Return all targets by name; ``pipeline`` gives the good artifacts."""
    found = [
        *_lists(),
        *_images(),
        *_tables(pipeline),
        *_headers(pipeline),
        *_weights(pipeline),
        *_checkpoints(pipeline),
    ]
    return {target.name: target for target in found}


def _bytes_target(name: str, seeds: tuple[bytes, ...], read: Callable[[bytes, Path], None]) -> Target:
    return Target(name, seeds, read, functools.partial(damage, others=seeds))


# Lists


def _lists() -> Iterator[Target]:
    rows = (
        f"a/1.jpg,1,2,30,40,{_LANDMARKS},1,0.5,0.25\n../x.jpg,NULL,,-1,nan,,7,-2,-2\n"
        f'"b, 2.PNG",1.0,2.0,3e1,40,{_LANDMARKS},10,-2,-2\n'
    )
    manual = (",".join(COLUMNS) + "\n" + rows).encode()
    tables = (
        b"path,label\na.jpg,happy\nb.jpg,3\nc.jpg,\n",
        b'\xef\xbb\xbfimage;emotion;valence\r\nx/y.jpg;anger;0.5\r\n"q""uote.jpg";7;nan\r\n',
        b"filename\texpression\n\xff.jpg\t1\n\tsad\n",
        manual,
    )

    def read_table(data: bytes, folder: Path) -> None:
        (folder / "labels.csv").write_bytes(data)
        _read_listed(folder, "csv")

    def read_manual(data: bytes, folder: Path) -> None:
        (folder / LISTS).mkdir(exist_ok=True)
        (folder / IMAGES).mkdir(exist_ok=True)
        (folder / LISTS / "training.csv").write_bytes(data)
        (folder / LISTS / "validation.csv").write_bytes(b"v.jpg,1,2,30,40,,1,0,0\n")
        _read_listed(folder, "manual")

    def read_npy(data: bytes, folder: Path) -> None:
        for name in ("train_set", "val_set"):
            (folder / name / "images").mkdir(parents=True, exist_ok=True)
            (folder / name / "annotations").mkdir(exist_ok=True)
        for kind in ("exp", "val", "aro", "lnd"):
            (folder / "train_set" / "annotations" / f"7_{kind}.npy").write_bytes(data)
        (folder / "val_set" / "annotations" / "8_exp.npy").write_bytes(data)
        _read_listed(folder, "npy")

    yield _bytes_target("csv list", tables, read_table)
    yield _bytes_target("AffectNet list", (manual, rows.encode()), read_manual)
    yield _bytes_target("npy annotation", _arrays(), read_npy)


def _read_listed(folder: Path, layout: str) -> None:
    listing = list_faces(folder, layout)
    listing.digest()
    for face in listing.faces[:20]:
        with contextlib.suppress(FaceError):
            content = listing.source.read(face.folders, face.source_path)
            raise AssertionError(f"{face.source_path!r} gave {len(content)} bytes from outside the source")
    for row in listing.quarantined:
        (row.source_path + row.detail + row.source_list).encode()


def _arrays() -> tuple[bytes, ...]:
    values = (
        np.array(3),
        np.array("3"),
        np.array(b"3"),
        np.array([0.5]),
        np.arange(136.0),
        np.array([1 + 2j]),
        np.zeros((2, 2), np.float16),
        np.array("2020-01-01", "M8[D]"),
        np.array([(1, 2.0)], "i4,f8"),
    )
    found = []
    for value in values:
        stream = io.BytesIO()
        np.save(stream, value)
        found.append(stream.getvalue())
    return tuple(found)


# Images


def _images() -> Iterator[Target]:
    for kind in ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM"):
        yield _bytes_target(f"{kind} picture", _pictures(kind), _read_picture)


def _pictures(kind: str) -> tuple[bytes, ...]:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    colour = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x0112] = 6
    variants: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "JPEG": [("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"exif": turned, "progressive": True})],
        "PNG": [("RGB", {}), ("RGBA", {"exif": turned}), ("P", {}), ("1", {}), ("I;16", {})],
        "BMP": [("RGB", {}), ("P", {}), ("1", {})],
        "TIFF": [
            ("RGB", {}),
            ("L", {"compression": "tiff_lzw"}),
            ("RGB", {"compression": "jpeg"}),
            ("RGB", {"compression": "tiff_deflate"}),
            ("CMYK", {}),
            ("1", {"compression": "group4"}),
        ],
        "GIF": [("P", {})],
        "WEBP": [("RGB", {}), ("RGBA", {"lossless": True})],
        "PPM": [("RGB", {}), ("L", {})],
    }
    found = []
    for mode, options in variants[kind]:
        stream = io.BytesIO()
        picture = (
            Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 200) if mode == "I;16" else colour.convert(mode)
        )
        picture.save(stream, kind, **options)
        found.append(stream.getvalue())
    return tuple(found)


def _read_picture(data: bytes, folder: Path) -> None:
    box = ((1.0, 2.0, 30.0, 20.0), None, (-1e9, -5.0, 1e300, 40.0))[len(data) % 3]
    for action in (
        lambda: make_crop(data, box, face_size=32, margin=0.1, jpeg_quality=90, with_perceptual_hash=False),
        lambda: salvage(data, 24),
    ):
        with contextlib.suppress(FaceError):
            action()


# Tables of artifacts


def _tables(pipeline: SmallPipeline) -> Iterator[Target]:
    for kind, name in (
        ("faces", "manifest.parquet"),
        ("faces", "quarantine.parquet"),
        ("faces", "images-00000.arrow"),
        ("splits", "splits.parquet"),
        ("predictions", "predictions.parquet"),
        ("history", "history.parquet"),
    ):
        content = (pipeline.artifact(kind) / name).read_bytes()
        seeds = (content, *((_small_table(content, name),) if name != "history.parquet" else ()))
        yield _bytes_target(f"{name}, bytes", seeds, functools.partial(_read_artifact, pipeline, kind, name))
        yield Target(
            f"{name}, cells",
            seeds,
            functools.partial(_read_artifact, pipeline, kind, name),
            functools.partial(_damage_table_file, name),
        )


def _open_table(content: bytes, name: str) -> pa.Table:
    if name.endswith(".arrow"):
        return pa.ipc.open_file(pa.BufferReader(content)).read_all()
    return pq.read_table(pa.BufferReader(content))


def _table_bytes(table: pa.Table, name: str, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    if name.endswith(".arrow"):
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def _small_table(content: bytes, name: str) -> bytes:
    options = {} if name.endswith(".arrow") else {"compression": "snappy", "use_dictionary": False}
    return _table_bytes(_open_table(content, name).slice(0, 3), name, **options)


def _damage_table_file(name: str, content: bytes, chance: random.Random) -> bytes:
    return _table_bytes(damage_table(_open_table(content, name), chance), name)


def _read_artifact(pipeline: SmallPipeline, kind: str, name: str, data: bytes, folder: Path) -> None:
    """Put bytes in the place of one file of an artifact, mend its header, and read it as its readers do."""
    copy = folder / kind
    if not copy.is_dir():
        shutil.copytree(pipeline.artifact(kind), copy)
    (copy / name).write_bytes(data)
    header_file = copy / HEADERS[kind]
    if name != header_file.name:
        header = json.loads((pipeline.artifact(kind) / HEADERS[kind]).read_bytes())
        header["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        header_file.write_text(json.dumps(header))
    _READERS[kind](pipeline, copy)


def _read_faces(pipeline: SmallPipeline, folder: Path) -> None:
    faces = Faces.open(folder)
    _ = faces.quarantine, faces.expression.tolist()
    for picture in faces.images(range(0, len(faces), 1 + len(faces) // 10)):
        picture.sum()


def _read_splits(pipeline: SmallPipeline, folder: Path) -> None:
    for part in open_inputs(pipeline.artifact("faces"), folder).splits.values():
        _ = part.digest, part.counts


def _read_evaluation(pipeline: SmallPipeline, folder: Path) -> None:
    other = "metrics" if folder.name == "predictions" else "predictions"
    if not (folder.parent / other).is_dir():
        shutil.copytree(pipeline.artifact(other), folder.parent / other)
    compare([read_run(str(folder.parent))], resamples=2, seed=0)


def _read_history_artifact(pipeline: SmallPipeline, folder: Path) -> None:
    from components.compare_runs.step import _read_history

    _read_history(folder)


_READERS: dict[str, Callable[[SmallPipeline, Path], Any]] = {
    "faces": _read_faces,
    "splits": _read_splits,
    "class_weights": lambda pipeline, folder: read_class_weights(folder),
    "model": lambda pipeline, folder: load_model(folder),
    "history": _read_history_artifact,
    "predictions": _read_evaluation,
    "metrics": _read_evaluation,
}


def _headers(pipeline: SmallPipeline) -> Iterator[Target]:
    for kind in _READERS:
        name = HEADERS[kind]
        seeds = ((pipeline.artifact(kind) / name).read_bytes(),)
        yield Target(name, seeds, functools.partial(_read_artifact, pipeline, kind, name), damage_json)
    yield Target("tracking.json", (b'{"run_id": "0123456789abcdef0123456789abcdef"}',), _read_sidecar, damage_json)


def _read_sidecar(data: bytes, folder: Path) -> None:
    (folder / "tracking.json").write_bytes(data)
    existing_run(folder)


# Weights


def _weights(pipeline: SmallPipeline) -> Iterator[Target]:
    state = {
        "conv1.weight": torch.rand(4, 3, 3, 3),
        "bn.weight": torch.ones(4),
        "bn.num_batches_tracked": torch.tensor(0),
    }
    arrays = {name: value.numpy() for name, value in state.items()}
    yield _bytes_target("weights .safetensors", _safetensors(state), _read_weights)
    yield _bytes_target("weights .pth", _torch_files(state), _read_weights)
    yield _bytes_target("weights .pkl", _pickles(arrays), _read_weights)
    name = "model.safetensors"
    good = (pipeline.artifact("model") / name).read_bytes()
    yield _bytes_target(name, (good,), functools.partial(_read_artifact, pipeline, "model", name))


def _safetensors(state: dict[str, torch.Tensor]) -> tuple[bytes, ...]:
    import tempfile

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for metadata in ({"format": "pt"}, {"timm": "resnet50", "timm_kwargs": "pad_type=same,x=1"}):
            save_file(state, Path(folder) / "w", metadata=metadata)
            found.append((Path(folder) / "w").read_bytes())
    return tuple(found)


def _torch_files(state: dict[str, torch.Tensor]) -> tuple[bytes, ...]:
    found = []
    for value, options in (
        (state, {}),
        (state, {"_use_new_zipfile_serialization": False}),
        ({"model": state, "epoch": 3}, {}),
        ({"w": torch.zeros(2, 2).to_sparse()}, {}),
        ({"w": torch.rand(2, 2).t()}, {}),
    ):
        stream = io.BytesIO()
        torch.save(value, stream, **options)
        found.append(stream.getvalue())
    return tuple(found)


def _pickles(arrays: dict[str, np.ndarray[Any, Any]]) -> tuple[bytes, ...]:
    import pickle

    return tuple(pickle.dumps(arrays, protocol=protocol) for protocol in (0, 2, 4, 5))


def _read_weights(data: bytes, folder: Path) -> None:
    (folder / "weights").write_bytes(data)
    parse_timm_kwargs(read_weights_metadata(folder / "weights").get("timm_kwargs", ""))
    read_weights(folder / "weights")


# What a killed step goes on from


def _checkpoints(pipeline: SmallPipeline) -> Iterator[Target]:
    trainer = _trainer(pipeline)
    state = _saved_state(trainer)
    stream = io.BytesIO()
    torch.save({"version": 1, **state}, stream)
    yield _bytes_target("checkpoint, bytes", (stream.getvalue(),), functools.partial(_resume, trainer))
    yield Target(
        "checkpoint, entries", (stream.getvalue(),), functools.partial(_resume, trainer), _damage_checkpoint
    )
    outcomes = pa.table(
        {name: pa.nulls(3, kind) for name, kind in zip(OUTCOME_SCHEMA.names, OUTCOME_SCHEMA.types, strict=True)},
        schema=OUTCOME_SCHEMA,
    )
    table = _table_bytes(outcomes, "outcomes.parquet")
    yield _bytes_target("ingest's kept shard", (table,), _restore_outcomes)
    record = json.dumps({"start": 0, "outcomes": hashlib.sha256(table).hexdigest(), "images": None}).encode()
    yield Target("ingest's record", (record,), functools.partial(_restore_record, table), damage_json)


def _trainer(pipeline: SmallPipeline) -> Any:
    """Return a trainer whose model is one layer, so that its checkpoints are small."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
    from small_trainer import build_trainer

    trainer = build_trainer(open_inputs(pipeline.artifact("faces"), pipeline.artifact("splits")))
    trainer.model = torch.nn.Linear(3, 3)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1, momentum=0.9)
    trainer.model(torch.ones(1, 3)).sum().backward()
    trainer.optimizer.step()
    return trainer


def _saved_state(trainer: Any) -> dict[str, Any]:
    kept: list[dict[str, Any]] = []

    class Keeps:
        def save(self, state: dict[str, Any], *, step: int) -> None:
            kept.append(state)

    trainer.checkpoints = Keeps()
    trainer.progress.history.append({"epoch": 1.0, "val_uar": 0.2, "cluster_state": "active"})
    trainer.progress.best_epoch, trainer.progress.epoch = 0, 1
    trainer.progress.best_weights = dict(trainer.model.state_dict())
    trainer._save()
    return kept[0]


def _damage_checkpoint(content: bytes, chance: random.Random) -> bytes:
    tree = torch.load(io.BytesIO(content), weights_only=True)
    stream = io.BytesIO()
    torch.save(damage_tree(tree, chance), stream)
    return stream.getvalue()


def _resume(trainer: Any, data: bytes, folder: Path) -> None:
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    place = run / f"step-000000001-{hashlib.sha256(data).hexdigest()[:16]}"
    place.mkdir(parents=True)
    (place / "checkpoint.pt").write_bytes(data)
    trainer.checkpoints = CheckpointStore(open_storage(str(folder)), "run")
    trainer._resume()


def _restore_outcomes(data: bytes, folder: Path) -> None:
    record = {"start": 0, "outcomes": hashlib.sha256(data).hexdigest(), "images": None}
    _restore(data, json.dumps(record).encode(), folder)


def _restore_record(table: bytes, data: bytes, folder: Path) -> None:
    _restore(table, data, folder)


def _restore(table: bytes, record: bytes, folder: Path) -> None:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    (run / "outcomes-00000.parquet").write_bytes(table)
    (run / "shard-00000.json").write_bytes(record)
    ShardCheckpoints(open_storage(str(folder)), "run").restore(0, 0, folder / "images")


__all__ = ["LONGEST_LINE", "MEMORY", "SECONDS", "Target", "run_case", "sha256_file", "targets"]
