"""How samples' losses become one number, over the batch or over the batches of all processes.

With several processes the denominators (Σ W, m) are sums over all of them, so that two processes with half a
batch each train as one process with the whole batch does.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

REDUCTIONS = ("weighted_mean", "mean", "sum")


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """Return the type to compute in: float32, or float64 where the input is; never half precision."""
    return torch.promote_types(tensor.dtype, torch.float32)


def reduce_samples(
    values: Tensor, weights: Tensor | None, reduction: str, *, over_processes: bool = False
) -> Tensor:
    """Reduce per-sample losses (N,), already weighted, to a scalar.

    Args:
        values: per-sample losses.
        weights: each sample's weight (N,); None for an unweighted loss.
        reduction: ``"weighted_mean"`` divides by the sum of the weights (by N where there are none),
            ``"mean"`` by N, ``"sum"`` by nothing.
        over_processes: take both sums over all processes of torch.distributed (see :func:`sum_over_processes`).

    Shape:
        values (N,); returns ().
    """
    if reduction == "weighted_mean" and weights is not None:
        size = weights.sum().to(values.dtype)
    else:
        size = torch.full_like(values[0].detach(), values.shape[0])
    sums = torch.stack([values.sum(), size])
    if over_processes:
        sums = sum_over_processes(sums)
    return sums[0] if reduction == "sum" else sums[0] / sums[1]


def num_processes() -> int:
    """Return torch.distributed's world size, 1 without it."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(local: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; alone, the tensor itself.

    Its gradient is scaled by the number of processes: DistributedDataParallel averages gradients, and the
    average of ``world size × local gradient`` is the gradient of the sum, which one process would have.
    """
    if num_processes() == 1:
        return local
    result: Tensor = _SumOverProcesses.apply(local)
    return result


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * num_processes()
