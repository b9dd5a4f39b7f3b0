"""What every layout yields, and the checks of cells that they share."""

import hashlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from affectflow.data.quarantine import FaceError, Quarantined, Reason
from affectflow.data.sources import Source
from affectflow.errors import DataError
from affectflow.labels import expression_code

#: x, y, width and height in pixels of the upright picture; x and y are those of the top left corner.
Box = tuple[float, float, float, float]

_LANDMARKS = 68
#: Landmarks as nearly all rows write them; three times faster than parsing 136 numbers.
_PLAIN_LANDMARKS = re.compile(rf"(?:-?[0-9]++(?:\.[0-9]*+)?+;){{{2 * _LANDMARKS - 1}}}+-?[0-9]++(?:\.[0-9]*+)?+")


@dataclass(frozen=True, slots=True)
class ListedFace:
    """A face as its list names it; no file was opened yet.

    Attributes:
        source_path: the picture's path as listed, relative to one of ``folders``.
        source_list: the list that names it, relative to the source folder.
        source_row: its line in that list, counted from 1, the header included; in layout ``folder`` its
            number in the sorted walk.
        folders: folders under the source folder in which ``source_path`` is looked up, in this order.
        expression: AffectNet's code, 0–10.
        box: the face in the picture, or ``None`` where the picture is the face.
        valence: in [-1, 1], or ``None``.
        arousal: in [-1, 1], or ``None``.
        unusable: names of the cells that were there but unusable, e.g. ``("landmarks",)``.
        digest: of the row as written; rows repeated word for word share it.
    """

    source_path: str
    source_list: str
    source_row: int
    folders: tuple[str, ...]
    expression: int
    box: Box | None
    valence: float | None
    arousal: float | None
    unusable: tuple[str, ...]
    digest: bytes

    @property
    def image_id(self) -> str:
        """A unique name that stays the same when rows are added before it: file name and row digest."""
        return f"{Path(self.source_path).stem[:40]}-{self.digest.hex()}"


Row = ListedFace | Quarantined


@dataclass(frozen=True, slots=True)
class Layout:
    """A way in which a dataset lies on a disk or in a bucket.

    Attributes:
        wanted: what it consists of, for messages.
        find: returns what of it a source holds, in words, or ``None`` when it is not this layout.
        read: yields a row for every listed face, or raises ``DataError`` where the layout is broken.
        is_held_out: whether the dataset's makers hold the faces of a ``source_list`` out for evaluation.
    """

    wanted: str
    find: Callable[[Source], str | None]
    read: Callable[[Source], Iterator[Row]]
    is_held_out: Callable[[str], bool]


def row_digest(text: str) -> bytes:
    """Return 8 bytes that stand for a row's text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def printable(text: str, limit: int = 200) -> str:
    """Return text that any file can hold: undecodable bytes escaped, cut to ``limit`` characters."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def parse_label(cell: str) -> int:
    """Return a label's code (0–10), or raise ``FaceError`` with reason ``bad_label``."""
    try:
        return expression_code(cell)
    except DataError:
        raise FaceError(Reason.BAD_LABEL, f"label {printable(cell)!r}") from None


def parse_box(x: str, y: str, width: str, height: str) -> Box:
    """Return a box of four finite numbers with an area, or raise ``FaceError`` with reason ``bad_box``."""
    cells = (x, y, width, height)
    numbers = [_number(cell) for cell in cells]
    if any(number is None for number in numbers):
        raise FaceError(Reason.BAD_BOX, f"box {printable(', '.join(cells))}, not four numbers")
    left, top, wide, high = (number or 0.0 for number in numbers)
    if wide < 1 or high < 1:
        raise FaceError(Reason.BAD_BOX, f"box {wide:g} wide and {high:g} high")
    return left, top, wide, high


def parse_affect(cell: str) -> float | None:
    """Return a valence or arousal in [-1, 1], or ``None`` (AffectNet writes -2 where there is none)."""
    number = _number(cell)
    return number if number is not None and -1 <= number <= 1 else None


def landmarks_usable(cell: str) -> bool:
    """Return whether a cell holds 68 ``x;y`` pairs of finite numbers."""
    if _PLAIN_LANDMARKS.fullmatch(cell):
        return True
    try:
        numbers = [float(part) for part in cell.split(";")]
    except ValueError:
        return False
    return len(numbers) == 2 * _LANDMARKS and math.isfinite(sum(numbers))


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
