"""All rows of a source, sorted into faces to read, rows to leave out, and rows to quarantine."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from affectflow.data.layouts import AUTO, LAYOUTS, find_layout
from affectflow.data.layouts.base import ListedFace
from affectflow.data.quarantine import Quarantined, Reason
from affectflow.data.sources import Source, open_source
from affectflow.errors import DataError, what_got_wanted
from affectflow.labels import EXCLUDED_EXPRESSIONS, EXPRESSIONS


@dataclass
class Listing:
    """What the lists of a source say.

    Attributes:
        source: the dataset's place.
        layout: the layout's name.
        faces: of the eight expressions, each row once, in the lists' order. A row that a held-out list repeats
            counts as that list's, at the place where it was first read.
        quarantined: rows that cannot be used.
        excluded: rows of AffectNet's other codes, counted by code.
        repeated: rows that repeat an earlier one word for word.
        unusable: optional cells (landmarks, valence, arousal) of ``faces`` that held nothing usable, counted.
    """

    source: Source
    layout: str
    faces: list[ListedFace] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    excluded: Counter[int] = field(default_factory=Counter)
    repeated: int = 0
    unusable: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        """Return the number of rows of the eight expressions, usable or not, and of those that cannot be read."""
        return len(self.faces) + len(self.quarantined)

    def digest(self) -> str:
        """Return the SHA-256 of all that decides which faces are cut, in which order."""
        digest = hashlib.sha256(self.layout.encode())
        for face in self.faces:
            digest.update(f"{face.image_id}\0{face.source_list}\0{face.folders}\0{face.box}\n".encode())
        return digest.hexdigest()


def list_faces(place: str | Path | Source, layout: str = AUTO) -> Listing:
    """Read a source's lists; no picture is opened.

    Args:
        place: the source: a folder or ``s3://bucket/prefix``.
        layout: a layout's name or ``"auto"``.

    Raises:
        DataError: a list is missing, empty or of another form, or none of its labels is usable.
        SettingsError: there is no such layout.
        StorageError: the source cannot be reached or read.
    """
    source = open_source(place)
    name = find_layout(source, layout)
    listing = Listing(source, name)
    is_held_out = LAYOUTS[name].is_held_out
    place_of: dict[bytes, int] = {}  # among the faces; -1 of other rows
    for row in LAYOUTS[name].read(source):
        index = place_of.get(row.digest)
        if index is not None:
            listing.repeated += 1
            if index >= 0 and isinstance(row, ListedFace) and is_held_out(row.source_list):
                listing.faces[index] = row
            continue
        place_of[row.digest] = -1
        if isinstance(row, Quarantined):
            listing.quarantined.append(row)
        elif row.expression in EXCLUDED_EXPRESSIONS:
            listing.excluded[row.expression] += 1
        else:
            listing.unusable.update(row.unusable)
            place_of[row.digest] = len(listing.faces)
            listing.faces.append(row)
    _check_labels(listing)
    return listing


def _check_labels(listing: Listing) -> None:
    bad = [row for row in listing.quarantined if row.reason is Reason.BAD_LABEL]
    if bad and not listing.faces and not listing.excluded:
        raise DataError(
            what_got_wanted(
                f"{listing.source} ({bad[0].source_list or listing.layout})",
                got=f"no usable label, e.g. {bad[0].detail} in row {bad[0].source_row}",
                wanted=f"codes 0 to 10 or names such as {', '.join(EXPRESSIONS)}",
                do="map the labels to these, or rename the column that holds them to 'label'",
            )
        )
