"""Storage in a bucket, reached through boto3.

The endpoint is read from ``AWS_ENDPOINT_URL`` (or ``AWS_ENDPOINT_URL_S3``), the keys from the usual places. Faults
that may pass (connections, time-outs, 5xx, SlowDown, bodies that break off) are tried again with a growing pause.
"""

import contextlib
import functools
import hashlib
import io
import os
import random
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from typing_extensions import override

from affectflow.errors import SettingsError, StorageError, StorageMissingError, what_got_wanted
from affectflow.storage import S3_SCHEME, Entry, Storage, check_limit, join

#: How often a request is made before it counts as failed, and the longest pause before a further one.
ATTEMPTS = 6
LONGEST_PAUSE = 20.0
_CONNECT_SECONDS, _READ_SECONDS = 10, 60

#: Larger objects are read in ranges of this size, as many at a time.
PART_BYTES = 8 << 20
PARTS_AT_A_TIME = 4

#: Connections that one process may hold open.
_CONNECTIONS = 64


class S3Storage(Storage):
    """Objects of a bucket whose keys begin with a prefix.

    Args:
        root: ``s3://bucket`` or ``s3://bucket/prefix``.
    """

    def __init__(self, root: str) -> None:
        bucket, _, prefix = root.removeprefix(S3_SCHEME).partition("/")
        if not bucket:
            raise SettingsError(
                what_got_wanted("storage", got=repr(root), wanted="s3://bucket/prefix", do="name the bucket")
            )
        self.root = root
        self._bucket = bucket
        self._prefix = prefix.strip("/")

    @override
    def exists(self, name: str) -> bool:
        try:
            self._call("head_object", name)
        except StorageMissingError:
            return False
        return True

    @override
    def entries(self, folder: str = "") -> list[Entry]:
        items = (item for page in self._pages(folder) for item in page.get("Contents", []))
        return sorted(
            Entry(self._name(item["Key"]), int(item["Size"])) for item in items if not item["Key"].endswith("/")
        )

    def digest(self) -> str:
        """Return the SHA-256 over names, sizes and the server's tags of all objects; none of them is read."""
        digest = hashlib.sha256()
        for page in self._pages(""):
            for item in page.get("Contents", []):
                digest.update(f"{self._name(item['Key'])}\0{item['Size']} {item['ETag']}\n".encode())
        return digest.hexdigest()

    @override
    def folders(self, folder: str = "") -> list[str]:
        pages = self._pages(folder, Delimiter="/")
        prefixes = (item["Prefix"] for page in pages for item in page.get("CommonPrefixes", []))
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes)

    @override
    def files(self, folder: str = "") -> list[str]:
        pages = self._pages(folder, Delimiter="/")
        keys = (item["Key"] for page in pages for item in page.get("Contents", []))
        return sorted(key.rpartition("/")[2] for key in keys if not key.endswith("/"))

    @override
    def read(self, name: str, *, limit: int | None = None) -> bytes:
        first = self._read_part(name, 0)
        check_limit(join(self.root, name), first.size, limit)
        if len(first.content) == first.size:
            return first.content
        with self._ranges(name, first) as stream:
            return stream.read()

    @override
    def open(self, name: str) -> BinaryIO:
        return self._ranges(name, self._read_part(name, 0))

    def _ranges(self, name: str, first: "_Part") -> BinaryIO:
        raw = _RangeReader(first, functools.partial(self._read_part, name, tag=first.tag))
        return io.BufferedReader(raw, buffer_size=1 << 20)

    @override
    def write(self, name: str, content: bytes) -> None:
        self._call("put_object", name, Body=content)

    @override
    def put(self, name: str, file: Path) -> None:
        with self._readable_errors(name):
            self._client.upload_file(str(file), self._bucket, self._key(name))

    @override
    def get(self, name: str, file: Path) -> None:
        with self.open(name) as stream, file.open("wb") as target:
            shutil.copyfileobj(stream, target, 1 << 20)

    @override
    def delete(self, folder: str = "") -> None:
        for entry in self.entries(folder):
            self._call("delete_object", entry.name)

    @functools.cached_property
    def _client(self) -> Any:
        """The client: made late, since importing boto3 takes a while, and once, since making it does too."""
        import boto3
        from botocore.config import Config

        own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        with self._readable_errors(""):
            return boto3.session.Session().client(
                "s3",
                region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
                config=Config(
                    retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                    connect_timeout=_CONNECT_SECONDS,
                    read_timeout=_READ_SECONDS,
                    max_pool_connections=_CONNECTIONS,
                    # Servers of one's own seldom have a host name for every bucket.
                    s3={"addressing_style": "path" if own_endpoint else "auto"},
                ),
            )
        raise AssertionError

    def _key(self, name: str) -> str:
        return join(self._prefix, name)

    def _name(self, key: str) -> str:
        return key.removeprefix(self._prefix + "/") if self._prefix else key

    def _call(self, operation: str, name: str, **arguments: Any) -> Any:
        with self._readable_errors(name):
            return getattr(self._client, operation)(Bucket=self._bucket, Key=self._key(name), **arguments)

    def _pages(self, folder: str, **arguments: Any) -> Iterator[Any]:
        prefix = self._key(folder)
        with self._readable_errors(folder):
            yield from self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{prefix}/" if prefix else "", **arguments
            )

    def _read_part(self, name: str, start: int, *, tag: str = "") -> "_Part":
        """Read a range; a body that breaks off is asked for again (the client itself repeats only requests)."""
        from botocore.exceptions import BotoCoreError

        unchanged = {"IfMatch": tag} if tag else {}
        for attempt in range(1, ATTEMPTS + 1):
            wanted = f"bytes={start}-{start + PART_BYTES - 1}"
            with self._readable_errors(name), _none_in_empty_object():
                answer = self._client.get_object(
                    Bucket=self._bucket, Key=self._key(name), Range=wanted, **unchanged
                )
                try:
                    content = answer["Body"].read()
                except BotoCoreError:
                    if attempt == ATTEMPTS:
                        raise
                    _pause(attempt)
                    continue
                size = int(answer.get("ContentRange", f"/{len(content)}").rpartition("/")[2])
                return _Part(content, size, answer["ETag"])
            return _Part(b"", 0, "")
        raise AssertionError

    @contextlib.contextmanager
    def _readable_errors(self, name: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            self._raise_refused(name, error)
        except (BotoCoreError, Boto3Error) as error:
            raise StorageError(
                what_got_wanted(
                    self._where(name),
                    got=" ".join(str(error).split())[:300],
                    wanted="an answer",
                    do="check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the network",
                )
            ) from None

    def _raise_refused(self, name: str, error: Any) -> NoReturn:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code == "NoSuchBucket":
            raise StorageError(
                what_got_wanted(
                    self._where(""), got="no such bucket", wanted="a bucket that exists", do="check its name"
                )
            ) from None
        if status == 404:
            raise StorageMissingError(
                what_got_wanted(self._where(name), got="no such object", wanted="one", do="check its key")
            ) from None
        if status in (401, 403):
            raise StorageError(
                what_got_wanted(
                    self._where(name),
                    got=f"{code or status}: forbidden",
                    wanted="the right to list, read and, for checkpoints, write",
                    do="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy",
                )
            ) from None
        if status == 412:
            raise StorageError(
                what_got_wanted(
                    self._where(name),
                    got="an object that was replaced while it was read",
                    wanted="a source at rest",
                    do="run again when nothing writes to it",
                )
            ) from None
        raise StorageError(
            what_got_wanted(
                self._where(name),
                got=f"{code} (HTTP {status}) in {ATTEMPTS} attempts",
                wanted="an answer",
                do="run again when the server is well",
            )
        ) from None

    def _where(self, name: str) -> str:
        return S3_SCHEME + join(self._bucket, self._key(name))


class _Part(NamedTuple):
    """A range of an object: its bytes, the size of the whole object, and the tag of its content."""

    content: bytes
    size: int
    tag: str


class _RangeReader(io.RawIOBase):
    """Reads an object in ranges, a few of them at a time, of which one is being consumed."""

    def __init__(self, first: _Part, read_part: Callable[[int], _Part]) -> None:
        self._content = memoryview(first.content)
        self._read_part = read_part
        self._starts = iter(range(len(first.content), first.size, PART_BYTES))
        self._pool = ThreadPoolExecutor(PARTS_AT_A_TIME, thread_name_prefix="s3-ranges")
        self._pending: deque[Future[_Part]] = deque()

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        while not self._content:
            while len(self._pending) < PARTS_AT_A_TIME and (start := next(self._starts, None)) is not None:
                self._pending.append(self._pool.submit(self._read_part, start))
            if not self._pending:
                return 0
            self._content = memoryview(self._pending.popleft().result().content)
        count = min(len(buffer), len(self._content))
        buffer[:count] = self._content[:count]
        self._content = self._content[count:]
        return count

    @override
    def close(self) -> None:
        if not self.closed:
            self._pool.shutdown(wait=True, cancel_futures=True)
        super().close()


def _pause(attempt: int) -> None:
    """Wait a random while that doubles with every attempt, so that many readers do not come back at once."""
    time.sleep(random.uniform(0.5, 1) * min(LONGEST_PAUSE, 0.2 * 2**attempt))  # noqa: S311


@contextlib.contextmanager
def _none_in_empty_object() -> Iterator[None]:
    """Pass over the refusal of a range in an object of 0 bytes."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 416:
            raise
