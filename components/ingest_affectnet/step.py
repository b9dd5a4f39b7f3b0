"""Turn face pictures into a checked, memory-mapped dataset."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from affectflow.artifacts import canonical_digest, new_artifact, write_file
from affectflow.data.cropping import CropSettings
from affectflow.data.faces import Faces
from affectflow.data.figures import (
    class_distribution_html,
    contact_sheet_html,
    markdown_table,
    quarantine_html,
)
from affectflow.data.ingest import ingest
from affectflow.data.listing import Listing, list_faces
from affectflow.data.manifest import QUARANTINE_FILE
from affectflow.data.quarantine_sheet import quarantined_pictures
from affectflow.data.resume import ShardCheckpoints
from affectflow.data.synthetic import write_synthetic_affectnet
from affectflow.labels import EXPRESSIONS
from affectflow.progress import progress, say
from affectflow.steps import StepSettings, check_settings
from affectflow.storage import open_storage
from affectflow.tracked_run import Run, run_note
from affectflow.tracking import step_run
from components.code_digest import code_digest

SYNTHETIC = "synthetic"
_SHEET_FACES = 12
_LISTED = 20


class Settings(StepSettings):
    """What the step can be told; see ``component.py`` for meanings and defaults."""

    source: Annotated[str, Field(min_length=1)]
    layout: str
    synthetic_images: Annotated[int, Field(ge=100)]
    face_size: Annotated[int, Field(ge=32, le=1024)]
    margin: Annotated[float, Field(ge=0, le=1)]
    image_format: Literal["auto", "jpeg", "png"]
    jpeg_quality: Annotated[int, Field(ge=50, le=100)]
    max_quarantined: Annotated[float, Field(ge=0, le=1)]
    conflicting_labels: Literal["keep", "drop"]
    near_duplicate_distance: Annotated[int, Field(ge=-1, le=8)]
    seed: Annotated[int, Field(ge=0)]
    workers: Annotated[int, Field(ge=0, le=256)]
    checkpoint_dir: str
    source_digest: str

    @property
    def crops(self) -> CropSettings:
        """How faces are cut and stored."""
        return CropSettings(
            face_size=self.face_size,
            margin=self.margin,
            jpeg_quality=self.jpeg_quality,
            image_format=self.image_format,
            with_perceptual_hash=self.near_duplicate_distance >= 0,
        )


def run(
    *,
    faces: str,
    class_distribution: str,
    contact_sheet: str,
    quarantine_sheet: str,
    summary: str,
    **settings: Any,
) -> dict[str, Any]:
    """Ingest a source and write the dataset and its pages; return the dataset's header fields.

    ``source_digest`` is not checked: it is a parameter so that cached results follow the source's content.
    """
    chosen = check_settings(Settings, **settings)
    journal = chosen.checkpoint_dir or str(Path(faces).absolute().parent)
    with step_run("ingest_affectnet", journal) as tracked, _source(chosen) as source:
        listing = list_faces(source, chosen.layout)
        say(f"{len(listing.faces):,} faces listed in layout {listing.layout}")
        checkpoints = _checkpoints(chosen, listing)
        header: dict[str, Any] = {}
        with new_artifact(faces, "faces", header) as folder:
            header |= ingest(
                listing,
                folder,
                chosen.crops,
                max_quarantined=chosen.max_quarantined,
                workers=chosen.workers or _cores(),
                conflicting_labels=chosen.conflicting_labels,
                near_duplicate_distance=chosen.near_duplicate_distance,
                checkpoints=checkpoints,
                progress=lambda crops, total: progress(crops, total=total, desc="ingest", unit="faces"),
            )
            header["synthetic"] = chosen.source == SYNTHETIC
        dataset = Faces.open(faces)
        pictures = quarantined_pictures(listing, dataset, each=_SHEET_FACES)
        text = _summary(dataset)
        write_file(class_distribution, class_distribution_html(header["counts"]))
        write_file(contact_sheet, contact_sheet_html(_some_faces(dataset)))
        write_file(quarantine_sheet, quarantine_html(pictures, header["quarantined"]))
        write_file(summary, text + run_note(tracked))
        _track(
            tracked,
            chosen,
            dataset,
            {
                "class_distribution.html": class_distribution,
                "contact_sheet.html": contact_sheet,
                "quarantine_sheet.html": quarantine_sheet,
                "summary.md": summary,
            },
        )
        if checkpoints:
            checkpoints.clear()
    say(text)
    return header


@contextmanager
def _source(chosen: Settings) -> Iterator[str]:
    """Give the source to read; synthetic faces live only as long as they are read."""
    if chosen.source != SYNTHETIC:
        yield chosen.source
        return
    with tempfile.TemporaryDirectory(prefix="synthetic-faces-") as folder:
        say(f"drawing {chosen.synthetic_images:,} faces in AffectNet's own layout")
        write_synthetic_affectnet(Path(folder), images=chosen.synthetic_images, seed=chosen.seed)
        yield folder


def _checkpoints(chosen: Settings, listing: Listing) -> ShardCheckpoints | None:
    """Return where finished shards are kept: in a folder named after all that decides what they hold."""
    if not chosen.checkpoint_dir:
        return None
    key = canonical_digest(
        {
            "source": chosen.source,
            "source_digest": chosen.source_digest,
            "listing": listing.digest(),
            "crops": vars(chosen.crops),
            "code": code_digest("ingest_affectnet"),
        }
    )
    return ShardCheckpoints(open_storage(chosen.checkpoint_dir), f"ingest_affectnet-{key[:16]}")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _some_faces(dataset: Faces) -> dict[str, list[tuple[bytes, str]]]:
    """Return the first faces of every expression, encoded, with what they are."""
    chosen = {}
    for code, name in enumerate(EXPRESSIONS):
        rows = np.flatnonzero(dataset.expression == code)[:_SHEET_FACES]
        chosen[name] = [
            (bytes(dataset.image_bytes(int(row))), str(dataset.manifest["source_path"][row])) for row in rows
        ]
    return chosen


def _summary(dataset: Faces) -> str:
    header, quarantine = dataset.header, dataset.quarantine
    kept = [(name, count) for name, count in header["counts"].items()]
    left_out = [
        *((f"code of '{name}' (left out)", count) for name, count in header["excluded"].items()),
        ("repeated rows (counted once)", header["repeated_rows"]),
        *((f"quarantined: {reason}", count) for reason, count in header["quarantined"].items()),
        *((f"unusable {name} (set to null)", count) for name, count in header["unusable_cells"].items()),
        ("groups of several faces of the same content", header["groups_of_several"]),
        ("faces in the largest of them", header["largest_group"]),
        ("faces of the same pixels with several labels", header["conflicting_labels"]),
    ]
    text = f"# {header['faces']:,} faces, layout {header['layout']}\n\n"
    text += markdown_table(("expression", "faces"), kept) + "\n" + markdown_table(("rows", "count"), left_out)
    conflicts = _conflicts(dataset)
    if conflicts:
        text += f"\n## Same pixels, several labels: the first {_LISTED} faces\n\n"
        text += markdown_table(("path", "list", "row", "label", "group"), conflicts)
    if len(quarantine):
        first = quarantine.head(_LISTED).itertuples(index=False, name=None)
        text += f"\n## Quarantine, the first {_LISTED} of {len(quarantine):,}\n\n"
        text += markdown_table(("path", "list", "row", "reason", "detail"), list(first))
    return text


def _conflicts(dataset: Faces) -> list[tuple[object, ...]]:
    """Return the first kept faces whose pixels carry several labels, those of the same pixels together."""
    manifest = dataset.manifest
    labels = manifest.groupby("crop_sha256")["expression"].transform("nunique")
    rows = manifest[labels > 1].sort_values(["crop_sha256", "expression"]).head(_LISTED)
    return [
        (row.source_path, row.source_list, int(row.source_row), EXPRESSIONS[int(row.expression)], row.group)
        for row in rows.itertuples()
    ]


def _track(tracked: Run, chosen: Settings, dataset: Faces, pages: dict[str, str]) -> None:
    """Log settings, counts, the quarantine and the pages to MLflow."""
    header = dataset.header
    tracked.log_params(chosen.model_dump(exclude={"workers", "checkpoint_dir"}), prefix="data")
    counts = {
        "faces": header["faces"],
        "excluded": sum(header["excluded"].values()),
        "quarantined": sum(header["quarantined"].values()),
        "repeated_rows": header["repeated_rows"],
        "conflicting_labels": header["conflicting_labels"],
        "groups_of_several": header["groups_of_several"],
        **{f"faces.{name}": count for name, count in header["counts"].items()},
        **{f"quarantined.{reason}": count for reason, count in header["quarantined"].items()},
    }
    tracked.log_metrics({f"data.{name}": count for name, count in counts.items()})
    tracked.log_file(dataset.path / QUARANTINE_FILE, folder="data")
    for name, path in pages.items():  # KFP's own names of these files have no ending
        tracked.log_bytes(Path(path).read_bytes(), name=name, folder="data")
