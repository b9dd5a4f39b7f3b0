"""Layout ``folder``: ``<split?>/<class name or code>/<picture>``, as FER+, RAF-DB exports and Kaggle copies come.

Class folders are mapped by name or by AffectNet's code, never by alphabetical order. Every file in them is
listed, whatever its extension, except hidden files; a picture in a folder of another name is a bad label.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from affectflow.data.layouts.base import Layout, ListedFace, Row, parse_label, printable, row_digest
from affectflow.data.quarantine import FaceError, Quarantined, Reason
from affectflow.errors import DataError, what_got_wanted
from affectflow.labels import expression_code

SPLITS = frozenset(
    {
        "train", "training", "train_set", "val", "valid", "validation", "val_set", "valid_set",
        "test", "testing", "test_set", "publictest", "privatetest",
    }
)  # fmt: skip

_CLUTTER = frozenset({"thumbs.db", "desktop.ini"})


def _find(root: Path) -> str | None:
    classes = [path for split in _split_folders(root) for path in _folders(split) if _is_class(path)]
    return f"{len(classes)} class folders such as {classes[0].relative_to(root)}/" if classes else None


def _read(root: Path) -> Iterator[Row]:
    if _find(root) is None:
        got = ", ".join(path.name + "/" for path in _folders(root)[:5]) or "no folders"
        raise DataError(
            what_got_wanted(
                str(root), got=got, wanted=LAYOUT.wanted, do="name the class folders by expression or code"
            )
        )
    empty = True
    for split in _split_folders(root):
        row = 0
        source_list = "" if split == root else split.name
        for class_folder in _folders(split):
            if split == root and class_folder.name.lower() in SPLITS:
                continue
            for file in _files(class_folder):
                row += 1
                yield _list_face(root, file, class_folder.name, source_list, row)
                empty = False
    if empty:
        raise DataError(
            what_got_wanted(
                str(root),
                got="class folders without a file",
                wanted=LAYOUT.wanted,
                do="put the pictures into them",
            )
        )


def _list_face(root: Path, file: Path, label: str, source_list: str, row: int) -> Row:
    path = file.relative_to(root).as_posix()
    try:
        if printable(path, limit=len(path)) != path:
            raise FaceError(Reason.BAD_ROW, "a file name that is not UTF-8")
        if file.is_dir():
            raise FaceError(Reason.OUTSIDE_ROOT, "a linked folder; links to folders are not followed")
        expression = parse_label(label)
    except FaceError as error:
        return Quarantined(printable(path), source_list, row, error.reason, error.detail, row_digest(path))
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


def _split_folders(root: Path) -> list[Path]:
    return [root, *(path for path in _folders(root) if path.name.lower() in SPLITS)]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_class(folder: Path) -> bool:
    try:
        expression_code(folder.name)
    except DataError:
        return False
    return True


def _files(folder: Path) -> Iterator[Path]:
    """Yield a class folder's files in sorted order, and linked folders, which are not followed."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted([*files, *links]):
            if not name.startswith(".") and name.lower() not in _CLUTTER:
                yield Path(parent) / name


LAYOUT = Layout(
    wanted="folders <class name or code>/, or <split>/<class name or code>/, with pictures in them",
    find=_find,
    read=_read,
)
