"""Cut the listed faces out of their pictures, in several processes, in the order of the list."""

import functools
import os
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process

from affectflow.data.crops import Crop, ImageFormat, make_crop
from affectflow.data.layouts.base import ListedFace
from affectflow.data.quarantine import FaceError
from affectflow.data.sources import Source
from affectflow.errors import DataError, what_got_wanted

_CHUNK = 32
_CHUNKS_AHEAD = 4  # of every process; more would only fill memory


@dataclass(frozen=True)
class CropSettings:
    """How faces are cut and stored; see ``make_crop``."""

    face_size: int
    margin: float
    jpeg_quality: int
    image_format: ImageFormat = "auto"
    with_perceptual_hash: bool = False


def cut_faces(
    source: Source, faces: Sequence[ListedFace], settings: CropSettings, workers: int
) -> Generator[Crop | FaceError]:
    """Yield a crop, or why there is none, for every face in order.

    Args:
        source: where the pictures lie.
        faces: as listed.
        settings: how they are cut and stored.
        workers: number of processes; 1 works in this one.

    Raises:
        DataError: the system ended a process.
        StorageError: the source cannot be read any longer.
    """
    chunks = (faces[start : start + _CHUNK] for start in range(0, len(faces), _CHUNK))
    if workers == 1:
        for chunk in chunks:
            yield from _cut_chunk(source, chunk, settings)
        return
    pending: deque[Future[list[Crop | FaceError]]] = deque()
    # Fresh interpreters: forking beside pyarrow's threads can deadlock.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        for chunk in chunks:
            pending.append(pool.submit(_cut_chunk, source, chunk, settings))
            if len(pending) >= workers * _CHUNKS_AHEAD:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool:
        raise DataError(
            what_got_wanted(
                "a process that decodes",
                got="an end by the system, most often for want of memory",
                wanted=f"{workers} of them",
                do="run again with fewer --workers or more memory",
            )
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Let a decoding process end when the one that started it was killed: nothing else would tell it."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _cut_chunk(source: Source, faces: Sequence[ListedFace], settings: CropSettings) -> list[Crop | FaceError]:
    return [
        content if isinstance(content, FaceError) else _cut(content, face, settings)
        for face, content in zip(faces, _read_all(source, faces), strict=True)
    ]


def _cut(content: bytes, face: ListedFace, settings: CropSettings) -> Crop | FaceError:
    try:
        return make_crop(content, face.box, **asdict(settings))
    except FaceError as error:
        return error


def _read_all(source: Source, faces: Sequence[ListedFace]) -> Iterator[bytes | FaceError]:
    """Yield the files of faces in order; those of a server are asked for while earlier ones are decoded."""
    read = functools.partial(_read, source)
    return _readers(source.reads_at_a_time).map(read, faces) if source.reads_at_a_time > 1 else map(read, faces)


def _read(source: Source, face: ListedFace) -> bytes | FaceError:
    try:
        return source.read(face.folders, face.source_path)
    except FaceError as error:
        return error


@functools.cache
def _readers(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, thread_name_prefix="read")
