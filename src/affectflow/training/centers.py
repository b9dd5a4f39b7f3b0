"""What the features and the centers came to in an epoch, as columns of the history."""

from typing import Any

from torch import Tensor

from affectflow.labels import EXPRESSIONS
from affectflow.losses import (
    ClassStatistics,
    JointLoss,
    WeightedClusterLoss,
    center_diagnostics,
    cluster_state,
)
from affectflow.training.inference import Outputs


def centers_of(loss: JointLoss) -> Tensor | None:
    """Return a copy of the loss's centers (C, D) on the CPU; None for a loss without centers."""
    return None if loss.auxiliary is None else loss.auxiliary.centers.detach().cpu().clone()


def forget_limited_steps(loss: JointLoss) -> None:
    """Let the count of center steps that the limit cut start again; nothing for a loss that has none."""
    limited = getattr(loss.auxiliary, "limited_steps", None)
    if isinstance(limited, Tensor):
        limited.zero_()


def center_columns(loss: JointLoss, centers_before: Tensor | None, outputs: Outputs) -> dict[str, Any]:
    """Return distances within and between classes on the validation split, and how the centers stand to them.

    Features and centers are taken as the auxiliary part compares them: with ``feature_norm="l2"`` of length 1.

    Args:
        loss: after the epoch, with its full λ.
        centers_before: its centers (C, D) before the epoch; None for a loss without centers.
        outputs: of the validation split, whose features are measured.

    Returns:
        ``cluster_state`` (``"off"``, ``"active"`` or ``"collapsed"``) and numbers by name, ``center.<name>`` or,
        for those of a class, ``center.<name>.<expression>``; for the weighted-cluster loss also
        ``center.limited_steps``, how many steps of a center the limit has cut.
    """
    features, centers = outputs.features, centers_of(loss)
    if loss.auxiliary is not None and centers is not None:
        if centers_before is not None:
            _, centers_before = loss.auxiliary.as_compared(features, centers_before)
        features, centers = loss.auxiliary.as_compared(features, centers)
    statistics = ClassStatistics(len(EXPRESSIONS), features.shape[1])
    statistics.update(features, outputs.target)
    alpha = float(getattr(loss.auxiliary, "last_alpha", 1.0))
    diagnostics = center_diagnostics(statistics, centers, centers_before, alpha)
    columns: dict[str, Any] = {"cluster_state": _state(loss, diagnostics, alpha)}
    limited = getattr(loss.auxiliary, "limited_steps", None)
    if limited is not None:
        columns["center.limited_steps"] = float(limited)
    for name, value in diagnostics.items():
        if value.ndim == 0:
            columns[f"center.{name}"] = float(value)
        else:
            for expression, number in zip(EXPRESSIONS, value.tolist(), strict=True):
                columns[f"center.{name}.{expression}"] = number
    return columns


def _state(loss: JointLoss, diagnostics: dict[str, Tensor], alpha: float) -> str:
    """Return :func:`cluster_state`, with what it cannot see: λ, and that the center part divides by no S_j."""
    if loss.lambda_ and isinstance(loss.auxiliary, WeightedClusterLoss):
        return cluster_state(diagnostics, alpha)
    of_features = {name: value for name, value in diagnostics.items() if name != "s_plus_alpha"}
    state = cluster_state(of_features)
    return "active" if state == "off" and loss.auxiliary is not None and loss.lambda_ else state
