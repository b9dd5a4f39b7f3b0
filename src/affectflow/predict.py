"""Say which expressions pictures of faces show: ``python -m affectflow.predict --model URI image.jpg folder …``.

A picture holds one face, cut out as in the training data. Folders are searched for pictures; what cannot be read
in them is named and left out. With --output-dir the answers are written as a table (predictions.csv) and as a page
with the pictures (contact_sheet.html). Exit codes: 0 done, 2 something to mend.
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from affectflow.command_line import OneLineParser, add_message_flags
from affectflow.data.crops import decode_picture
from affectflow.data.quarantine import FaceError
from affectflow.errors import USER_ERROR, AffectflowError, DataError, what_got_wanted
from affectflow.progress import progress, report_error, say, warn

if TYPE_CHECKING:
    import pandas as pd

TABLE_FILE, SHEET_FILE = "predictions.csv", "contact_sheet.html"

#: Endings by which pictures are found in a folder.
ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

#: Pictures that are in memory at a time.
_BATCH = 64
#: Unreadable files of a folder that are named.
_NAMED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table with a line a picture, write the sheet, and return the exit code."""
    parser = OneLineParser(
        prog="python -m affectflow.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="URI",
        help="in MLflow, e.g. models:/affectflow@champion or runs:/ID/model (MLFLOW_TRACKING_URI says where), "
        "or a model folder that fine_tune wrote",
    )
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help=f"where {TABLE_FILE} and {SHEET_FILE} go")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a picture of one face, or a folder")
    add_message_flags(parser)
    flags = parser.parse_args(argv)
    try:
        images = find_images(flags.images)
        probability = predict(flags.model, images)
        for line in table(images, probability):
            say(line)
        if flags.output_dir:
            write_table(flags.output_dir / TABLE_FILE, images, probability)
            write_sheet(flags.output_dir / SHEET_FILE, images, probability, model=flags.model)
            say(f"made: {flags.output_dir / TABLE_FILE}, {flags.output_dir / SHEET_FILE}")
    except AffectflowError as error:
        report_error(str(error))
        return USER_ERROR
    return 0


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the named pictures, and in sorted order those in the named folders and below that can be read.

    Raises:
        DataError: a named picture is not there, or a folder holds none that can be read.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            _read(path)
            found.append(path)
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
        broken = [file for file in inside if not _can_be_read(file)]
        if broken:
            named = ", ".join(str(file) for file in broken[:_NAMED]) + (", …" if len(broken) > _NAMED else "")
            warn(f"left out {len(broken)} of {len(inside)} pictures in {path} that cannot be read: {named}")
        if len(broken) == len(inside):
            raise DataError(
                what_got_wanted(
                    str(path), got="no picture that can be read", wanted="JPEG, PNG, …", do="check the folder"
                )
            )
        found += sorted(set(inside) - set(broken))
    return found


def predict(model: str, images: Sequence[Path]) -> "pd.DataFrame":
    """Return the probabilities of the eight expressions, a row a picture.

    Args:
        model: URI in MLflow, or a ``model/`` folder.
        images: files with one face each.

    Raises:
        AffectflowError: a file or the model cannot be read.
    """
    import pandas as pd

    from affectflow.served_interface import IMAGE_COLUMN

    _read(images[0])  # before the model is loaded, which takes a while
    predict_frame = _predictor(model)
    starts = range(0, len(images), _BATCH)
    parts = []
    for start in progress(starts, total=len(starts), desc="predicting", unit=f"batches of {_BATCH}"):
        batch = images[start : start + _BATCH]
        contents = [_read(path) for path in batch]
        parts.append(predict_frame(pd.DataFrame({IMAGE_COLUMN: contents})))
    return pd.concat(parts, ignore_index=True)


def table(images: Sequence[Path], probability: "pd.DataFrame") -> list[str]:
    """Return the lines of a table: picture, most probable expression, and every probability in %."""
    names = [str(path) for path in images]
    width = max(map(len, [*names, "image"]))
    head = "  ".join(f"{name:>8}" for name in probability.columns)
    lines = [f"{'image':<{width}}  {'expression':<10}  {head}"]
    for name, (_, row) in zip(names, probability.iterrows(), strict=True):
        shares = "  ".join(f"{value:>8.1%}" for value in row)
        lines.append(f"{name:<{width}}  {row.idxmax()!s:<10}  {shares}")
    return lines


def write_table(file: Path, images: Sequence[Path], probability: "pd.DataFrame") -> None:
    """Write a row a picture: its path, the most probable expression, every probability."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "expression", *probability.columns])
        for path, (_, row) in zip(images, probability.iterrows(), strict=True):
            writer.writerow([str(path), row.idxmax(), *(f"{value:.6f}" for value in row)])


def write_sheet(file: Path, images: Sequence[Path], probability: "pd.DataFrame", *, model: str) -> None:
    """Write the page with the pictures and what they are said to show."""
    from affectflow.model_report.prediction_sheet import prediction_sheet
    from affectflow.model_report.thumbnails import thumbnail

    file.parent.mkdir(parents=True, exist_ok=True)
    page = prediction_sheet(
        "What the faces are said to show",
        [path.name for path in images],
        probability.to_numpy(),
        [str(name) for name in probability.columns],
        picture=lambda position: thumbnail(decode_picture(_read(images[position]))),
        note=f"{len(images):,} pictures, model {model}.",
    )
    file.write_text(page, encoding="utf-8")


def _predictor(model: str) -> "Callable[[pd.DataFrame], pd.DataFrame]":
    if Path(model).is_dir():
        from affectflow.serving import ExpressionPredictor

        return ExpressionPredictor(model).predict
    from affectflow.tracked_models import load_predictor

    predictor: Callable[[pd.DataFrame], pd.DataFrame] = load_predictor(model).predict
    return predictor


def _can_be_read(path: Path) -> bool:
    try:
        _read(path)
    except DataError:
        return False
    return True


def _read(path: Path) -> bytes:
    wanted = "a picture that can be read (JPEG, PNG, …)"
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(what_got_wanted(str(path), got=reason, wanted=wanted, do="check the path")) from None
    try:
        decode_picture(content)
    except FaceError as error:
        got = error.detail or str(error.reason)
        raise DataError(what_got_wanted(str(path), got=got, wanted=wanted, do="leave it out")) from None
    return content


if __name__ == "__main__":
    raise SystemExit(main())
