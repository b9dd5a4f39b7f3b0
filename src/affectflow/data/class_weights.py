"""Class weights from the training counts (Ngo & Yoon 2020, Eq. 6): ``W_j = N_min / N_j``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from affectflow.artifacts import open_artifact
from affectflow.errors import ArtifactError, DataError, what_got_wanted
from affectflow.labels import EXPRESSIONS

FORMULA = "N_min / N_j"


def compute_class_weights(counts: Mapping[str, int]) -> list[float]:
    """Return Eq. 6's weights in code order, in (0, 1]; 1 for the rarest expression.

    The paper calls disgust the smallest class; by its own Table 3 it is contempt (3,250 against 3,303).

    Args:
        counts: training faces by the expression's name.

    Raises:
        DataError: an expression has no training face.

    Example:
        >>> compute_class_weights(dict.fromkeys(EXPRESSIONS, 20) | {"contempt": 5})
        [0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 1.0]
    """
    for name in EXPRESSIONS:
        if counts.get(name, 0) < 1:
            raise DataError(
                what_got_wanted(
                    f"training faces of {name}",
                    got=str(counts.get(name, 0)),
                    wanted="1 or more, to weigh the expression",
                    do="add faces of it, or lower --val-per-class and --test-per-class",
                )
            )
    smallest = min(counts[name] for name in EXPRESSIONS)
    return [smallest / counts[name] for name in EXPRESSIONS]


def class_weights_fields(counts: Mapping[str, int]) -> dict[str, Any]:
    """Return the fields of ``class_weights.json``; lists are in code order.

    Raises:
        DataError: an expression has no training face.
    """
    return {
        "formula": FORMULA,
        "classes": list(EXPRESSIONS),
        "weights": compute_class_weights(counts),
        "counts": [counts[name] for name in EXPRESSIONS],
    }


def read_class_weights(path: str | Path) -> tuple[list[float], dict[str, Any]]:
    """Check and read a ``class_weights`` artifact.

    Returns:
        the weights in code order, and the header.

    Raises:
        ArtifactError: it is missing, half-written or changed, or its classes or weights are not ours.
    """
    header = open_artifact(path, "class_weights")
    if header.get("classes") != list(EXPRESSIONS):
        raise _wrong(path, f"classes {header.get('classes')!r}", f"{list(EXPRESSIONS)}")
    weights = header.get("weights")
    if not (
        isinstance(weights, list)
        and len(weights) == len(EXPRESSIONS)
        and all(isinstance(weight, int | float) and weight > 0 for weight in weights)
    ):
        raise _wrong(path, f"weights {weights!r}", f"{len(EXPRESSIONS)} positive numbers")
    return [float(weight) for weight in weights], header


def _wrong(path: str | Path, got: str, wanted: str) -> ArtifactError:
    return ArtifactError(what_got_wanted(str(path), got=got, wanted=wanted, do="run compute_class_weights again"))
