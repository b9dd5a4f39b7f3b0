"""Layout ``folder``: ``<split?>/<class name or code>/<picture>``, as FER+, RAF-DB exports and Kaggle copies come.

Class folders are mapped by name or by AffectNet's code, never by alphabetical order. Every file in them is
listed, whatever its extension, except hidden files; a picture in a folder of another name is a bad label.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from affectflow.data.layouts.base import Layout, ListedFace, Row, parse_label, printable, row_digest
from affectflow.data.quarantine import FaceError, Quarantined, Reason
from affectflow.data.sources import Source
from affectflow.errors import DataError, what_got_wanted
from affectflow.labels import expression_code
from affectflow.storage import join

TRAINING = frozenset({"train", "training", "train_set"})
HELD_OUT = frozenset(
    {
        "val", "valid", "validation", "val_set", "valid_set", "test", "testing", "test_set", "publictest",
        "privatetest",
    }
)  # fmt: skip

_CLUTTER = frozenset({"thumbs.db", "desktop.ini"})


def _find(source: Source) -> str | None:
    classes = [join(split, name) for split in _splits(source) for name in source.folders(split) if _is_class(name)]
    return f"{len(classes)} class folders such as {classes[0]}/" if classes else None


def _read(source: Source) -> Iterator[Row]:
    if _find(source) is None:
        got = ", ".join(f"{name}/" for name in source.folders()[:5]) or "no folders"
        raise DataError(
            what_got_wanted(
                str(source), got=got, wanted=LAYOUT.wanted, do="name the class folders by expression or code"
            )
        )
    empty = True
    for split in _splits(source):
        row = 0
        for class_name in source.folders(split):
            if class_name.startswith(".") or (split == "" and _is_split(class_name)):
                continue
            for path in source.walk(join(split, class_name)):
                name = PurePosixPath(path).name
                if name.startswith(".") or name.lower() in _CLUTTER:
                    continue
                row += 1
                yield _list_face(source, path, class_name, split, row)
                empty = False
    if empty:
        raise DataError(
            what_got_wanted(
                str(source),
                got="class folders without a file",
                wanted=LAYOUT.wanted,
                do="put the pictures into them",
            )
        )


def _list_face(source: Source, path: str, label: str, source_list: str, row: int) -> Row:
    try:
        if printable(path, limit=len(path)) != path:
            raise FaceError(Reason.BAD_ROW, "a file name that is not UTF-8")
        if source.is_linked_folder(path):
            raise FaceError(Reason.OUTSIDE_ROOT, "a linked folder; links to folders are not followed")
        expression = parse_label(label)
    except FaceError as error:
        return Quarantined(
            printable(path), source_list, row, error.reason, error.detail, row_digest(path), folders=("",)
        )
    return ListedFace(
        source_path=path,
        source_list=source_list,
        source_row=row,
        folders=("",),
        expression=expression,
        box=None,
        valence=None,
        arousal=None,
        unusable=(),
        digest=row_digest(path),
    )


def _splits(source: Source) -> list[str]:
    """Return the folders that hold class folders: the source itself, named ``""``, and those of its splits."""
    return ["", *(name for name in source.folders() if _is_split(name))]


def _is_split(name: str) -> bool:
    return name.lower() in TRAINING | HELD_OUT


def _is_class(name: str) -> bool:
    try:
        expression_code(name)
    except DataError:
        return False
    return True


LAYOUT = Layout(
    wanted="folders <class name or code>/, or <split>/<class name or code>/, with pictures in them",
    find=_find,
    read=_read,
    is_held_out=lambda source_list: source_list.lower() in HELD_OUT,
)
