"""Weighted-cluster loss (Ngo & Yoon 2020, Eq. 4 and 7–9, doi:10.3390/s20092639)."""

import torch
from torch import Tensor

from affectflow.losses._centers import CenterTerm
from affectflow.losses._checks import (
    check_batch,
    check_centers,
    check_choice,
    check_class_weights,
    check_number,
)
from affectflow.losses._reduction import REDUCTIONS, compute_dtype, reduce_samples

ALPHA_SCALES = ("absolute", "features")


def weighted_cluster_loss(
    features: Tensor,
    target: Tensor,
    centers: Tensor,
    class_weights: Tensor,
    alpha: float | Tensor = 1.0,
    reduction: str = "weighted_mean",
) -> Tensor:
    r"""Weighted-cluster loss (Ngo & Yoon 2020, Eq. 4, doi:10.3390/s20092639).

    Pulls features to their class's center, rare classes more; the sum below the line is meant to push the
    centers apart.

    .. math::
        L = \tfrac12 \sum_i W_{y_i} \frac{\lVert x_i - c_{y_i} \rVert^2}{S_{y_i} + \alpha}, \qquad
        S_j = \sum_{l \ne j} \lVert c_l - c_j \rVert^2

    Symbols: x = features, c = centers, W = class_weights.

    Args:
        features: what the output layer sees. Half precision is computed in float32.
        target: class codes.
        centers: one a class.
        class_weights: W, each finite and above 0; the paper's are N_min / N_j (Eq. 6).
        alpha: α > 0, keeps the quotient finite; the paper's is 1.
        reduction: ``"weighted_mean"`` divides by the batch's Σ W_{y_i}, ``"mean"`` by N, ``"sum"`` by nothing.

    Shape:
        features (N, D) float; target (N,) int64 in [0, C); centers (C, D) float; class_weights (C,) float;
        returns () in float32, or float64 where features or centers are.

    Note: autograd reaches features and, where they require it, centers (through both sides of the quotient),
        class_weights and alpha. Nothing moves here; see :class:`WeightedClusterLoss`.

    Raises:
        ValueError: wrong shapes, types or reduction; α not above 0; targets out of range or weights that are
            not above 0 (both checked on the CPU only).

    Example:
        >>> import torch
        >>> centers = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
        >>> weighted_cluster_loss(torch.ones(1, 2), torch.tensor([0]), centers, torch.tensor([0.1, 1.0]))
        tensor(0.2000)

    Deviates from the paper: it sums over j ≠ i where j ≠ y_i is meant, and does not say what it divides by.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    check_batch("features", features, target, centers.shape[0])
    check_centers(centers, features)
    check_class_weights(class_weights, centers.shape[0])
    if not isinstance(alpha, Tensor):
        check_number("alpha", alpha, low=0, above=True)
    values, weights = _terms(features, target, centers, class_weights, alpha)
    return reduce_samples(values, weights, reduction)


def center_spread(centers: Tensor) -> Tensor:
    r"""Return S (C,), ``S_j = Σ_l ‖c_l − c_j‖²``, of centers (C, D).

    Computed as ``C ‖c_j − c̄‖² + Σ_l ‖c_l − c̄‖²`` with c̄ the mean of the centers, which is the same without
    a (C, C, D) tensor.
    """
    centers = centers.to(compute_dtype(centers))
    from_mean = (centers - centers.mean(dim=0)).square().sum(dim=1)
    return centers.shape[0] * from_mean + from_mean.sum()


class WeightedClusterLoss(CenterTerm):
    r"""Weighted-cluster loss with its centers (Ngo & Yoon 2020, Eq. 4 and 8–9).

    The step of :meth:`update_centers`, taken for all classes from the same old centers:

    .. math::
        c_j \leftarrow c_j + \gamma \sum_i W_{y_i} [y_i = j] \frac{x_i - c_j}{S_j + \alpha}

    Args:
        num_classes: C.
        feature_dim: D.
        class_weights: W (C,), each finite and above 0; kept as a buffer outside the state dict.
        alpha: α > 0; the paper's is 1.
        gamma: γ > 0; the paper's is 1.
        center_update: ``"paper"`` (the step above) or ``"gradient"``, see
            :class:`~affectflow.losses._centers.CenterTerm`.
        center_init: ``"normal"``, ``"zeros"`` or ``"class_means"``, see there. With ``"normal"`` in 512
            dimensions S + α is about 7,000 and the term is all but off; the other two can collapse the features.
        center_step_limit: the largest share γ n_j W_j / (S_j + α) of the way to its samples' mean that a center
            goes in one step; 1 keeps it from overshooting, None is the paper's letter. ``limited_steps`` (a
            buffer) counts the steps of a center that it cut.
        feature_norm: ``"none"`` or ``"l2"``, see there.
        alpha_scale: ``"absolute"``, or ``"features"``: α times the batch's mean ‖x‖² (no gradient through it).
        reduction: as in :func:`weighted_cluster_loss`.
        seed: of the normal start.

    Note: in training mode with several processes, the denominator and the center step are over all of them.

    Raises:
        ValueError: class weights as in :func:`weighted_cluster_loss`; a number out of its range.

    Deviates from the paper: Eq. 9 subtracts the step, which drives centers away from their class; it is added
        here. The limit on the step is ours.
    """

    class_weights: Tensor
    limited_steps: Tensor
    last_alpha: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        class_weights: Tensor,
        *,
        alpha: float = 1.0,
        gamma: float = 1.0,
        center_update: str = "paper",
        center_init: str = "normal",
        center_step_limit: float | None = 1.0,
        feature_norm: str = "none",
        alpha_scale: str = "absolute",
        reduction: str = "weighted_mean",
        seed: int = 0,
    ) -> None:
        super().__init__(
            num_classes,
            feature_dim,
            gamma=gamma,
            center_update=center_update,
            center_init=center_init,
            feature_norm=feature_norm,
            reduction=reduction,
            seed=seed,
        )
        check_class_weights(class_weights, num_classes)
        check_number("alpha", alpha, low=0, above=True)
        check_choice("alpha_scale", alpha_scale, ALPHA_SCALES)
        if center_step_limit is not None:
            check_number("center_step_limit", center_step_limit, low=0, above=True)
        self.alpha, self.alpha_scale, self.center_step_limit = alpha, alpha_scale, center_step_limit
        self.register_buffer("class_weights", class_weights.detach().clone(), persistent=False)
        self.register_buffer("limited_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last_alpha", torch.tensor(float(alpha)))

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the loss of features (N, D) and target (N,); moves nothing."""
        self._check(features, target)
        features, centers = self.as_compared(features, self._centers_to_use())
        values, weights = _terms(features, target, centers, self.class_weights, self._alpha(features))
        return reduce_samples(values, weights, self.reduction, over_processes=self.training)

    def _step(self, features: Tensor, centers: Tensor, sums: Tensor, counts: Tensor) -> Tensor:
        rate = self.gamma * self.class_weights.to(sums.dtype) / (center_spread(centers) + self._alpha(features))
        share = rate * counts
        if self.center_step_limit is not None:
            self.limited_steps += (share > self.center_step_limit).sum()
            share = share.clamp(max=self.center_step_limit)
        return (share / counts.clamp(min=1))[:, None] * sums

    def _alpha(self, features: Tensor) -> float | Tensor:
        if self.alpha_scale == "absolute":
            return self.alpha
        with torch.no_grad():
            norms = features.square().sum(dim=1)
            mean = reduce_samples(norms, None, "mean", over_processes=self.training)
            alpha = (self.alpha * mean).clamp(min=torch.finfo(mean.dtype).eps)
            self.last_alpha.copy_(alpha)
        return alpha


def _terms(
    features: Tensor, target: Tensor, centers: Tensor, class_weights: Tensor, alpha: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Return ½ W_{y_i} ‖x_i − c_{y_i}‖² / (S_{y_i} + α) (N,) and W_{y_i} (N,)."""
    dtype = torch.promote_types(compute_dtype(features), centers.dtype)
    features, centers = features.to(dtype), centers.to(dtype)
    weights = class_weights.to(dtype)
    rate = weights / (center_spread(centers) + alpha)
    squares = (features - centers[target]).square().sum(dim=1)
    return 0.5 * rate[target] * squares, weights[target]
