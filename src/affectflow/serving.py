"""The model as MLflow loads it: from safetensors, without a pickle, with its own preprocessing.

``mlflow.pyfunc.load_model(uri).predict(frame)`` takes a data frame with a column ``image`` of encoded pictures
(JPEG or PNG bytes of one face) and returns a column of probabilities an expression.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from PIL import Image

from affectflow.data.faces import decode_image
from affectflow.labels import EXPRESSIONS

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

IMAGE_COLUMN = "image"


class ExpressionPredictor:
    """Probabilities of the eight expressions for encoded pictures.

    Args:
        model_folder: a ``model/`` artifact.
    """

    def __init__(self, model_folder: str | Path) -> None:
        from affectflow.models import InputNorm, Normalize, load_model

        self._model, self._header = load_model(model_folder)
        self._normalise = Normalize(InputNorm.from_json(self._header["input_norm"]))

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return a row of probabilities, which sum to 1, for each picture.

        Args:
            model_input: a column ``image`` of bytes.
            params: none are known; MLflow passes them.
        """
        import torch

        from affectflow.training.inference import run_model
        from affectflow.training.loading import resize_whole

        size = self._header["image_size"]
        images = [
            resize_whole(torch.from_numpy(decode_image(content).transpose(2, 0, 1).copy()), size)
            for content in model_input[IMAGE_COLUMN]
        ]
        outputs = run_model(
            self._model,
            [(torch.stack(images), torch.zeros(len(images), dtype=torch.int64))],
            normalise=self._normalise,
            device=torch.device("cpu"),
            precision="float32",
        )
        return pd.DataFrame(outputs.probability.numpy(), columns=list(EXPRESSIONS), index=model_input.index)


def signature() -> "ModelSignature":
    """Return what the model takes and gives, as MLflow shows it."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, IMAGE_COLUMN)]),
        outputs=Schema([ColSpec(DataType.double, expression) for expression in EXPRESSIONS]),
    )


def input_example() -> pd.DataFrame:
    """Return a picture in the form that the model takes: one grey square as PNG."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (128, 128, 128)).save(stream, format="PNG")
    return pd.DataFrame({IMAGE_COLUMN: [stream.getvalue()]})


def _load_pyfunc(data_path: str) -> ExpressionPredictor:
    """Load the model: the function that MLflow calls in a ``loader_module``."""
    return ExpressionPredictor(data_path)
