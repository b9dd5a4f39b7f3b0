"""What the auxiliary term does to the features: statistics of an epoch, and the state they show."""

import torch
from torch import Tensor

from affectflow.losses._checks import check_batch
from affectflow.losses._reduction import sum_over_processes
from affectflow.losses.weighted_cluster import center_spread

#: The term counts as off where (S_j + α) / α is above this for every class: its pull is 1/1000 of that at S = 0.
OFF_RATIO = 1000.0
#: The features count as collapsed where their scatter is below this share of their mean square length …
COLLAPSED_SHARE = 1e-2
#: … or where it and every S_j are below this share of α, so that the quotient's denominator is α alone.
COLLAPSED_ALPHA = 1e-2


class ClassStatistics:
    """Running sums of features by class, on the features' device and without waiting for it.

    Args:
        num_classes: C.
        feature_dim: D.
        device: where the features are.

    Example:
        >>> statistics = ClassStatistics(num_classes=2, feature_dim=1)
        >>> statistics.update(torch.tensor([[1.0], [3.0]]), torch.tensor([1, 1]))
        >>> statistics.counts.tolist(), statistics.means[1].item(), statistics.within[1].item()
        ([0.0, 2.0], 2.0, 1.0)
    """

    def __init__(self, num_classes: int, feature_dim: int, device: torch.device | str = "cpu") -> None:
        # Columns: the sum of x (D), of ‖x‖² and of 1; float64, since ``within`` is a difference of large sums.
        self._sums = torch.zeros(num_classes, feature_dim + 2, dtype=torch.float64, device=device)

    def update(self, features: Tensor, target: Tensor) -> None:
        """Add a batch of features (N, D) and targets (N,).

        Raises:
            ValueError: another shape, or targets out of range (checked on the CPU only).
        """
        check_batch("features", features, target, len(self._sums))
        x = features.detach().double()
        rows = torch.cat([x, x.square().sum(dim=1, keepdim=True), torch.ones_like(x[:, :1])], dim=1)
        self._sums.index_add_(0, target.long(), rows)

    def sum_processes(self) -> None:
        """Add up the sums of all processes of torch.distributed; call it once, on all of them."""
        self._sums = sum_over_processes(self._sums)

    @property
    def counts(self) -> Tensor:
        """Samples by class (C,)."""
        return self._sums[:, -1]

    @property
    def means(self) -> Tensor:
        """Class means (C, D); NaN for a class without samples."""
        return self._sums[:, :-2] / self.counts[:, None]

    @property
    def within(self) -> Tensor:
        """Root mean square distance to the class mean (C,); NaN for a class without samples."""
        squares = self._sums[:, -2] / self.counts - self.means.square().sum(dim=1)
        return squares.clamp(min=0).sqrt()

    @property
    def mean_square_norm(self) -> Tensor:
        """Mean of ‖x‖² over all samples ()."""
        return self._sums[:, -2].sum() / self.counts.sum()

    @property
    def scatter(self) -> Tensor:
        """Mean square distance of all samples to their common mean ()."""
        mean = self._sums[:, :-2].sum(dim=0) / self.counts.sum()
        return (self.mean_square_norm - mean.square().sum()).clamp(min=0)


def center_diagnostics(
    statistics: ClassStatistics,
    centers: Tensor | None = None,
    previous_centers: Tensor | None = None,
    alpha: float | Tensor = 1.0,
) -> dict[str, Tensor]:
    """Return distances within and between classes and, for a loss with centers, what the centers do.

    Args:
        statistics: of the epoch's features.
        centers: (C, D) at its end; None for a loss without centers.
        previous_centers: (C, D) at its start.
        alpha: α of the weighted-cluster part (``last_alpha`` of the loss).

    Returns:
        ``within`` (C,), root mean square distance to the class mean; ``between`` (), mean distance of two class
        means, over the classes with samples; ``scatter`` and ``mean_square_norm`` (), see
        :class:`ClassStatistics`. With centers also ``s_plus_alpha`` (C,) and ``center_to_mean`` (C,), a
        center's distance to its class mean; with previous ones ``center_moved`` (C,). NaN where a class has no
        samples.
    """
    means = statistics.means
    present = means[statistics.counts > 0]
    pairs = torch.pdist(present) if len(present) > 1 else present.new_zeros(1)
    result = {
        "within": statistics.within,
        "between": pairs.mean(),
        "scatter": statistics.scatter,
        "mean_square_norm": statistics.mean_square_norm,
    }
    if centers is not None:
        result["s_plus_alpha"] = center_spread(centers) + alpha
        result["center_to_mean"] = torch.linalg.vector_norm(centers - means, dim=1)
    if centers is not None and previous_centers is not None:
        result["center_moved"] = torch.linalg.vector_norm(centers - previous_centers, dim=1)
    return result


def cluster_state(diagnostics: dict[str, Tensor], alpha: float | Tensor = 1.0) -> str:
    """Name what :func:`center_diagnostics` shows: ``"collapsed"``, ``"off"`` or ``"active"``.

    * ``collapsed``: every face has nearly the same feature. The features' scatter is below
      :data:`COLLAPSED_SHARE` of their mean square length, or both the scatter and every S_j are below
      :data:`COLLAPSED_ALPHA` of α. Without centers only the first is asked.
    * ``off``: (S_j + α) / α is above :data:`OFF_RATIO` for every class, or there are no centers.
    * ``active``: neither.

    Args:
        diagnostics: from :func:`center_diagnostics`.
        alpha: the α given to it.
    """
    scatter, s_plus_alpha = diagnostics["scatter"], diagnostics.get("s_plus_alpha")
    if bool(scatter <= COLLAPSED_SHARE * diagnostics["mean_square_norm"]):
        return "collapsed"
    if s_plus_alpha is None:
        return "off"
    spread = s_plus_alpha / alpha - 1
    if bool((spread <= COLLAPSED_ALPHA).all() & (scatter <= COLLAPSED_ALPHA * alpha)):
        return "collapsed"
    return "off" if bool((s_plus_alpha / alpha > OFF_RATIO).all()) else "active"
