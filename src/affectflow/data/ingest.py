"""Fill a ``faces`` artifact from a listing: crop every face, store it, and say what was left out.

Order and bytes of what is written depend on the source and the settings alone: not on the number of processes, nor
on whether the run was broken off and resumed.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from affectflow.data.cropping import CropSettings, cut_faces
from affectflow.data.crops import Crop
from affectflow.data.duplicates import conflicting, find_groups, find_looks
from affectflow.data.layouts import LAYOUTS
from affectflow.data.layouts.base import ListedFace, printable
from affectflow.data.listing import Listing
from affectflow.data.manifest import (
    MANIFEST_FILE,
    MANIFEST_SCHEMA,
    OUTCOME_SCHEMA,
    QUARANTINE_FILE,
    QUARANTINE_SCHEMA,
)
from affectflow.data.quarantine import FaceError, Quarantined, Reason
from affectflow.data.resume import ShardCheckpoints
from affectflow.data.shards import ShardWriter, shard_name
from affectflow.errors import DataError, what_got_wanted
from affectflow.labels import EXCLUDED_EXPRESSIONS, EXPRESSIONS
from affectflow.progress import say

__all__ = ["CropSettings", "ingest"]

Results = Iterator[Crop | FaceError]

#: Goes through results, of which there are so many, and shows how far they are.
Progress = Callable[[Results, int], Iterable[Crop | FaceError]]

ConflictPolicy = Literal["keep", "drop"]


def ingest(
    listing: Listing,
    out: Path,
    settings: CropSettings,
    *,
    max_quarantined: float,
    workers: int,
    conflicting_labels: ConflictPolicy = "keep",
    near_duplicate_distance: int = -1,
    checkpoints: ShardCheckpoints | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the manifest, the image shards and the quarantine of a ``faces`` artifact.

    Faces share a ``group`` when their crops have the same pixels or their source files the same bytes, and, where
    near duplicates are looked for, when they look alike. So all faces of one picture share a group, though they
    are different persons: a picture must not stand in training and in test.

    Args:
        listing: what to read.
        out: the folder to fill.
        settings: how faces are cut and stored.
        max_quarantined: share of the faces that may be quarantined, in [0, 1]; rows of other codes, repeated rows
            and dropped conflicts count for neither side.
        workers: number of processes; 1 works in this one.
        conflicting_labels: faces of the same pixels with several labels are kept, or dropped into the quarantine.
        near_duplicate_distance: bits in which the perceptual hashes of near duplicates may differ, of 64; -1 to
            look for exact duplicates alone. ``settings`` must ask for the hashes.
        checkpoints: finished shards of an earlier run are taken from there, and those of this run kept there.
        progress: shows progress.

    Returns:
        the fields of the artifact's header.

    Raises:
        DataError: no face is left, or more than ``max_quarantined`` would be lost.
        StorageError: the source or the checkpoints cannot be reached any longer.
    """
    losses = _Losses(listing, max_quarantined)
    shards = list(_write_shards(listing, out, settings, workers, losses, checkpoints, progress))
    outcomes = pa.concat_tables(shards) if shards else OUTCOME_SCHEMA.empty_table()
    losses.check_all()

    manifest = _manifest(listing, outcomes, _places(shards), near_duplicate_distance)
    conflicts = conflicting(manifest["crop_sha256"].to_numpy(), manifest["expression"].to_numpy())
    num_conflicts = len(set(manifest.filter(conflicts)["crop_sha256"].to_pylist()))
    if conflicting_labels == "drop":
        losses.rows += _dropped(manifest, conflicts)
        manifest = manifest.filter(~conflicts)
        losses.check_any_left(manifest.num_rows)
    pq.write_table(manifest, out / MANIFEST_FILE, compression="zstd")
    quarantined = losses.in_order()
    _write_quarantine(quarantined, out)
    return {
        **_counts(listing, manifest, quarantined),
        "conflicting_labels": num_conflicts,
        "layout": listing.layout,
        "held_out_lists": _held_out_lists(listing),
        "settings": {
            "face_size": settings.face_size,
            "margin": settings.margin,
            "jpeg_quality": settings.jpeg_quality,
            "image_format": settings.image_format,
            "conflicting_labels": conflicting_labels,
            "near_duplicate_distance": near_duplicate_distance,
        },
        "digest": content_digest(manifest),
    }


class _Losses:
    """Counts what is quarantined, and stops a run as soon as it is more than may be lost."""

    def __init__(self, listing: Listing, limit: float) -> None:
        self.rows = list(listing.quarantined)
        self._listed = len(listing)
        self._limit = limit
        self._lists = {name: place for place, name in enumerate(dict.fromkeys(_list_names(listing)))}
        self._check()

    def add(self, face: ListedFace, reason: str, detail: str) -> None:
        """Add a face that was listed and cannot be used."""
        self.rows.append(
            Quarantined(
                printable(face.source_path),
                face.source_list,
                face.source_row,
                Reason(reason),
                printable(detail),
                face.digest,
                face.folders,
            )
        )
        self._check()

    def in_order(self) -> list[Quarantined]:
        """Return the quarantined rows in the order in which the lists were read."""
        return sorted(self.rows, key=lambda row: (self._lists[row.source_list], row.source_row))

    def check_all(self) -> None:
        """Check that a face is left when all were read."""
        self.check_any_left(self._listed - len(self.rows))

    def check_any_left(self, kept: int) -> None:
        if kept:
            return
        if not self.rows:
            raise DataError(
                what_got_wanted(
                    "the source",
                    got="no face of the eight expressions",
                    wanted="rows with the codes 0 to 7",
                    do="check its label column",
                )
            )
        raise self._too_many(wanted="at least one", do="mend the source")

    def _check(self) -> None:
        # Divided, since 0.29 times 100 is less than 29 to a computer.
        if self.rows and len(self.rows) / self._listed > self._limit:
            raise self._too_many(
                wanted=f"at most {self._limit:.1%} (--max-quarantined)",
                do="mend the source, or raise --max-quarantined",
            )

    def _too_many(self, *, wanted: str, do: str) -> DataError:
        lost = len(self.rows)
        reason, count = Counter(row.reason for row in self.rows).most_common(1)[0]
        first = next(row for row in self.in_order() if row.reason is reason)
        return DataError(
            what_got_wanted(
                "the source",
                got=f"{lost:,} of {self._listed:,} faces ({lost / self._listed:.1%}) that cannot be used, "
                f"{count:,} of them for '{reason}', e.g. {first.source_path!r} "
                f"({first.source_list or 'folder'}, row {first.source_row}: {first.detail})",
                wanted=wanted,
                do=do,
            )
        )


def _write_shards(
    listing: Listing,
    out: Path,
    settings: CropSettings,
    workers: int,
    losses: _Losses,
    checkpoints: ShardCheckpoints | None,
    progress: Progress | None,
) -> Iterator[pa.Table]:
    """Write or restore shard after shard, and yield the outcomes of the faces that each went through."""
    crops: Generator[Crop | FaceError] | None = None
    start = shard = restored = 0
    try:
        while start < len(listing.faces):
            file = out / shard_name(shard)
            outcomes = checkpoints.restore(shard, start, file) if checkpoints else None
            if outcomes is not None:
                if crops is not None:  # what was cut ahead stands in this shard
                    crops.close()
                    crops = None
                restored += outcomes.num_rows
                _count_losses(listing.faces[start:], outcomes, losses)
            else:
                if crops is None:
                    if restored:
                        say(f"resuming: {restored:,} of {len(listing.faces):,} faces were done before")
                    crops = _start(listing, start, settings, workers, progress)
                outcomes = _write_shard(file, listing.faces, start, crops, losses)
                if checkpoints:
                    checkpoints.keep(shard, start, outcomes, file)
            yield outcomes
            start, shard = start + outcomes.num_rows, shard + 1
    finally:
        if crops is not None:
            crops.close()


def _start(
    listing: Listing, start: int, settings: CropSettings, workers: int, progress: Progress | None
) -> Generator[Crop | FaceError]:
    """Yield the crops of the faces from ``start`` on, with progress."""
    faces = listing.faces[start:]
    with closing(cut_faces(listing.source, faces, settings, workers)) as crops:
        yield from progress(crops, len(faces)) if progress else crops


def _write_shard(file: Path, faces: Sequence[ListedFace], start: int, crops: Results, losses: _Losses) -> pa.Table:
    """Fill one shard; return what became of the faces that it went through."""
    columns: dict[str, list[Any]] = {name: [] for name in OUTCOME_SCHEMA.names}
    place = start
    with ShardWriter(file) as writer:
        while place < len(faces) and not writer.is_full:
            face, result = faces[place], next(crops)
            if isinstance(result, Crop):
                writer.add(face.image_id, result.image)
            else:
                losses.add(face, result.reason, result.detail)
            for name, column in columns.items():
                column.append(getattr(result, name, None))
            place += 1
    return pa.table(columns, schema=OUTCOME_SCHEMA)


def _count_losses(faces: Sequence[ListedFace], outcomes: pa.Table, losses: _Losses) -> None:
    reasons, details = outcomes["reason"].to_pylist(), outcomes["detail"].to_pylist()
    for face, reason, detail in zip(faces, reasons, details, strict=False):
        if reason is not None:
            losses.add(face, reason, detail or "")


def _places(shards: Sequence[pa.Table]) -> tuple[list[int], list[int]]:
    """Return shard and row of every kept face, in order."""
    numbers: list[int] = []
    rows: list[int] = []
    for number, outcomes in enumerate(shards):
        images = outcomes.num_rows - len(outcomes["sha256"].filter(outcomes["sha256"].is_null()))
        numbers += [number] * images
        rows += range(images)
    return numbers, rows


def _manifest(
    listing: Listing, outcomes: pa.Table, places: tuple[list[int], list[int]], near_duplicate_distance: int
) -> pa.Table:
    kept = outcomes["sha256"].is_valid()
    faces = [face for face, is_kept in zip(listing.faces, kept.to_pylist(), strict=True) if is_kept]
    known = outcomes.filter(kept)
    look = None
    if near_duplicate_distance >= 0:
        look = find_looks(known["perceptual_hash"].to_numpy(), near_duplicate_distance)
    group = find_groups(known["sha256"].to_numpy(), known["crop_sha256"].to_numpy(), look)
    of_face = (
        "image_id", "expression", "valence", "arousal", "source_path", "source_list", "source_row",
    )  # fmt: skip
    columns: dict[str, Any] = {
        **{name: [getattr(face, name) for face in faces] for name in of_face},
        "sha256": known["sha256"],
        "crop_sha256": known["crop_sha256"],
        "group": group,
        "shard": places[0],
        "shard_row": places[1],
        "width": known["width"],
        "height": known["height"],
    }
    return pa.table({name: columns[name] for name in MANIFEST_SCHEMA.names}, schema=MANIFEST_SCHEMA)


def _dropped(manifest: pa.Table, conflicts: np.ndarray[Any, np.dtype[np.bool_]]) -> list[Quarantined]:
    rows = manifest.filter(conflicts).to_pylist()
    labels: dict[str, set[int]] = {}
    for row in rows:
        labels.setdefault(row["crop_sha256"], set()).add(row["expression"])
    return [
        Quarantined(
            printable(row["source_path"]),
            row["source_list"],
            row["source_row"],
            Reason.CONFLICTING_LABELS,
            "the same face is labelled "
            + " and ".join(EXPRESSIONS[code] for code in sorted(labels[row["crop_sha256"]])),
            row["image_id"].encode(),
        )
        for row in rows
    ]


def _list_names(listing: Listing) -> Iterator[str]:
    yield from (face.source_list for face in listing.faces)
    yield from (row.source_list for row in listing.quarantined)


def _held_out_lists(listing: Listing) -> list[str]:
    is_held_out = LAYOUTS[listing.layout].is_held_out
    return sorted(name for name in set(_list_names(listing)) if is_held_out(name))


def _write_quarantine(rows: Sequence[Quarantined], out: Path) -> None:
    columns = {name: [getattr(row, name) for row in rows] for name in QUARANTINE_SCHEMA.names}
    columns["reason"] = [row.reason.value for row in rows]
    pq.write_table(pa.table(columns, schema=QUARANTINE_SCHEMA), out / QUARANTINE_FILE, compression="zstd")


def _counts(listing: Listing, manifest: pa.Table, quarantined: Sequence[Quarantined]) -> dict[str, Any]:
    expressions = Counter(manifest["expression"].to_pylist())
    reasons = Counter(row.reason.value for row in quarantined)
    groups = Counter(manifest["group"].to_pylist())
    return {
        "faces": manifest.num_rows,
        "counts": {name: expressions[code] for code, name in enumerate(EXPRESSIONS)},
        "excluded": {name: listing.excluded[code] for code, name in EXCLUDED_EXPRESSIONS.items()},
        "quarantined": dict(sorted(reasons.items())),
        "repeated_rows": listing.repeated,
        "unusable_cells": dict(sorted(listing.unusable.items())),
        "groups_of_several": sum(size > 1 for size in groups.values()),
        "largest_group": max(groups.values(), default=0),
    }


def content_digest(manifest: pa.Table) -> str:
    """Return the SHA-256 over every face's id, pixels, group and label, which is what splits depend on."""
    digest = hashlib.sha256()
    names = ("image_id", "crop_sha256", "group", "expression")
    for row in zip(*(manifest[name].to_pylist() for name in names), strict=True):
        digest.update(repr(row).encode())
    return digest.hexdigest()
