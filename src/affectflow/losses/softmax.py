"""Softmax loss, plain and weighted by class (Ngo & Yoon 2020, Eq. 1, doi:10.3390/s20092639)."""

from torch import Tensor, nn
from torch.nn import functional

from affectflow.losses._checks import check_batch, check_choice, check_class_weights
from affectflow.losses._reduction import REDUCTIONS, compute_dtype, reduce_samples


def softmax_loss(logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    r"""Softmax loss: cross-entropy of the softmax of the logits.

    .. math:: L = -\sum_i \log p_{i, y_i}

    Args:
        logits: outputs of the model, any real numbers.
        target: class codes.
        reduction: ``"mean"`` (over N; ``"weighted_mean"`` is the same here) or ``"sum"``.

    Shape:
        logits (N, C) float; target (N,) int64 in [0, C); returns () in float32, or float64 for float64 logits.

    Raises:
        ValueError: wrong shapes, types or reduction; targets out of range (checked on the CPU only).

    Example:
        >>> import torch
        >>> softmax_loss(torch.zeros(2, 8), torch.tensor([0, 5]))
        tensor(2.0794)
    """
    return _softmax(logits, target, None, reduction, over_processes=False)


def weighted_softmax_loss(
    logits: Tensor, target: Tensor, class_weights: Tensor, reduction: str = "weighted_mean"
) -> Tensor:
    r"""Weighted-softmax loss (Ngo & Yoon 2020, Eq. 1): rare classes count for more.

    .. math:: L = -\sum_i W_{y_i} \log p_{i, y_i}

    Args:
        logits: outputs of the model, any real numbers.
        target: class codes.
        class_weights: W, each finite and above 0; the paper's are N_min / N_j (Eq. 6).
        reduction: ``"weighted_mean"`` divides by the batch's Σ W (as torch's ``weight=`` with ``mean`` does),
            ``"mean"`` by N, ``"sum"`` by nothing.

    Shape:
        logits (N, C) float; target (N,) int64 in [0, C); class_weights (C,) float; returns () in float32, or
        float64 for float64 logits.

    Raises:
        ValueError: wrong shapes, types or reduction; targets out of range or weights that are not above 0
            (both checked on the CPU only).

    Example:
        >>> import torch
        >>> weighted_softmax_loss(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([0.1, 1.0]))
        tensor(0.6931)

    Deviates from the paper: the paper sums over the batch and does not say what it divides by; Σ W is the
        division with which the published order of the losses comes back.
    """
    return _softmax(logits, target, class_weights, reduction, over_processes=False)


class SoftmaxLoss(nn.Module):
    """:func:`softmax_loss` as a module; in training mode its mean is over all processes.

    Args:
        reduction: as in :func:`softmax_loss`.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        check_choice("reduction", reduction, REDUCTIONS)
        self.reduction = reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, C) and target (N,)."""
        return _softmax(logits, target, None, self.reduction, over_processes=self.training)


class WeightedSoftmaxLoss(nn.Module):
    """:func:`weighted_softmax_loss` as a module; in training mode its denominator is over all processes.

    Args:
        class_weights: W (C,), kept as a buffer outside the state dict.
        reduction: as in :func:`weighted_softmax_loss`.
    """

    class_weights: Tensor

    def __init__(self, class_weights: Tensor, reduction: str = "weighted_mean") -> None:
        super().__init__()
        check_choice("reduction", reduction, REDUCTIONS)
        check_class_weights(class_weights, len(class_weights))
        self.reduction = reduction
        self.register_buffer("class_weights", class_weights.detach().clone(), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, C) and target (N,)."""
        return _softmax(logits, target, self.class_weights, self.reduction, over_processes=self.training)


def _softmax(
    logits: Tensor, target: Tensor, class_weights: Tensor | None, reduction: str, *, over_processes: bool
) -> Tensor:
    check_choice("reduction", reduction, REDUCTIONS)
    check_batch("logits", logits, target, logits.shape[-1])
    values = functional.cross_entropy(logits.to(compute_dtype(logits)), target.long(), reduction="none")
    if class_weights is None:
        return reduce_samples(values, None, reduction, over_processes=over_processes)
    check_class_weights(class_weights, logits.shape[-1])
    weights = class_weights.to(values.dtype)[target]
    return reduce_samples(weights * values, weights, reduction, over_processes=over_processes)
