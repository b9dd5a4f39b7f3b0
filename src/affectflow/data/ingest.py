"""Fill a ``faces`` artifact from a listing: crop every face, store it, and say what was left out.

Order and bytes of what is written do not depend on the number of processes.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from affectflow.data.crops import Crop, make_crop, read_source
from affectflow.data.layouts.base import ListedFace, printable
from affectflow.data.listing import Listing
from affectflow.data.manifest import MANIFEST_FILE, MANIFEST_SCHEMA, QUARANTINE_FILE, QUARANTINE_SCHEMA
from affectflow.data.quarantine import FaceError, Quarantined
from affectflow.data.shards import ShardWriter
from affectflow.errors import DataError, what_got_wanted
from affectflow.labels import EXCLUDED_EXPRESSIONS, EXPRESSIONS

#: Goes through results and shows how far they are.
Progress = Callable[[Iterable[Crop | FaceError]], Iterable[Crop | FaceError]]

_CHUNK = 32
_CHUNKS_AHEAD = 4  # of every process; more would only fill memory


@dataclass(frozen=True)
class CropSettings:
    """How faces are cut and stored; see ``make_crop``."""

    face_size: int
    margin: float
    jpeg_quality: int


def ingest(
    listing: Listing,
    out: Path,
    settings: CropSettings,
    *,
    max_quarantined: float,
    workers: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the manifest, the image shards and the quarantine of a ``faces`` artifact.

    Faces share a ``group`` when their crops have the same pixels or their source files the same bytes. So all
    faces of one picture share a group, though they are different persons: a picture must not stand in
    training and in test.

    Args:
        listing: what to read.
        out: the folder to fill.
        settings: how faces are cut and stored.
        max_quarantined: share of the faces that may be quarantined, in [0, 1]; rows of other codes and
            repeated rows count for neither side.
        workers: number of processes; 1 works in this one.
        progress: shows progress; goes through the results, one for each listed face.

    Returns:
        the fields of the artifact's header.

    Raises:
        DataError: no face is left, or more than ``max_quarantined`` would be lost.
    """
    quarantined = list(listing.quarantined)
    columns: dict[str, list[Any]] = {name: [] for name in MANIFEST_SCHEMA.names if name != "group"}
    with ShardWriter(out) as shards, closing(_crops(listing, settings, workers)) as crops:
        results: Iterable[Crop | FaceError] = crops
        if progress is not None:
            results = progress(crops)
        for face, result in zip(listing.faces, results, strict=True):
            if isinstance(result, FaceError):
                quarantined.append(_quarantine(face, result))
            else:
                _append(columns, face, result, shards)
    # The lists keep the order in which they were read.
    lists = {name: place for place, name in enumerate(dict.fromkeys(_list_names(listing)))}
    quarantined.sort(key=lambda row: (lists[row.source_list], row.source_row))
    _check_losses(len(columns["image_id"]), quarantined, max_quarantined)

    groups = find_groups(columns["sha256"], columns["crop_sha256"])
    manifest = pa.table({**columns, "group": groups}).select(MANIFEST_SCHEMA.names).cast(MANIFEST_SCHEMA)
    pq.write_table(manifest, out / MANIFEST_FILE, compression="zstd")
    _write_quarantine(quarantined, out)
    return _header(listing, settings, manifest, quarantined)


def find_groups(sha256: Sequence[str], crop_sha256: Sequence[str]) -> list[str]:
    """Return a group for every face: faces that share a source or a crop, directly or by others, share it.

    The group is named after its smallest ``crop_sha256`` (16 digits), whatever the order of rows.
    """
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        root = name
        while parent.setdefault(root, root) != root:
            root = parent[root]
        while parent[name] != root:
            parent[name], name = root, parent[name]
        return root

    for source, crop in zip(sha256, crop_sha256, strict=True):
        one, other = find(f"source {source}"), find(f"crop {crop}")
        # "crop …" sorts before "source …", so the smallest crop becomes the root.
        parent[max(one, other)] = min(one, other)
    return [find(f"crop {crop}").removeprefix("crop ")[:16] for crop in crop_sha256]


def _crops(listing: Listing, settings: CropSettings, workers: int) -> Generator[Crop | FaceError]:
    """Yield a crop, or why there is none, for every face in order."""
    chunks = _chunks(listing.faces)
    if workers == 1:
        for chunk in chunks:
            yield from _crop_chunk(listing.root, chunk, settings)
        return
    pending: deque[Future[list[Crop | FaceError]]] = deque()
    # A fresh interpreter: forking beside pyarrow's threads can deadlock.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            for chunk in chunks:
                pending.append(pool.submit(_crop_chunk, listing.root, chunk, settings))
                if len(pending) >= workers * _CHUNKS_AHEAD:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _chunks(faces: Sequence[ListedFace]) -> Iterator[Sequence[ListedFace]]:
    return (faces[start : start + _CHUNK] for start in range(0, len(faces), _CHUNK))


def _crop_chunk(root: Path, faces: Sequence[ListedFace], settings: CropSettings) -> list[Crop | FaceError]:
    results: list[Crop | FaceError] = []
    for face in faces:
        try:
            data = read_source(root, face.folders, face.source_path)
            results.append(
                make_crop(
                    data,
                    face.box,
                    face_size=settings.face_size,
                    margin=settings.margin,
                    jpeg_quality=settings.jpeg_quality,
                )
            )
        except FaceError as error:
            results.append(error)
    return results


def _append(columns: dict[str, list[Any]], face: ListedFace, crop: Crop, shards: ShardWriter) -> None:
    place = shards.add(face.image_id, crop.image)
    values = {
        "image_id": face.image_id,
        "sha256": crop.sha256,
        "crop_sha256": crop.crop_sha256,
        "expression": face.expression,
        "valence": face.valence,
        "arousal": face.arousal,
        "source_path": face.source_path,
        "source_list": face.source_list,
        "source_row": face.source_row,
        "shard": place.shard,
        "shard_row": place.row,
        "width": crop.width,
        "height": crop.height,
    }
    for name, value in values.items():
        columns[name].append(value)


def _quarantine(face: ListedFace, error: FaceError) -> Quarantined:
    return Quarantined(
        printable(face.source_path),
        face.source_list,
        face.source_row,
        error.reason,
        printable(error.detail),
        face.digest,
    )


def _list_names(listing: Listing) -> Iterator[str]:
    yield from (face.source_list for face in listing.faces)
    yield from (row.source_list for row in listing.quarantined)


def _check_losses(kept: int, quarantined: Sequence[Quarantined], max_quarantined: float) -> None:
    lost = len(quarantined)
    if kept and lost <= max_quarantined * (kept + lost):
        return
    if not lost:
        raise DataError(
            what_got_wanted(
                "the source",
                got="no face of the eight expressions",
                wanted="rows with the codes 0 to 7",
                do="check its label column",
            )
        )
    reason, count = Counter(row.reason for row in quarantined).most_common(1)[0]
    first = next(row for row in quarantined if row.reason is reason)
    raise DataError(
        what_got_wanted(
            "the source",
            got=f"{lost:,} of {kept + lost:,} faces ({lost / (kept + lost):.1%}) that cannot be used, "
            f"{count:,} of them for '{reason}', e.g. {first.source_path!r} "
            f"({first.source_list or 'folder'}, row {first.source_row}: {first.detail})",
            wanted=f"at most {max_quarantined:.1%} (--max-quarantined)" if kept else "at least one",
            do="mend the source" + (", or raise --max-quarantined" if kept else ""),
        )
    )


def _write_quarantine(rows: Sequence[Quarantined], out: Path) -> None:
    columns = {name: [getattr(row, name) for row in rows] for name in QUARANTINE_SCHEMA.names}
    columns["reason"] = [row.reason.value for row in rows]
    pq.write_table(pa.table(columns, schema=QUARANTINE_SCHEMA), out / QUARANTINE_FILE, compression="zstd")


def _header(
    listing: Listing, settings: CropSettings, manifest: pa.Table, quarantined: Sequence[Quarantined]
) -> dict[str, Any]:
    expressions = Counter(manifest["expression"].to_pylist())
    reasons = Counter(row.reason.value for row in quarantined)
    return {
        "faces": manifest.num_rows,
        "counts": {name: expressions[code] for code, name in enumerate(EXPRESSIONS)},
        "excluded": {name: listing.excluded[code] for code, name in EXCLUDED_EXPRESSIONS.items()},
        "quarantined": dict(sorted(reasons.items())),
        "repeated_rows": listing.repeated,
        "unusable_cells": dict(sorted(listing.unusable.items())),
        "groups_of_several": _groups_of_several(manifest),
        "conflicting_labels": _conflicting_labels(manifest),
        "layout": listing.layout,
        "settings": {
            "face_size": settings.face_size,
            "margin": settings.margin,
            "jpeg_quality": settings.jpeg_quality,
        },
        "digest": content_digest(manifest),
    }


def _groups_of_several(manifest: pa.Table) -> int:
    return sum(size > 1 for size in Counter(manifest["group"].to_pylist()).values())


def _conflicting_labels(manifest: pa.Table) -> int:
    """Return how many crops of the same pixels carry several labels."""
    pairs = set(zip(manifest["crop_sha256"].to_pylist(), manifest["expression"].to_pylist(), strict=True))
    return sum(labels > 1 for labels in Counter(crop for crop, _ in pairs).values())


def content_digest(manifest: pa.Table) -> str:
    """Return the SHA-256 over every face's id, pixels, group and label, which is what splits depend on."""
    digest = hashlib.sha256()
    names = ("image_id", "crop_sha256", "group", "expression")
    for row in zip(*(manifest[name].to_pylist() for name in names), strict=True):
        digest.update(repr(row).encode())
    return digest.hexdigest()
