"""Layout ``csv``: a table in the source folder with a path column and a label column.

The table is ``labels.csv``, or the only ``*.csv``, or the only one of several whose header has both columns.
Paths are looked up in the source folder, then in its ``images`` folder. Box, valence, arousal and landmarks
are read where the table has AffectNet's columns of these names.

:func:`read_table` reads any such list; AffectNet's own layouts use it too.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from affectflow.data.layouts.base import (
    Layout,
    ListedFace,
    Row,
    landmarks_usable,
    parse_affect,
    parse_box,
    parse_label,
    printable,
    row_digest,
)
from affectflow.data.quarantine import FaceError, Quarantined, Reason
from affectflow.data.sources import Source, text_lines
from affectflow.errors import DataError, what_got_wanted

PATH_COLUMNS = (
    "path", "image_path", "img_path", "filepath", "file_path", "filename", "file_name", "file", "image", "img",
    "image_name", "subdirectory_filepath",
)  # fmt: skip
LABEL_COLUMNS = ("label", "expression", "emotion", "class", "class_name", "category", "labels", "target")
BOX_COLUMNS = ("face_x", "face_y", "face_width", "face_height")

_DELIMITERS = (",", ";", "\t")

#: Role of a column → its place in a row. Roles: path, label, face_x … face_height, landmarks, valence, arousal.
Columns = Mapping[str, int]


def read_table(
    source: Source,
    source_list: str,
    *,
    folders: tuple[str, ...],
    columns: Columns,
    width: int,
    delimiter: str,
    skip_first: bool,
) -> Iterator[Row]:
    """Yield a row for each line of a list. A line is a row: quoted line breaks are not known.

    Args:
        source: the dataset.
        source_list: the list's path in it.
        folders: where its paths are looked up (see ``ListedFace``).
        columns: where each role stands.
        width: the number of cells that a row must have.
        delimiter: between cells.
        skip_first: whether the first line is a header.

    Raises:
        DataError: the list has no rows.
    """
    empty = True
    for number, text in enumerate(text_lines(source, source_list), start=1):
        if (number == 1 and skip_first) or not text.strip():
            continue
        empty = False
        yield _parse_row(text, source_list, number, folders, columns, width, delimiter)
    if empty:
        raise DataError(
            what_got_wanted(
                source.path(source_list), got="no rows", wanted="a row for each face", do="bring the complete list"
            )
        )


def _parse_row(
    text: str,
    source_list: str,
    number: int,
    folders: tuple[str, ...],
    columns: Columns,
    width: int,
    delimiter: str,
) -> Row:
    path = ""
    try:
        cells = split_line(text, delimiter)
        path = cells[columns["path"]].strip() if columns["path"] < len(cells) else ""
        if not text.isascii():
            _check_text(text)
        if len(cells) != width:
            raise FaceError(Reason.BAD_ROW, f"{len(cells)} cells instead of {width}")
        if not path or "\0" in text:
            raise FaceError(Reason.BAD_ROW, "no path" if not path else "a zero byte in the text")
        expression = parse_label(cells[columns["label"]])
        # Faces of codes 8–10 are left out whatever their box.
        boxed = "face_x" in columns and expression < 8
        box = parse_box(*(cells[columns[name]] for name in BOX_COLUMNS)) if boxed else None
    except FaceError as error:
        return Quarantined(
            printable(path), source_list, number, error.reason, error.detail, row_digest(text), folders
        )
    # Nothing is asked of the optional cells of faces that are left out.
    valence, arousal, unusable = _optional_cells(cells, columns) if expression < 8 else (None, None, ())
    return ListedFace(
        source_path=path,
        source_list=source_list,
        source_row=number,
        folders=folders,
        expression=expression,
        box=box,
        valence=valence,
        arousal=arousal,
        unusable=unusable,
        digest=row_digest(text),
    )


def _optional_cells(cells: Sequence[str], columns: Columns) -> tuple[float | None, float | None, tuple[str, ...]]:
    valence = parse_affect(cells[columns["valence"]]) if "valence" in columns else None
    arousal = parse_affect(cells[columns["arousal"]]) if "arousal" in columns else None
    unusable = [
        role for role, value in (("valence", valence), ("arousal", arousal)) if role in columns and value is None
    ]
    if "landmarks" in columns and not landmarks_usable(cells[columns["landmarks"]]):
        unusable.append("landmarks")
    return valence, arousal, tuple(unusable)


def split_line(text: str, delimiter: str) -> list[str]:
    """Return a line's cells, or raise ``FaceError`` with reason ``bad_row``."""
    if '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise FaceError(Reason.BAD_ROW, str(error)) from None


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise FaceError(Reason.BAD_ROW, "text that is not UTF-8") from None


def first_line(source: Source, source_list: str) -> str:
    """Return a list's first line without its line break, byte order mark and undecodable bytes.

    Raises:
        DataError: the file is empty.
    """
    with source.open_text(source_list, errors="replace") as stream:
        line = stream.readline(1 << 20).rstrip("\n")
    if not line.strip():
        raise DataError(
            what_got_wanted(
                source.path(source_list),
                got="an empty first line",
                wanted="a list of faces",
                do="bring the complete list",
            )
        )
    return line


def find_columns(header: Sequence[str]) -> dict[str, int]:
    """Return the roles that a header's names have; ``path`` and ``label`` may be lacking."""
    names = [name.strip().lower() for name in header]
    roles = {}
    for role, known in (("path", PATH_COLUMNS), ("label", LABEL_COLUMNS)):
        place = next((names.index(name) for name in known if name in names), None)
        if place is not None:
            roles[role] = place
    if all(name in names for name in BOX_COLUMNS):
        roles |= {name: names.index(name) for name in BOX_COLUMNS}
    for role, name in (("landmarks", "facial_landmarks"), ("valence", "valence"), ("arousal", "arousal")):
        if name in names:
            roles[role] = names.index(name)
    return roles


def _header(source: Source, table: str) -> tuple[dict[str, int], int, str]:
    """Return the columns, the number of cells and the delimiter of a table."""
    line = first_line(source, table)
    best: tuple[dict[str, int], int, str] = ({}, 0, ",")
    for delimiter in _DELIMITERS:
        try:
            names = split_line(line, delimiter)
        except FaceError:
            continue
        columns = find_columns(names)
        if {"path", "label"} <= columns.keys():
            return columns, len(names), delimiter
        if len(names) > best[1]:
            best = columns, len(names), delimiter
    return best


def _tables(source: Source) -> list[str]:
    """Return the table to read, or every candidate when it cannot be told which."""
    names = [name for name in source.files() if PurePosixPath(name).suffix.lower() == ".csv"]
    named = [name for name in names if name.lower() == "labels.csv"]
    if len(named) == 1 or len(names) <= 1:
        return named or names
    fitting = [name for name in names if {"path", "label"} <= _header(source, name)[0].keys()]
    return fitting or names


def _find(source: Source) -> str | None:
    tables = _tables(source)
    return "the tables " + ", ".join(tables) if tables else None


def _read(source: Source) -> Iterator[Row]:
    tables = _tables(source)
    if len(tables) != 1:
        got = "the tables " + ", ".join(tables) if tables else "no *.csv"
        raise DataError(
            what_got_wanted(
                str(source),
                got=got,
                wanted=LAYOUT.wanted,
                do="name the one to read labels.csv, or pass its folder",
            )
        )
    table = tables[0]
    columns, width, delimiter = _header(source, table)
    for role, known in (("path", PATH_COLUMNS), ("label", LABEL_COLUMNS)):
        if role not in columns:
            raise DataError(
                what_got_wanted(
                    source.path(table),
                    got=f"the header {printable(first_line(source, table))!r}",
                    wanted=f"a {role} column with one of the names {', '.join(known)}",
                    do="rename the column",
                )
            )
    yield from read_table(
        source,
        table,
        folders=("", "images"),
        columns=columns,
        width=width,
        delimiter=delimiter,
        skip_first=True,
    )


LAYOUT = Layout(
    wanted="one table *.csv with a path and a label column",
    find=_find,
    read=_read,
    is_held_out=lambda source_list: False,
)
