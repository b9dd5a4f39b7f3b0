"""The model as MLflow loads it: from safetensors, without a pickle, with its own preprocessing.

``mlflow.pyfunc.load_model(uri).predict(frame)`` takes a data frame (or a dictionary of lists) with a column
``image``, a picture of one face a row: encoded bytes (JPEG, PNG, …), the same as base64 text, or an RGB array
(H, W, 3) of whole numbers from 0 to 255. It returns a column of probabilities an expression.
"""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from affectflow.data.crops import decode_picture, squared
from affectflow.data.quarantine import FaceError
from affectflow.errors import DataError, what_got_wanted
from affectflow.headers import ServedModel, check_header
from affectflow.labels import EXPRESSIONS
from affectflow.served_interface import IMAGE_COLUMN

if TYPE_CHECKING:
    from torch import Tensor

_BATCH = 64


class ExpressionPredictor:
    """Probabilities of the eight expressions for pictures of one face each.

    Args:
        model_folder: a ``model/`` artifact.
    """

    def __init__(self, model_folder: str | Path) -> None:
        from affectflow.models import InputNorm, Normalize, load_model
        from affectflow.training.inference import best_device

        self._device = best_device()
        model, self._header = load_model(model_folder)
        check_header(model_folder, "model", self._header, ServedModel)
        self._model = model.to(self._device)
        self._normalise = Normalize(InputNorm.from_json(self._header["input_norm"])).to(self._device)

    def predict(
        self, model_input: pd.DataFrame | dict[str, Sequence[Any]], params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return a row of probabilities, which sum to 1, for each picture.

        Args:
            model_input: a column ``image`` of bytes, base64 text, or arrays (H, W, 3).
            params: none are known; MLflow passes them.

        Raises:
            DataError: no such column, or a picture that cannot be read.
        """
        import torch

        from affectflow.training.inference import run_model

        if IMAGE_COLUMN not in model_input:
            line = what_got_wanted(
                "input",
                got=f"columns {', '.join(map(str, model_input))}",
                wanted=f"a column {IMAGE_COLUMN}",
                do="pass a picture a row",
            )
            raise DataError(line)
        pictures = list(model_input[IMAGE_COLUMN])
        batches = (
            torch.stack([self._resize(picture) for picture in pictures[start : start + _BATCH]])
            for start in range(0, len(pictures), _BATCH)
        )
        index = model_input.index if isinstance(model_input, pd.DataFrame) else None
        if not pictures:
            return pd.DataFrame(columns=list(EXPRESSIONS), dtype=np.float64, index=index)
        outputs = run_model(
            self._model,
            ((batch, torch.zeros(len(batch), dtype=torch.int64)) for batch in batches),
            normalise=self._normalise,
            device=self._device,
            precision="float32",
        )
        return pd.DataFrame(outputs.probability.numpy(), columns=list(EXPRESSIONS), index=index)

    def _resize(self, picture: Any) -> "Tensor":
        """Return a picture as the network sees it in validation and test: squared, resized, (3, S, S) uint8."""
        import torch

        from affectflow.training.loading import resize_whole

        pixels = squared(read_picture(picture)).transpose(2, 0, 1)
        return resize_whole(torch.from_numpy(np.array(pixels, order="C")), self._header["image_size"])


def read_picture(picture: Any) -> NDArray[np.uint8]:
    """Return a picture's RGB pixels, (H, W, 3) uint8.

    Args:
        picture: encoded bytes, base64 text of them, or pixels (H, W, 3) from 0 to 255, as an array or as lists.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(picture, list) and len(picture) == 1 and isinstance(picture[0], str):
        picture = picture[0]  # MLflow wraps a text of a dictionary
    if isinstance(picture, str):
        try:
            picture = base64.b64decode("".join(picture.split()), validate=True)
        except binascii.Error:
            raise _unreadable("text that is no base64") from None
    if isinstance(picture, bytes | bytearray | memoryview):
        try:
            return decode_picture(bytes(picture))
        except FaceError as error:
            raise _unreadable(f"bytes that cannot be decoded ({error.detail})") from None
    try:
        pixels = np.asarray(picture)
    except ValueError:
        raise _unreadable("lists of unequal lengths") from None
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise _unreadable(f"an array of shape {pixels.shape}")
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        raise _unreadable(f"an array of {pixels.dtype} from {pixels.min()} to {pixels.max()}")
    return pixels.astype(np.uint8, copy=False)


def _unreadable(got: str) -> DataError:
    return DataError(
        what_got_wanted(
            "picture",
            got=got,
            wanted="an encoded picture (JPEG, PNG, …) or RGB pixels (H, W, 3), whole numbers from 0 to 255",
            do="pass one face a picture",
        )
    )


def _load_pyfunc(data_path: str) -> ExpressionPredictor:
    """Load the model: the function that MLflow calls in a ``loader_module``."""
    return ExpressionPredictor(data_path)
