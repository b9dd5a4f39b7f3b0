"""Center loss (Wen et al. 2016, doi:10.1007/978-3-319-46478-7_31; Ngo & Yoon 2020, Eq. 2)."""

from torch import Tensor

from affectflow.losses._centers import CenterTerm
from affectflow.losses._checks import check_batch, check_centers, check_choice
from affectflow.losses._reduction import REDUCTIONS, compute_dtype, reduce_samples


def center_loss(features: Tensor, target: Tensor, centers: Tensor, reduction: str = "mean") -> Tensor:
    r"""Center loss (Wen et al. 2016; Ngo & Yoon 2020, Eq. 2): pulls features to their class's center.

    .. math:: L = \tfrac12 \sum_i \lVert x_i - c_{y_i} \rVert^2

    Symbols: x = features, c = centers.

    Args:
        features: what the output layer sees. Half precision is computed in float32.
        target: class codes.
        centers: one a class.
        reduction: ``"mean"`` (over N; ``"weighted_mean"`` is the same here) or ``"sum"`` (the paper's letter).

    Shape:
        features (N, D) float; target (N,) int64 in [0, C); centers (C, D) float; returns () in float32, or
        float64 where an input is.

    Raises:
        ValueError: wrong shapes, types or reduction; targets out of range (checked on the CPU only).

    Example:
        >>> import torch
        >>> center_loss(torch.ones(2, 4), torch.tensor([0, 1]), torch.zeros(3, 4))
        tensor(2.)
    """
    check_choice("reduction", reduction, REDUCTIONS)
    check_batch("features", features, target, centers.shape[0])
    check_centers(centers, features)
    return reduce_samples(_distances(features, target, centers), None, reduction)


class CenterLoss(CenterTerm):
    r"""Center loss with its own published center step (Wen et al. 2016, Eq. 4).

    .. math:: c_j \leftarrow c_j + a \frac{\sum_i [y_i = j] (x_i - c_j)}{1 + n_j}

    Args:
        num_classes: C.
        feature_dim: D.
        gamma: a > 0; theirs is 0.5. With ``center_update="gradient"`` the size of the plain step.
        center_update: ``"paper"`` or ``"gradient"``, see :class:`~affectflow.losses._centers.CenterTerm`.
        center_init: ``"normal"``, ``"zeros"`` or ``"class_means"``, see there.
        feature_norm: ``"none"`` or ``"l2"``, see there.
        reduction: as in :func:`center_loss`.
        seed: of the normal start.

    Note: in training mode with several processes, the mean and the center step are over all of them.
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        gamma: float = 0.5,
        center_update: str = "paper",
        center_init: str = "normal",
        feature_norm: str = "none",
        reduction: str = "mean",
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

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the loss of features (N, D) and target (N,); moves nothing."""
        self._check(features, target)
        features, centers = self.as_compared(features, self._centers_to_use())
        values = _distances(features, target, centers)
        return reduce_samples(values, None, self.reduction, over_processes=self.training)

    def _step(self, features: Tensor, centers: Tensor, sums: Tensor, counts: Tensor) -> Tensor:
        return self.gamma * sums / (1 + counts)[:, None]


def _distances(features: Tensor, target: Tensor, centers: Tensor) -> Tensor:
    """Return ½ ‖x_i − c_{y_i}‖² (N,)."""
    difference = features.to(compute_dtype(features)) - centers.to(compute_dtype(centers))[target]
    return 0.5 * difference.square().sum(dim=1)
