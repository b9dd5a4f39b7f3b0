"""The table of a ``predictions`` artifact: its columns, and its reader."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from affectflow.artifacts import open_artifact
from affectflow.errors import ArtifactError, what_got_wanted
from affectflow.labels import NUM_EXPRESSIONS
from affectflow.tables import read_table

PREDICTIONS_FILE = "predictions.parquet"

_COLUMNS: dict[str, pa.DataType] = {
    "image_id": pa.string(),
    "group": pa.string(),
    "split": pa.string(),  # val or test
    "target": pa.int8(),  # 0–7
    "probability": pa.list_(pa.float64()),  # 8, in code order
}
PREDICTIONS_SCHEMA = pa.schema(_COLUMNS)

_DO = "evaluate the model again"


def read_test_predictions(path: str | Path) -> pd.DataFrame:
    """Check a ``predictions`` artifact and return the rows of its test split.

    Raises:
        ArtifactError: it is missing, half-written, changed, or holds anything but targets and 8 probabilities.
    """
    file = Path(path) / PREDICTIONS_FILE
    header = open_artifact(path, "predictions")
    table = read_table(file, PREDICTIONS_SCHEMA, do=_DO, rows=header.get("rows")).to_pandas()
    test: pd.DataFrame = table[table["split"] == "test"]
    got = ""
    if not len(test):
        got = "no face of the test split"
    elif not test["target"].between(0, NUM_EXPRESSIONS - 1).all():
        got = "a target outside 0 to 7"
    elif not (test["probability"].map(len) == NUM_EXPRESSIONS).all():
        got = f"a face without {NUM_EXPRESSIONS} probabilities"
    if got:
        wanted = f"targets from 0 to 7 with {NUM_EXPRESSIONS} probabilities each"
        raise ArtifactError(what_got_wanted(str(file), got=got, wanted=wanted, do=_DO))
    return test
