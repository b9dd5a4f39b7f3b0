"""Layout ``npy``: AffectNet's later set of faces that are cropped already, one NumPy file an annotation.

``{train_set,val_set}/images/<id>.jpg`` and ``{train_set,val_set}/annotations/<id>_{exp,val,aro,lnd}.npy``; some
copies call the second ``valid_set``. Values are 0-d arrays of numbers or of text.
"""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from affectflow.data.layouts.base import (
    Layout,
    ListedFace,
    Row,
    parse_affect,
    parse_label,
    printable,
    row_digest,
)
from affectflow.data.quarantine import FaceError, Quarantined, Reason
from affectflow.data.sources import Source
from affectflow.errors import DataError, what_got_wanted

TRAIN_SET = "train_set"
VAL_SETS = ("val_set", "valid_set")

_IMAGES, _ANNOTATIONS = "images", "annotations"
_LANDMARK_NUMBERS = 2 * 68
#: Faces whose annotations are asked for before the first of them is needed.
_AHEAD = 1024


def _find(source: Source) -> str | None:
    # A few class folders named images/ would be odd: the annotations make the layout.
    sets = [name for name in _sets(source) if source.has_folder(name, _ANNOTATIONS)]
    return " and ".join(f"{name}/{_ANNOTATIONS}" for name in sets) if sets else None


def _read(source: Source) -> Iterator[Row]:
    sets = _sets(source)
    if not (TRAIN_SET in sets and len(sets) > 1):
        lacking = VAL_SETS[0] if TRAIN_SET in sets else TRAIN_SET
        raise _broken(source.path(lacking), "no such folder")
    for name in sets:
        for part in (_IMAGES, _ANNOTATIONS):
            if not source.has_folder(name, part):
                raise _broken(source.path(name, part), "no such folder")
    for name in sets:
        yield from _read_set(source, name)


def _read_set(source: Source, name: str) -> Iterator[Row]:
    files = _visible(source.files(f"{name}/{_IMAGES}"))
    images = {PurePosixPath(file).stem: file for file in reversed(files)}
    seconds = sorted(set(files) - set(images.values()))  # 7.png beside 7.jpg: an annotation is that of one
    annotations = set(_visible(source.files(f"{name}/{_ANNOTATIONS}")))
    listed = {file.removesuffix("_exp.npy") for file in annotations if file.endswith("_exp.npy")}
    ids = sorted(images.keys() | listed, key=_in_order)
    if not ids:
        raise _broken(source.path(name, _IMAGES), "no file")

    def read(number: int) -> Row:
        face = ids[number]
        path = f"{name}/{_IMAGES}/{images.get(face, face + '.jpg')}"
        return _list_face(source, f"{name}/{_ANNOTATIONS}", face, path, number + 1, annotations)

    with ExitStack() as stack:
        rows: Iterator[Row] = map(read, range(len(ids)))
        if source.reads_at_a_time > 1:
            pool = stack.enter_context(ThreadPoolExecutor(source.reads_at_a_time))
            blocks = (range(start, min(start + _AHEAD, len(ids))) for start in range(0, len(ids), _AHEAD))
            rows = (row for block in blocks for row in pool.map(read, block))
        yield from rows
    for row, file in enumerate(seconds, start=len(ids) + 1):
        path, first = f"{name}/{_IMAGES}/{file}", images[PurePosixPath(file).stem]
        yield Quarantined(
            printable(path),
            f"{name}/{_ANNOTATIONS}",
            row,
            Reason.BAD_ROW,
            f"{printable(first)} has the same name",
            row_digest(path),
            folders=("",),
        )


def _visible(files: list[str]) -> list[str]:
    """Leave out ``._7.jpg`` and ``.DS_Store``, which macOS puts beside files."""
    return [file for file in files if not file.startswith(".")]


def _list_face(source: Source, folder: str, face: str, path: str, row: int, annotations: set[str]) -> Row:
    def value(kind: str) -> NDArray[np.generic] | None:
        file = f"{face}_{kind}.npy"
        return _read_array(source, folder, file) if file in annotations else None

    try:
        if printable(path, limit=len(path)) != path:
            raise FaceError(Reason.BAD_ROW, "a file name that is not UTF-8")
        if f"{face}_exp.npy" not in annotations:
            raise FaceError(Reason.BAD_ROW, f"no {face}_exp.npy")
        expression = parse_label(_text(value("exp")))
    except FaceError as error:
        return Quarantined(
            printable(path), folder, row, error.reason, error.detail, row_digest(path), folders=("",)
        )
    valence, arousal, landmarks = (
        parse_affect(_text(value("val"))),
        parse_affect(_text(value("aro"))),
        value("lnd"),
    )
    usable = {
        "valence": valence is not None,
        "arousal": arousal is not None,
        "landmarks": landmarks is not None and _are_landmarks(landmarks),
    }
    return ListedFace(
        source_path=path,
        source_list=folder,
        source_row=row,
        folders=("",),
        expression=expression,
        box=None,
        valence=valence,
        arousal=arousal,
        unusable=tuple(role for role, is_usable in usable.items() if not is_usable),
        digest=row_digest(path),
    )


def _read_array(source: Source, folder: str, file: str) -> NDArray[np.generic] | None:
    """Return a file's array, or ``None`` where it holds none. Pickled objects are refused by NumPy."""
    try:
        array: NDArray[np.generic] = np.lib.format.read_array(
            io.BytesIO(source.read((folder,), file)), allow_pickle=False
        )
    except Exception:  # a broken file raises almost anything
        return None
    return array


def _text(array: NDArray[np.generic] | None) -> str:
    """Return the one value of an array as text; what holds none or several becomes a text that is no number."""
    if array is None or array.size != 1:
        return "no value" if array is None or array.size == 0 else f"{array.size} values"
    try:
        value = array.reshape(()).item()
    except (SystemError, ValueError):  # characters that no text has
        return "no text"
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _are_landmarks(array: NDArray[np.generic]) -> bool:
    try:
        numbers = array.astype(np.float64)
    except ValueError:
        return False
    return numbers.size == _LANDMARK_NUMBERS and bool(np.isfinite(numbers).all())


def _sets(source: Source) -> list[str]:
    folders = source.folders()
    return [name for name in (TRAIN_SET, *VAL_SETS) if name in folders]


def _in_order(face: str) -> tuple[int, int, str]:
    """Sort numbers by value, and before other names."""
    return (0, int(face), face) if face.isdecimal() else (1, 0, face)


def _broken(path: str, got: str) -> DataError:
    return DataError(
        what_got_wanted(path, got=got, wanted=LAYOUT.wanted, do="pass the folder that holds both sets")
    )


LAYOUT = Layout(
    wanted=f"{TRAIN_SET}/ and {VAL_SETS[0]}/ (or {VAL_SETS[1]}/) with {_IMAGES}/ and {_ANNOTATIONS}/*_exp.npy",
    find=_find,
    read=_read,
    is_held_out=lambda source_list: source_list.split("/")[0] in VAL_SETS,
)
