"""Turn face pictures on disk into a checked, memory-mapped dataset."""

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from affectflow.artifacts import new_artifact
from affectflow.data.faces import Faces
from affectflow.data.figures import class_distribution_html, contact_sheet_html, markdown_table
from affectflow.data.ingest import CropSettings, ingest
from affectflow.data.listing import list_faces
from affectflow.data.synthetic import write_synthetic_affectnet
from affectflow.errors import SettingsError, what_got_wanted
from affectflow.labels import EXPRESSIONS
from affectflow.progress import progress, say
from affectflow.steps import StepSettings, check_settings

SYNTHETIC = "synthetic"
_SHEET_FACES = 12
_QUARANTINED_SHOWN = 20


class Settings(StepSettings):
    """What the step can be told; see ``component.py`` for meanings and defaults."""

    source: Annotated[str, Field(min_length=1)]
    layout: str
    synthetic_images: Annotated[int, Field(ge=100)]
    face_size: Annotated[int, Field(ge=32, le=1024)]
    margin: Annotated[float, Field(ge=0, le=1)]
    jpeg_quality: Annotated[int, Field(ge=50, le=100)]
    max_quarantined: Annotated[float, Field(ge=0, le=1)]
    seed: Annotated[int, Field(ge=0)]
    workers: Annotated[int, Field(ge=0, le=256)]
    source_digest: str


def run(
    *, faces: str, class_distribution: str, contact_sheet: str, summary: str, **settings: Any
) -> dict[str, Any]:
    """Ingest a source and write the dataset and its pages; return the dataset's header fields.

    ``source_digest`` is not checked: it is a parameter so that cached results follow the source's content.
    """
    chosen = check_settings(Settings, **settings)
    with _source_folder(chosen) as root:
        listing = list_faces(root, chosen.layout)
        say(f"{len(listing.faces):,} faces listed in layout {listing.layout}")
        header: dict[str, Any] = {}
        with new_artifact(faces, "faces", header) as folder:
            header |= ingest(
                listing,
                folder,
                CropSettings(chosen.face_size, chosen.margin, chosen.jpeg_quality),
                max_quarantined=chosen.max_quarantined,
                workers=chosen.workers or _cores(),
                progress=functools.partial(progress, total=len(listing.faces), desc="ingest", unit="faces"),
            )
    dataset = Faces.open(faces)
    _write(class_distribution, class_distribution_html(header["counts"]))
    _write(contact_sheet, contact_sheet_html(_some_faces(dataset)))
    text = _summary(dataset)
    _write(summary, text)
    say(text)
    return header


@contextmanager
def _source_folder(chosen: Settings) -> Iterator[Path]:
    """Give the folder to read; synthetic faces live only as long as they are read."""
    if chosen.source.startswith("s3://"):
        raise SettingsError(
            what_got_wanted(
                "--source",
                got=chosen.source,
                wanted="a folder or the word synthetic (s3:// is not yet supported)",
                do="copy the data to a folder and pass it",
            )
        )
    if chosen.source != SYNTHETIC:
        yield Path(chosen.source)
        return
    with tempfile.TemporaryDirectory(prefix="synthetic-faces-") as folder:
        say(f"drawing {chosen.synthetic_images:,} faces in AffectNet's own layout")
        write_synthetic_affectnet(Path(folder), images=chosen.synthetic_images, seed=chosen.seed)
        yield Path(folder)


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
        ("faces of the same content with several labels", header["conflicting_labels"]),
    ]
    text = f"# {header['faces']:,} faces, layout {header['layout']}\n\n"
    text += markdown_table(("expression", "faces"), kept) + "\n" + markdown_table(("rows", "count"), left_out)
    if len(quarantine):
        first = quarantine.head(_QUARANTINED_SHOWN).itertuples(index=False, name=None)
        text += f"\n## Quarantine, the first {_QUARANTINED_SHOWN} of {len(quarantine):,}\n\n"
        text += markdown_table(("path", "list", "row", "reason", "detail"), list(first))
    return text


def _write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
