"""The joint losses of Ngo & Yoon 2020 (Eq. 3, 5; Tables 5 and 6): a softmax part + λ · an auxiliary part."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from affectflow.errors import what_got_wanted
from affectflow.losses._centers import CenterTerm
from affectflow.losses._checks import check_choice, check_class_weights, check_number
from affectflow.losses.center import CenterLoss
from affectflow.losses.softmax import SoftmaxLoss, WeightedSoftmaxLoss
from affectflow.losses.weighted_cluster import WeightedClusterLoss

#: The five settings of Tables 5 and 6.
LOSSES = (
    "softmax",
    "center+softmax",
    "weighted_softmax",
    "center+weighted_softmax",
    "weighted_cluster+weighted_softmax",
)

#: The paper's λ, by auxiliary part.
PAPER_LAMBDA = {"center": 0.5, "weighted_cluster": 1.0}
#: The published size of a center's step, by auxiliary part (Wen et al. 2016; Ngo & Yoon 2020, Eq. 9).
PAPER_GAMMA = {"center": 0.5, "weighted_cluster": 1.0}


@dataclass(frozen=True)
class LossValue:
    """A batch's loss.

    Attributes:
        total: (), what ``backward`` is called on.
        parts: detached scalars by name, e.g. ``weighted_softmax`` and ``weighted_cluster``, not scaled by λ.
    """

    total: Tensor
    parts: dict[str, Tensor]


class JointLoss(nn.Module):
    """A softmax part + λ · an auxiliary part, called as ``loss(logits, features, target)``.

    A training step is ``value = loss(logits, features, target)``, ``value.total.backward()``, the optimiser's
    step, then ``loss.step_centers(features, target)``; ``loss.eval()`` before an evaluation.

    Args:
        name: one of :data:`LOSSES`.
        softmax: the part on the logits.
        auxiliary: the part on the features; None for none.
        lambda_: λ ≥ 0; may be set between steps (a warm-up). At 0 the total is the softmax part alone.

    Note: in training mode with several processes each part is that of all their batches, the same number
        everywhere, and gradients averaged by DistributedDataParallel are those of one process with the
        whole batch. In evaluation mode each process sees its own batch.
    """

    def __init__(self, name: str, softmax: nn.Module, auxiliary: CenterTerm | None, lambda_: float) -> None:
        super().__init__()
        self.name = name
        self.softmax = softmax
        self.auxiliary = auxiliary
        self.lambda_ = lambda_

    @property
    def lambda_(self) -> float:
        """λ, the weight of the auxiliary part."""
        return self._lambda

    @lambda_.setter
    def lambda_(self, value: float) -> None:
        check_number("lambda", value, low=0, above=False)
        self._lambda = value

    @property
    def needs_class_means(self) -> bool:
        """True while the centers wait for :meth:`set_centers` (``center_init="class_means"``)."""
        return self.auxiliary is not None and self.auxiliary.needs_class_means

    def forward(self, logits: Tensor, features: Tensor, target: Tensor) -> LossValue:
        """Return the loss of logits (N, C), features (N, D) and target (N,)."""
        auxiliary_name, _, softmax_name = self.name.rpartition("+")
        total = self.softmax(logits, target)
        parts = {softmax_name: total.detach()}
        if self.auxiliary is not None:
            part = self.auxiliary(features, target)
            parts[auxiliary_name] = part.detach()
            if self.lambda_:
                total = total + self.lambda_ * part
        return LossValue(total, parts)

    def step_centers(self, features: Tensor, target: Tensor, *, grad_scale: float | Tensor = 1.0) -> None:
        """Move the centers once, after ``backward``; nothing without centers or outside training mode.

        Args:
            features: the batch's features (N, D).
            target: its classes (N,).
            grad_scale: what the total was multiplied by before ``backward`` (AMP's loss scale).
        """
        if self.auxiliary is not None:
            self.auxiliary.step_centers(features, target, grad_scale=grad_scale)

    def discard_step(self) -> None:
        """Call in place of :meth:`step_centers` where the optimiser's step was skipped (AMP overflow)."""
        if self.auxiliary is not None:
            self.auxiliary.discard_step()

    def set_centers(self, centers: Tensor) -> None:
        """Put the centers at ``centers`` (C, D), e.g. the class means of a first pass.

        Raises:
            ValueError: the loss has no centers, or they have another shape or are not finite.
        """
        if self.auxiliary is None:
            got = f"some for the loss {self.name!r}"
            do = "choose a loss with centers, or set none"
            raise ValueError(what_got_wanted("centers", got=got, wanted="none", do=do))
        self.auxiliary.set_centers(centers)


def build_loss(
    name: str,
    *,
    class_weights: Tensor | Sequence[float] | None,
    num_classes: int,
    feature_dim: int,
    lambda_: float | None = None,
    alpha: float = 1.0,
    gamma: float | None = None,
    center_update: str = "paper",
    center_init: str = "normal",
    center_step_limit: float | None = 1.0,
    reduction: str = "weighted_mean",
    feature_norm: str = "none",
    alpha_scale: str = "absolute",
    seed: int = 0,
) -> JointLoss:
    """Build one of the five losses of Tables 5 and 6.

    Args:
        name: one of :data:`LOSSES`.
        class_weights: W, C numbers above 0; may be None for the unweighted losses, which do not use them.
        num_classes: C.
        feature_dim: D.
        lambda_: λ ≥ 0; None for the paper's (0.5 center, 1.0 weighted_cluster).
        alpha: α > 0 of the weighted-cluster part; the paper's is 1.
        gamma: size of a center's step, above 0; None for the published one (0.5 center, 1.0 weighted_cluster).
        center_update: ``"paper"`` or ``"gradient"``.
        center_init: ``"normal"``, ``"zeros"`` or ``"class_means"``.
        center_step_limit: see :class:`~affectflow.losses.weighted_cluster.WeightedClusterLoss`.
        reduction: ``"weighted_mean"`` (weighted parts over Σ W, others over N), ``"mean"`` or ``"sum"``.
        feature_norm: ``"none"`` or ``"l2"``.
        alpha_scale: ``"absolute"`` or ``"features"``.
        seed: of the normal start of the centers.

    Raises:
        ValueError: an unknown name or choice, or a number out of its range.

    Example:
        >>> loss = build_loss("center+softmax", class_weights=None, num_classes=8, feature_dim=4)
        >>> value = loss(torch.zeros(2, 8), torch.zeros(2, 4), torch.tensor([0, 5]))
        >>> sorted(value.parts), loss.lambda_
        (['center', 'softmax'], 0.5)
    """
    check_choice("loss", name, LOSSES)
    auxiliary_name, _, softmax_name = name.rpartition("+")
    weights = _as_weights(class_weights, num_classes, required="weighted" in name)
    softmax: nn.Module = SoftmaxLoss(reduction)
    if softmax_name == "weighted_softmax":
        softmax = WeightedSoftmaxLoss(weights, reduction)
    auxiliary: CenterTerm | None = None
    if gamma is None:
        gamma = PAPER_GAMMA.get(auxiliary_name, 1.0)
    if auxiliary_name == "center":
        auxiliary = CenterLoss(
            num_classes,
            feature_dim,
            gamma=gamma,
            center_update=center_update,
            center_init=center_init,
            feature_norm=feature_norm,
            reduction=reduction,
            seed=seed,
        )
    elif auxiliary_name == "weighted_cluster":
        auxiliary = WeightedClusterLoss(
            num_classes,
            feature_dim,
            weights,
            alpha=alpha,
            gamma=gamma,
            center_update=center_update,
            center_init=center_init,
            center_step_limit=center_step_limit,
            feature_norm=feature_norm,
            alpha_scale=alpha_scale,
            reduction=reduction,
            seed=seed,
        )
    if lambda_ is None:
        lambda_ = PAPER_LAMBDA.get(auxiliary_name, 0.0)
    return JointLoss(name, softmax, auxiliary, lambda_)


def _as_weights(class_weights: Tensor | Sequence[float] | None, num_classes: int, *, required: bool) -> Tensor:
    if class_weights is None and not required:
        return torch.ones(num_classes)
    weights = torch.as_tensor([] if class_weights is None else class_weights)
    if weights.dtype != torch.float64 or not isinstance(class_weights, Tensor):
        weights = weights.float()
    check_class_weights(weights, num_classes)
    return weights
