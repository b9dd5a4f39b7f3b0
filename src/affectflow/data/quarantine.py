"""Why a listed face was left out, and the row that says so in ``quarantine.parquet``."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The few reasons for which a listed face is left out."""

    MISSING = "missing"  # there is no such file, or it cannot be opened
    ZERO_BYTE = "zero_byte"
    TRUNCATED = "truncated"  # the file ends before its picture does
    UNDECODABLE = "undecodable"  # no picture, or a damaged one
    TOO_MANY_PIXELS = "too_many_pixels"  # more than are safe to decode
    BAD_BOX = "bad_box"  # not four numbers, or without an area
    BOX_OUTSIDE = "box_outside"  # (almost) nothing of it lies in the picture
    OUTSIDE_ROOT = "outside_root"  # the path or a link leaves the source folder
    BAD_ROW = "bad_row"  # another number of cells, or undecodable text
    BAD_LABEL = "bad_label"  # no code from 0 to 10 and no known name
    CONFLICTING_LABELS = "conflicting_labels"  # the same face has other labels too (where these are dropped)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A listed face that was left out: where it was listed, why, and what exactly was found.

    ``digest`` stands for the row as written; rows repeated word for word share it. ``folders`` is where its
    picture is looked up, to be shown.
    """

    source_path: str
    source_list: str
    source_row: int
    reason: Reason
    detail: str
    digest: bytes
    folders: tuple[str, ...] = ()


class FaceError(Exception):
    """A listed face cannot be used; caught by the reader, which puts it into the quarantine."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)  # all arguments, so that it passes between processes
        self.reason = reason
        self.detail = detail
