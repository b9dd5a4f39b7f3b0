"""Layout ``manual``: AffectNet's manually annotated part as it is distributed.

``Manually_Annotated_file_lists/{training,validation}.csv`` and ``Manually_Annotated_Images/<directory>/<file>``.
Both lists have nine columns; copies exist with and without a header, so the first cell decides.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from affectflow.data.layouts.base import Layout, Row, printable
from affectflow.data.layouts.table import find_columns, first_line, read_table, split_line
from affectflow.data.quarantine import FaceError
from affectflow.data.sources import Source
from affectflow.errors import DataError, what_got_wanted

LISTS = "Manually_Annotated_file_lists"
IMAGES = "Manually_Annotated_Images"
LIST_FILES = ("training.csv", "validation.csv")
COLUMNS = (
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
)


def _find(source: Source) -> str | None:
    found = [name for name in (LISTS, IMAGES) if source.has_folder(name)]
    return " and ".join(found) if found else None


def _read(source: Source) -> Iterator[Row]:
    for name in (LISTS, IMAGES):
        if not source.has_folder(name):
            raise broken(source.path(name), "no such folder", LAYOUT.wanted)
    for name in LIST_FILES:
        if not source.has_file(LISTS, name):
            raise broken(source.path(LISTS, name), "no such list", LAYOUT.wanted)
    for name in LIST_FILES:
        yield from read_affectnet_list(source, f"{LISTS}/{name}", images=IMAGES)


def read_affectnet_list(source: Source, source_list: str, *, images: str) -> Iterator[Row]:
    """Yield the rows of a list with AffectNet's nine columns, with or without a header.

    Args:
        source: the dataset.
        source_list: the list's path in it.
        images: the folder in which its paths are looked up.

    Raises:
        DataError: the list is empty, or has another header.
    """
    line = first_line(source, source_list)
    try:
        cells = split_line(line, ",")
    except FaceError:
        cells = [line]
    has_header = not ("/" in cells[0] or PurePosixPath(cells[0]).suffix)
    header = [cell.strip().lower() for cell in cells] if has_header else [name.lower() for name in COLUMNS]
    lacking = [name for name in COLUMNS if name.lower() not in header]
    if lacking:
        raise DataError(
            what_got_wanted(
                source.path(source_list),
                got=f"the header {printable(line)!r} without {', '.join(lacking)}",
                wanted="the columns " + ", ".join(COLUMNS),
                do="bring AffectNet's own list, or pass --layout csv for another table",
            )
        )
    return read_table(
        source,
        source_list,
        folders=(images,),
        columns=find_columns(header),
        width=len(header),
        delimiter=",",
        skip_first=has_header,
    )


def broken(path: str, got: str, wanted: str) -> DataError:
    """Return the error of a layout of which a part is missing."""
    return DataError(what_got_wanted(path, got=got, wanted=wanted, do="pass the folder that holds both"))


LAYOUT = Layout(
    wanted=f"{LISTS}/ with {' and '.join(LIST_FILES)}, and {IMAGES}/",
    find=_find,
    read=_read,
    is_held_out=lambda source_list: source_list == f"{LISTS}/{LIST_FILES[1]}",
)
