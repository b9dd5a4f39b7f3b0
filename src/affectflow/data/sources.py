"""Where a dataset lies: a folder or ``s3://bucket/prefix``, asked the same questions by every layout.

Paths are relative to the source, with ``/`` between folders. What a list names is not trusted: no path and no link
leads out of the source.
"""

import errno
import io
import os
import posixpath
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from typing_extensions import override

from affectflow.data.quarantine import FaceError, Reason
from affectflow.errors import (
    DataError,
    StorageError,
    StorageLimitError,
    StorageMissingError,
    what_got_wanted,
)
from affectflow.storage import is_s3, join, open_storage

#: Larger files are not read.
MAX_BYTES = 256 << 20

#: What says nothing of the one file: the disk, the network or this process is at fault, and a picture that was set
#: aside for it would be lost.
_FAULTS_OF_THE_MACHINE = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)

_NO_FILE = "no such file"
_LEAVES = "a path or a link that leaves the source folder"


class Source(ABC):
    """A dataset's place. It is small and can be pickled: processes open it for themselves.

    Attributes:
        root: as it was given.
        reads_at_a_time: how many files are worth reading at once; 1 for a disk.
    """

    root: str
    reads_at_a_time: int

    def __str__(self) -> str:
        return self.root

    def path(self, *parts: str) -> str:
        """Return the full path of something in the source, for messages."""
        return join(self.root, *parts)

    @abstractmethod
    def check(self) -> None:
        """Raise ``DataError`` where there is no such source, ``StorageError`` where it cannot be reached."""

    @abstractmethod
    def folders(self, folder: str = "") -> list[str]:
        """Return the names of the folders directly in a folder, sorted; none where there is no such folder."""

    @abstractmethod
    def files(self, folder: str = "") -> list[str]:
        """Return the names of the files directly in a folder, sorted; none where there is no such folder."""

    @abstractmethod
    def walk(self, folder: str) -> list[str]:
        """Return the paths of all files below a folder, sorted.

        Links to folders are returned and not followed.
        """

    @abstractmethod
    def is_linked_folder(self, path: str) -> bool:
        """Return whether a path that :meth:`walk` gave is a link to a folder."""

    @abstractmethod
    def open_text(self, path: str, *, errors: str) -> TextIO:
        """Return a stream of a list's text, its byte order mark left out.

        Args:
            path: of the list.
            errors: what becomes of bytes that are not UTF-8.
        """

    @abstractmethod
    def read(self, folders: tuple[str, ...], path: str) -> bytes:
        """Return a listed file's bytes.

        Args:
            folders: where in the source ``path`` is looked up, in this order. They may be links that the user made
                to another disk; ``path`` itself may not lead out of them.
            path: as listed.

        Raises:
            FaceError: ``outside_root``, ``missing``, ``zero_byte``, ``too_many_pixels`` or ``undecodable``.
            StorageError: the server forbids it, or does not answer.
        """

    def has_folder(self, *path: str) -> bool:
        """Return whether there is a folder of this path."""
        *parents, name = path
        return name in self.folders(join(*parents))

    def has_file(self, *path: str) -> bool:
        """Return whether there is a file of this path."""
        *parents, name = path
        return name in self.files(join(*parents))


def open_source(place: "str | Path | Source") -> Source:
    """Return the source at a folder's path or ``s3://bucket/prefix``; it is not reached yet."""
    if isinstance(place, Source):
        return place
    return S3Source(str(place)) if is_s3(str(place)) else FolderSource(place)


class FolderSource(Source):
    """A dataset in a folder.

    Args:
        root: the folder.
    """

    reads_at_a_time = 1

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)

    @override
    def check(self) -> None:
        if not Path(self.root).is_dir():
            raise _no_source(self.root, "no such folder")

    @override
    def folders(self, folder: str = "") -> list[str]:
        return self._names(folder, folders=True)

    @override
    def files(self, folder: str = "") -> list[str]:
        return self._names(folder, folders=False)

    def _names(self, folder: str, *, folders: bool) -> list[str]:
        try:
            with os.scandir(Path(self.root, folder)) as entries:
                return sorted(entry.name for entry in entries if (entry.is_dir() if folders else entry.is_file()))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _unreadable(self.path(folder), error) from None

    @override
    def walk(self, folder: str) -> list[str]:
        def stop(error: OSError) -> None:
            raise _unreadable(error.filename, error)

        found = []
        for parent, folders, files in os.walk(Path(self.root, folder), onerror=stop):
            at = Path(parent).relative_to(self.root)
            links = [name for name in folders if Path(parent, name).is_symlink()]
            found += [(at / name).as_posix() for name in [*files, *links]]
        return sorted(found)

    @override
    def is_linked_folder(self, path: str) -> bool:
        return Path(self.root, path).is_dir()

    @override
    def open_text(self, path: str, *, errors: str) -> TextIO:
        try:
            return Path(self.root, path).open(encoding="utf-8-sig", errors=errors)
        except OSError as error:
            raise _unreadable(self.path(path), error) from None

    @override
    def read(self, folders: tuple[str, ...], path: str) -> bytes:
        _refuse_nul(path)
        trouble = _NO_FILE
        for folder in folders:
            base = os.path.realpath(os.path.join(self.root, folder))  # noqa: PTH118
            file = os.path.realpath(os.path.join(base, path))  # noqa: PTH118 (Path.resolve is five times slower)
            if os.path.commonpath((base, file)) != base:
                raise FaceError(Reason.OUTSIDE_ROOT, _LEAVES)
            try:
                return _read_file(file)
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                if error.errno in _FAULTS_OF_THE_MACHINE:
                    raise _unreadable(file, error) from None
                trouble = error.strerror or str(error)
        raise FaceError(Reason.MISSING, trouble)


class S3Source(Source):
    """A dataset in a bucket; a listed file is one request, made by several threads of every process.

    Args:
        root: ``s3://bucket/prefix``.
    """

    reads_at_a_time = 16

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._storage = open_storage(self.root)

    def __reduce__(self) -> tuple[type["S3Source"], tuple[str]]:
        return S3Source, (self.root,)

    @override
    def check(self) -> None:
        if not (self._storage.folders() or self._storage.files()):
            raise _no_source(self.root, "no object with this prefix")

    @override
    def folders(self, folder: str = "") -> list[str]:
        return self._storage.folders(folder)

    @override
    def files(self, folder: str = "") -> list[str]:
        return self._storage.files(folder)

    @override
    def walk(self, folder: str) -> list[str]:
        return [entry.name for entry in self._storage.entries(folder)]

    @override
    def is_linked_folder(self, path: str) -> bool:
        return False

    @override
    def open_text(self, path: str, *, errors: str) -> TextIO:
        return io.TextIOWrapper(self._storage.open(path), encoding="utf-8-sig", errors=errors)

    @override
    def read(self, folders: tuple[str, ...], path: str) -> bytes:
        _refuse_nul(path)
        for folder in folders:
            name = posixpath.normpath(posixpath.join(folder, path))
            inside = folder == "" or name.startswith(folder + "/")
            if path.startswith("/") or not inside or name.startswith("../") or name == "..":
                raise FaceError(Reason.OUTSIDE_ROOT, _LEAVES)
            try:
                content = self._storage.read(name, limit=MAX_BYTES)
            except StorageMissingError:
                continue
            except StorageLimitError as error:
                raise FaceError(Reason.TOO_MANY_PIXELS, str(error)) from None
            if not content:
                raise FaceError(Reason.ZERO_BYTE, "0 bytes")
            return content
        raise FaceError(Reason.MISSING, _NO_FILE)


def _refuse_nul(path: str) -> None:
    if "\0" in path:
        raise FaceError(Reason.BAD_ROW, "a zero byte in the path")


def _read_file(file: str) -> bytes:
    # A pipe or a device would block on opening, so look before.
    status = os.stat(file)  # noqa: PTH116
    if not stat.S_ISREG(status.st_mode):
        raise FaceError(Reason.UNDECODABLE, "not a regular file")
    if status.st_size == 0:
        raise FaceError(Reason.ZERO_BYTE, "0 bytes")
    if status.st_size > MAX_BYTES:
        raise FaceError(Reason.TOO_MANY_PIXELS, f"a file of {status.st_size:,} bytes")
    with open(file, "rb") as stream:  # noqa: PTH123
        return stream.read()


def text_lines(source: Source, path: str) -> Iterator[str]:
    """Yield a list's lines without their line breaks; bytes that are not UTF-8 become surrogates."""
    with source.open_text(path, errors="surrogateescape") as stream:
        for line in stream:
            yield line.rstrip("\n")


def _no_source(root: str, got: str) -> DataError:
    return DataError(what_got_wanted(root, got=got, wanted="the folder of the face data", do="check --source"))


def _unreadable(path: str, error: OSError) -> StorageError:
    got = error.strerror or str(error)
    return StorageError(what_got_wanted(path, got=got, wanted="access to it", do="check the path and its rights"))
