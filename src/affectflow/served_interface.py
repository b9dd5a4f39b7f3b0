"""What a served model takes and returns, as MLflow shows it. The model itself is in :mod:`affectflow.serving`.

It stands apart so that tracking, which every step reaches, does not reach the models: an edit of one would run the
data steps again.
"""

import io
from typing import TYPE_CHECKING

import pandas as pd
from PIL import Image

from affectflow.labels import EXPRESSIONS

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

IMAGE_COLUMN = "image"


def signature() -> "ModelSignature":
    """Return what the model takes and gives, as MLflow shows it."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType

    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), IMAGE_COLUMN)]),  # bytes or an array, which no single type covers
        outputs=Schema([ColSpec(DataType.double, expression) for expression in EXPRESSIONS]),
    )


def input_example() -> pd.DataFrame:
    """Return a picture in the form that the model takes: one grey square as PNG."""
    stream = io.BytesIO()
    Image.new("RGB", (48, 48), (128, 128, 128)).save(stream, format="PNG")
    return pd.DataFrame({IMAGE_COLUMN: [stream.getvalue()]})
