"""Artifacts: folders that steps pass on, each with a header that says what is in it.

A folder is written under a temporary name, synced and renamed when whole, so a killed step leaves nothing that
looks finished; what it leaves is removed by the next writer. Its header is a JSON file with ``artifact`` (the
kind), ``schema_version`` and ``files`` (bytes and SHA-256 of every other file); :func:`open_artifact` checks all
of them.
"""

import contextlib
import ctypes
import fcntl
import glob
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
#: Bytes of a file name, on the file systems of Linux.
_LONGEST_NAME = 255
_ENTRY = {"bytes", "sha256"}
_PARTIAL = ".partial"
#: Of Linux's renameat2.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


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
    _remove_abandoned(final)
    temporary = final.parent / f".{final.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}"
    temporary.mkdir()
    try:
        with _owned(temporary):
            yield temporary
            _write_header(temporary, kind, header or {})
            for file in (*temporary.iterdir(), temporary):
                sync(file)
            _replace_folder(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_file(path: str | Path, content: str | bytes) -> None:
    """Write a page or another single file as artifacts are written: an older one stays until the new one is whole.

    Args:
        path: of the file; its folder is made where it is missing.
        content: text is written as UTF-8.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(final)
    temporary = final.parent / f".{final.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}"
    try:
        temporary.touch()
        with _owned(temporary):
            temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
            sync(temporary)
            temporary.replace(final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(final.parent)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk and not only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        if "/" in name or "\0" in name or name in {"", ".", ".."} or len(name.encode()) > _LONGEST_NAME:
            raise _wrong(folder / HEADERS[kind], f"the file name {name!r}", "plain names of files beside it")
        if not isinstance(entry, dict) or not entry.keys() >= _ENTRY or not isinstance(entry["sha256"], str):
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


@contextlib.contextmanager
def _owned(path: Path) -> Iterator[None]:
    """Hold a lock on a folder or file that ends with this process, however it ends."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(final: Path) -> None:
    """Remove temporary folders and files for this name whose writer is dead."""
    for left in final.parent.glob(f".{glob.escape(final.name)}.*{_PARTIAL}"):
        try:
            descriptor = os.open(left, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()
        except OSError:  # its writer is alive
            continue
        finally:
            os.close(descriptor)


def _replace_folder(temporary: Path, final: Path) -> None:
    """Give ``temporary`` the name ``final`` at once, and delete an older folder of that name."""
    if final.exists():
        if not _exchange(temporary, final):
            # A kill between the two renames leaves none under this name, and the older one beside it.
            final.rename(temporary.with_suffix(".old"))
            temporary.rename(final)
            temporary = temporary.with_suffix(".old")
        sync(final.parent)
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.rename(final)
        sync(final.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap the names of two folders in one step, where the system can (Linux); return whether it did."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _wrong(path: Path, got: str, wanted: str) -> ArtifactError:
    line = what_got_wanted(
        str(path), got=got, wanted=wanted, do="run the step that writes it again, or pass the right path"
    )
    return ArtifactError(line)
