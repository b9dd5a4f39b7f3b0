"""Artifacts: folders that steps pass on, each with a header that says what is in it.

A folder is written under a temporary name and renamed when whole, so a killed step leaves nothing that looks
finished. Its header is a JSON file with ``artifact`` (the kind), ``schema_version`` and ``files`` (bytes and
SHA-256 of every other file); :func:`open_artifact` checks all of them.
"""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from affectflow.errors import ArtifactError, what_got_wanted

SCHEMA_VERSION = 1

#: Kind of artifact (also the name of its folder) → its header file.
HEADERS = MappingProxyType(
    {
        "faces": "dataset.json",
        "splits": "splits.json",
        "class_weights": "class_weights.json",
        "model": "model.json",
        "history": "history.json",
        "predictions": "predictions.json",
        "metrics": "metrics.json",
        "comparison": "comparison.json",
    }
)

#: Stands beside ``model/`` and ``metrics/``'s files, names the MLflow run, and belongs to no digest.
TRACKING_SIDECAR = "tracking.json"

_CHUNK = 1 << 20
_ENTRY = {"bytes", "sha256"}


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value that does not depend on key order or white space."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def samples_digest(image_ids: Sequence[str], target: Sequence[int]) -> str:
    """Return the SHA-256 over samples and their classes: two models are compared on the same digest alone."""
    return canonical_digest([list(image_ids), [int(code) for code in target]])


def dump_json(path: Path, value: Any) -> None:
    """Write a JSON value for people and machines: indented, NaN refused, one trailing newline."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def new_artifact(path: str | Path, kind: str, header: dict[str, Any] | None = None) -> Iterator[Path]:
    """Give a temporary folder to fill; on leaving, write its header, sync it and rename it to ``path``.

    An older artifact at ``path`` is replaced only then. On an exception the temporary folder is removed and
    ``path`` is left as it was.

    Args:
        path: where the finished folder will stand.
        kind: one of :data:`HEADERS`.
        header: the header's own fields; may be filled until the context ends.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> header = {"counts": [3]}
        >>> with new_artifact(root / "splits", "splits", header) as folder:
        ...     _ = (folder / "splits.parquet").write_bytes(b"...")
        >>> open_artifact(root / "splits", "splits")["counts"]
        [3]
    """
    final = Path(path).absolute()
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.parent / f".{final.name}.{uuid.uuid4().hex[:8]}.partial"
    temporary.mkdir()
    try:
        yield temporary
        _write_header(temporary, kind, header or {})
        _sync_tree(temporary)
        _replace_folder(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def open_artifact(path: str | Path, kind: str) -> dict[str, Any]:
    """Check an artifact's kind, schema version, sizes and digests, and return its header.

    Args:
        path: the artifact's folder.
        kind: what it must be, one of :data:`HEADERS`.

    Raises:
        ArtifactError: it is missing, half-written, of another kind or schema, or a file has changed.
    """
    folder = Path(path)
    header = read_header(folder, kind)
    for name, entry in header["files"].items():
        file = folder / name
        if "/" in name or "\0" in name or name in {"", ".", ".."}:
            raise _wrong(folder / HEADERS[kind], f"the file name {name!r}", "plain names of files beside it")
        if not isinstance(entry, dict) or not _ENTRY <= entry.keys() or not isinstance(entry["sha256"], str):
            raise _wrong(folder / HEADERS[kind], f"{entry!r} about {name}", "its bytes and its sha256")
        if not file.is_file():
            raise _wrong(file, "no file", f"the one that {HEADERS[kind]} lists")
        if file.stat().st_size != entry["bytes"]:
            raise _wrong(file, f"{file.stat().st_size} bytes", f"{entry['bytes']} bytes")
        if sha256_file(file) != entry["sha256"]:
            raise _wrong(file, "changed content", f"SHA-256 {entry['sha256'][:12]}…")
    return header


def read_header(path: str | Path, kind: str) -> dict[str, Any]:
    """Return an artifact's header after checking its kind and schema, without reading its other files."""
    folder, name = Path(path), HEADERS[kind]
    file = folder / name
    if not folder.is_dir():
        raise _wrong(folder, "no such folder", f"an artifact of kind {kind!r}")
    if not file.is_file():
        others = [k for k, header in HEADERS.items() if (folder / header).is_file()]
        got = f"an artifact of kind {others[0]!r}" if others else f"a folder without {name}"
        raise _wrong(folder, got, f"an artifact of kind {kind!r}")
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
        canonical_digest(header)  # which NaN and text that is not UTF-8 do not have
    except (ValueError, RecursionError) as error:
        raise _wrong(file, f"unreadable JSON ({error})", "the header as it was written") from None
    if not isinstance(header, dict) or not isinstance(header.get("files"), dict):
        raise _wrong(file, "JSON without the field 'files'", "the header as it was written")
    if header.get("artifact") != kind:
        raise _wrong(file, f"kind {header.get('artifact')!r}", repr(kind))
    if header.get("schema_version") != SCHEMA_VERSION:
        raise _wrong(file, f"schema_version {header.get('schema_version')!r}", str(SCHEMA_VERSION))
    return header


def artifact_digest(header: dict[str, Any]) -> str:
    """Return the digest of a whole artifact, from its header (which holds every file's digest)."""
    return canonical_digest(header)


def _write_header(folder: Path, kind: str, fields: dict[str, Any]) -> None:
    name = HEADERS[kind]
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
        for file in sorted(folder.iterdir())
        if file.name not in {name, TRACKING_SIDECAR}
    }
    dump_json(folder / name, {"artifact": kind, "schema_version": SCHEMA_VERSION, **fields, "files": files})


def _sync_tree(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace_folder(temporary: Path, final: Path) -> None:
    """Rename ``temporary`` to ``final``, moving an older one out of the way first."""
    old = temporary.with_suffix(".old")
    if final.exists():
        final.rename(old)
    temporary.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _wrong(path: Path, got: str, wanted: str) -> ArtifactError:
    line = what_got_wanted(
        str(path), got=got, wanted=wanted, do="run the step that writes it again, or pass the right path"
    )
    return ArtifactError(line)
