"""The ``splits`` artifact: which face trains, validates and tests. How they are drawn: ``split_policies``."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from affectflow.artifacts import artifact_digest, open_artifact
from affectflow.data.faces import Faces
from affectflow.data.split_policies import LEFT_OUT, SPLITS, draw_official_splits, draw_splits
from affectflow.errors import ArtifactError, DataError, what_got_wanted
from affectflow.labels import EXPRESSIONS, NUM_EXPRESSIONS
from affectflow.tables import read_table

__all__ = [
    "SPLITS",
    "Policy",
    "check_splits_belong",
    "read_splits",
    "write_splits",
]

Policy = Literal["paper", "official"]

SPLITS_FILE = "splits.parquet"
_DO = "run split_dataset again"
_SPLITS_COLUMNS: dict[str, pa.DataType] = {
    "image_id": pa.string(),
    "group": pa.string(),
    "expression": pa.int8(),
    "split": pa.string(),
}
SPLITS_SCHEMA = pa.schema(_SPLITS_COLUMNS)


def write_splits(
    out: Path, faces: Faces, *, val_per_class: int, test_per_class: int, seed: int, policy: Policy = "paper"
) -> dict[str, Any]:
    """Draw the splits of a dataset, write ``splits.parquet`` into ``out`` and return the header's fields.

    Args:
        out: the folder to fill.
        faces: the dataset.
        policy: ``"paper"`` pools all lists and draws; with ``"official"`` the lists that the dataset's makers hold
            out are the test set, whatever ``test_per_class`` says.
        val_per_class: faces of each expression for validation.
        test_per_class: faces of each expression for test.
        seed: of the draw.

    Raises:
        DataError: an expression has too few faces, or the dataset has no held-out list.
    """
    groups, expression = faces.manifest["group"].to_numpy(), faces.expression
    if policy == "official":
        split = draw_official_splits(groups, expression, _held_out(faces), val_per_class=val_per_class, seed=seed)
    else:
        split = draw_splits(
            groups, expression, val_per_class=val_per_class, test_per_class=test_per_class, seed=seed
        )
    table = faces.manifest[["image_id", "group", "expression"]].assign(split=split)
    table = table[split != LEFT_OUT]
    arrow = pa.Table.from_pandas(table, schema=SPLITS_SCHEMA, preserve_index=False).replace_schema_metadata()
    pq.write_table(arrow, out / SPLITS_FILE, compression="zstd")
    return {
        "faces": len(table),
        "left_out": len(faces) - len(table),
        "counts": {name: _counts(expression[split == name]) for name in SPLITS},
        "seed": seed,
        "policy": policy,
        "val_per_class": val_per_class,
        "test_per_class": test_per_class if policy == "paper" else None,
        "faces_digest": artifact_digest(faces.header),
    }


def _held_out(faces: Faces) -> NDArray[np.bool_]:
    lists = faces.header.get("held_out_lists", [])
    if not lists:
        raise DataError(
            what_got_wanted(
                "policy official",
                got=f"a dataset of layout {faces.header.get('layout')} without a validation list",
                wanted="one with AffectNet's own",
                do="pass --policy paper, which draws the test set",
            )
        )
    held_out: NDArray[np.bool_] = faces.manifest["source_list"].isin(lists).to_numpy(bool)
    return held_out


def _counts(expression: NDArray[np.int64]) -> dict[str, int]:
    numbers = np.bincount(expression, minlength=NUM_EXPRESSIONS).tolist()
    return dict(zip(EXPRESSIONS, numbers, strict=True))


def read_splits(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Check and read a ``splits`` artifact.

    Args:
        path: its folder.

    Returns:
        the table with the columns ``image_id``, ``group``, ``expression``, ``split`` in the order of the faces'
        manifest (without those left out), and the header.

    Raises:
        ArtifactError: it is missing, half-written, changed, or of other columns.
    """
    file = Path(path) / SPLITS_FILE
    header = open_artifact(path, "splits")
    table = read_table(file, SPLITS_SCHEMA, do=_DO, rows=header.get("faces")).to_pandas()
    if not table["expression"].between(0, NUM_EXPRESSIONS - 1).all():
        raise _wrong(file, "an expression outside 0 to 7", "codes 0 to 7")
    if not table["split"].isin(SPLITS).all():
        raise _wrong(file, "a split of another name", ", ".join(SPLITS))
    if not table["image_id"].is_unique:
        raise _wrong(file, "an image_id twice", "unique ones")
    if (table.groupby("group")["split"].nunique() > 1).any():
        raise _wrong(file, "faces of the same content in two splits", "each group in one")
    return table, header


def check_splits_belong(header: dict[str, Any], faces: Faces) -> None:
    """Check that splits were drawn from these faces.

    Args:
        header: of the splits.
        faces: the dataset.

    Raises:
        ArtifactError: they were drawn from others.
    """
    got, wanted = str(header.get("faces_digest")), artifact_digest(faces.header)
    if got != wanted:
        raise _wrong(faces.path, f"faces {wanted[:12]}…", f"the faces {got[:12]}… that the splits were drawn from")


def _wrong(path: Path, got: str, wanted: str) -> ArtifactError:
    return ArtifactError(what_got_wanted(str(path), got=got, wanted=wanted, do=_DO))
