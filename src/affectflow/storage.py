"""Files under one root that is a folder or ``s3://bucket/prefix``: read, written and listed in the same way.

What is written is whole or not there: a folder's files are written under a temporary name, synced and renamed; S3
shows an object when its upload has ended.
"""

import contextlib
import functools
import os
import shutil
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from typing_extensions import override

from affectflow.errors import (
    FULL_DISK,
    SettingsError,
    StorageError,
    StorageLimitError,
    StorageMissingError,
    what_got_wanted,
)

S3_SCHEME = "s3://"


class Entry(NamedTuple):
    """A file in a storage: its name relative to the root, with ``/`` between folders, and its size in bytes."""

    name: str
    size: int


class Storage(ABC):
    """Files under a root. Names are relative to it, with ``/`` between folders.

    All methods raise :class:`StorageError` (one line) where the root cannot be reached, read or written, and
    :class:`StorageMissingError` where a file that they need is not there.

    Attributes:
        root: as it was given.
    """

    root: str

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Return whether there is a file of this name."""

    @abstractmethod
    def entries(self, folder: str = "") -> list[Entry]:
        """Return every file in a folder and below, sorted by name; none where there is no such folder."""

    @abstractmethod
    def folders(self, folder: str = "") -> list[str]:
        """Return the names of the folders directly in a folder, sorted."""

    @abstractmethod
    def files(self, folder: str = "") -> list[str]:
        """Return the names of the files directly in a folder, sorted."""

    @abstractmethod
    def read(self, name: str, *, limit: int | None = None) -> bytes:
        """Return a file's content.

        Raises:
            StorageLimitError: it has more than ``limit`` bytes; its content was not read.
        """

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Return a stream to read a file from, which is never held in memory as a whole."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it."""

    @abstractmethod
    def put(self, name: str, file: Path) -> None:
        """Store a file of this machine under a name. In a folder it may be linked: do not change it later."""

    @abstractmethod
    def get(self, name: str, file: Path) -> None:
        """Write a stored file to a path of this machine. From a folder it may be linked: do not change it."""

    @abstractmethod
    def delete(self, folder: str = "") -> None:
        """Delete every file in a folder and below. It is no error when there is none."""


def is_s3(root: str) -> bool:
    """Return whether a root names a bucket."""
    return root.startswith(S3_SCHEME)


def join(*parts: str) -> str:
    """Return names joined with ``/``, empty ones left out."""
    return "/".join(part for part in parts if part)


@functools.cache
def open_storage(root: str) -> Storage:
    """Return the storage under ``root``. Nothing is created or reached yet; one process shares one client.

    Args:
        root: a folder's path, or ``s3://bucket`` or ``s3://bucket/prefix``.

    Raises:
        SettingsError: ``root`` is another address, or names no bucket.
    """
    if is_s3(root):
        from affectflow.s3 import S3Storage

        return S3Storage(root)
    if "://" in root or not root:
        raise SettingsError(
            what_got_wanted(
                "storage", got=repr(root), wanted="a folder or s3://bucket/prefix", do="pass one of these"
            )
        )
    return FolderStorage(root)


def file_exists(address: str) -> bool:
    """Return whether there is a file of this path or ``s3://`` address.

    Raises:
        StorageError: the bucket cannot be reached.
    """
    storage, name = _split(address)
    return storage.exists(name)


@contextlib.contextmanager
def local_file(address: str) -> Iterator[Path]:
    """Give the path of a file on this machine; one in S3 is copied, under its own name, until this is left.

    Args:
        address: a path, or ``s3://bucket/key``.

    Raises:
        StorageError: an object that cannot be read, or :class:`StorageMissingError` where there is none.
    """
    if not is_s3(address):
        yield Path(address)
        return
    storage, name = _split(address)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / name
        storage.get(name, copy)
        yield copy


def _split(address: str) -> tuple[Storage, str]:
    """Return the storage of a file and the file's name in it."""
    if not is_s3(address):
        path = Path(address)
        return open_storage(str(path.parent)), path.name
    folder, _, name = address.removeprefix(S3_SCHEME).rpartition("/")
    if not folder or not name:
        raise SettingsError(
            what_got_wanted("file", got=repr(address), wanted="s3://bucket/key", do="name bucket and key")
        )
    return open_storage(S3_SCHEME + folder), name


class FolderStorage(Storage):
    """Files in a folder, which is made when something is written.

    Args:
        root: the folder.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._path = Path(root)

    @override
    def exists(self, name: str) -> bool:
        with self._readable(name):
            return (self._path / name).is_file()
        return False

    @override
    def entries(self, folder: str = "") -> list[Entry]:
        with self._readable(folder):
            found = []
            for at, _, names in os.walk(self._path / folder):
                for file in (Path(at) / name for name in names if not name.endswith(_TEMPORARY)):
                    with contextlib.suppress(FileNotFoundError):  # another process has deleted it since
                        if file.is_file():
                            found.append(Entry(file.relative_to(self._path).as_posix(), file.stat().st_size))
        return sorted(found)

    @override
    def folders(self, folder: str = "") -> list[str]:
        return self._names(folder, Path.is_dir)

    @override
    def files(self, folder: str = "") -> list[str]:
        return self._names(folder, Path.is_file)

    def _names(self, folder: str, kind: Callable[[Path], bool]) -> list[str]:
        path = self._path / folder
        if not path.is_dir():
            return []
        with self._readable(folder):
            return sorted(entry.name for entry in path.iterdir() if kind(entry))
        return []

    @override
    def read(self, name: str, *, limit: int | None = None) -> bytes:
        with self.open(name) as stream:
            size = os.fstat(stream.fileno()).st_size
            check_limit(join(self.root, name), size, limit)
            return stream.read()

    @override
    def open(self, name: str) -> BinaryIO:
        with self._readable(name):
            return (self._path / name).open("rb")
        raise AssertionError

    @override
    def write(self, name: str, content: bytes) -> None:
        with self._new_file(name) as temporary:
            temporary.write_bytes(content)

    @override
    def put(self, name: str, file: Path) -> None:
        with self._new_file(name) as temporary:
            _link_or_copy(file, temporary)

    @override
    def get(self, name: str, file: Path) -> None:
        with self._readable(name):
            file.unlink(missing_ok=True)
            _link_or_copy(self._path / name, file)

    @override
    def delete(self, folder: str = "") -> None:
        shutil.rmtree(self._path / folder, ignore_errors=True)

    @contextlib.contextmanager
    def _new_file(self, name: str) -> Iterator[Path]:
        """Give a temporary path to write to; sync it and rename it on leaving."""
        final = self._path / name
        temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}{_TEMPORARY}")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            temporary.replace(final)
            _sync(final.parent)
        except OSError as error:
            raise self._failed(name, error) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failed(name, error) from None

    def _failed(self, name: str, error: OSError) -> StorageError:
        path = str(self._path / name)
        if isinstance(error, FileNotFoundError):
            return StorageMissingError(
                what_got_wanted(path, got="no such file", wanted="a file", do="check the path")
            )
        if error.errno in FULL_DISK:
            return StorageError(
                what_got_wanted(
                    path,
                    got="a full disk",
                    wanted="room to write",
                    do="free some and run again; what was finished is kept",
                )
            )
        return StorageError(
            what_got_wanted(
                path, got=error.strerror or str(error), wanted="access to it", do="check the path and its rights"
            )
        )


_TEMPORARY = ".partial"


def _link_or_copy(source: Path, destination: Path) -> None:
    try:
        os.link(source, destination)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, destination)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_limit(where: str, size: int, limit: int | None) -> None:
    """Raise ``StorageLimitError`` where a file has more bytes than its reader allows."""
    if limit is not None and size > limit:
        raise StorageLimitError(
            what_got_wanted(
                where, got=f"a file of {size:,} bytes", wanted=f"at most {limit:,}", do="check what it is"
            )
        )
