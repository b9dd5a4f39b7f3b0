"""Layout ``manual``: AffectNet's manually annotated part as it is distributed.

``Manually_Annotated_file_lists/{training,validation}.csv`` and ``Manually_Annotated_Images/<directory>/<file>``.
Both lists have nine columns; copies exist with and without a header, so the first cell decides.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from affectflow.data.layouts.base import Layout, Row, printable
from affectflow.data.layouts.table import find_columns, first_line, read_table, split_line
from affectflow.data.quarantine import FaceError
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


def _find(root: Path) -> str | None:
    found = [name for name in (LISTS, IMAGES) if (root / name).is_dir()]
    return " and ".join(found) if found else None


def _read(root: Path) -> Iterator[Row]:
    for name in (LISTS, IMAGES):
        if not (root / name).is_dir():
            raise _broken(root / name, "no such folder")
    for name in LIST_FILES:
        if not (root / LISTS / name).is_file():
            raise _broken(root / LISTS / name, "no such list")
    for name in LIST_FILES:
        yield from _read_list(root / LISTS / name)


def _read_list(list_file: Path) -> Iterator[Row]:
    line = first_line(list_file)
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
                str(list_file),
                got=f"the header {printable(line)!r} without {', '.join(lacking)}",
                wanted="the columns " + ", ".join(COLUMNS),
                do="bring AffectNet's own list, or pass --layout csv for another table",
            )
        )
    return read_table(
        list_file,
        source_list=f"{LISTS}/{list_file.name}",
        folders=(IMAGES,),
        columns=find_columns(header),
        width=len(header),
        delimiter=",",
        skip_first=has_header,
    )


def _broken(path: Path, got: str) -> DataError:
    return DataError(
        what_got_wanted(str(path), got=got, wanted=LAYOUT.wanted, do="pass the folder that holds both")
    )


LAYOUT = Layout(
    wanted=f"{LISTS}/ with {' and '.join(LIST_FILES)}, and {IMAGES}/",
    find=_find,
    read=_read,
)
