"""Say which expressions pictures of faces show: ``python -m affectflow.predict --model URI image.jpg …``.

A picture holds one face, cut out as in the training data. Exit codes: 0 done, 2 something to mend.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from affectflow.command_line import OneLineParser
from affectflow.data.crops import decode_picture
from affectflow.data.quarantine import FaceError
from affectflow.errors import USER_ERROR, AffectflowError, DataError, what_got_wanted
from affectflow.progress import say

if TYPE_CHECKING:
    import pandas as pd


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table with a line a picture and return the exit code."""
    parser = OneLineParser(prog="python -m affectflow.predict", description=__doc__)
    parser.add_argument(
        "--model",
        required=True,
        metavar="URI",
        help="in MLflow, e.g. models:/affectflow@champion or runs:/ID/model (MLFLOW_TRACKING_URI says where), "
        "or a model folder that fine_tune wrote",
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a picture of one face")
    flags = parser.parse_args(argv)
    try:
        for line in table(flags.images, predict(flags.model, flags.images)):
            say(line)
    except AffectflowError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return USER_ERROR
    return 0


def predict(model: str, images: Sequence[Path]) -> "pd.DataFrame":
    """Return the probabilities of the eight expressions, a row a picture.

    Args:
        model: URI in MLflow, or a ``model/`` folder.
        images: files with one face each.

    Raises:
        AffectflowError: a file or the model cannot be read.
    """
    import pandas as pd

    from affectflow.serving import IMAGE_COLUMN

    contents = [_read(path) for path in images]  # before the model is loaded, which takes a while
    frame = pd.DataFrame({IMAGE_COLUMN: contents})
    if Path(model).is_dir():
        from affectflow.serving import ExpressionPredictor

        return ExpressionPredictor(model).predict(frame)
    from affectflow.tracked_models import load_predictor

    probability: pd.DataFrame = load_predictor(model).predict(frame)
    return probability


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
