"""What the losses with class centers share: where centers start, how they are kept and how they move."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from affectflow.errors import what_got_wanted
from affectflow.losses._checks import check_batch, check_centers, check_choice, check_number
from affectflow.losses._reduction import REDUCTIONS, compute_dtype, num_processes, sum_over_processes

CENTER_UPDATES = ("paper", "gradient")
CENTER_INITS = ("normal", "zeros", "class_means")
FEATURE_NORMS = ("none", "l2")


class CenterTerm(nn.Module, ABC):
    """Base of the losses with class centers.

    The centers are a buffer: they are in the state dict, and no optimiser (its momentum, its weight decay) ever
    sees them. They move only in :meth:`step_centers`, called once a training step after ``backward``, and only
    in training mode.

    Args:
        num_classes: C.
        feature_dim: D.
        gamma: γ, the step's size, above 0.
        center_update: ``"paper"``: the published step, from features and target; the loss's gradient does not
            reach the centers. ``"gradient"``: a plain step of size gamma against the gradient of what
            ``backward`` was called on, so λ and the denominator are in it.
        center_init: ``"normal"`` (drawn from N(0, 1)), ``"zeros"``, or ``"class_means"``: the centers are NaN
            and the loss refuses to run until :meth:`set_centers` is given the means of a first pass.
        feature_norm: ``"l2"`` divides features and centers by their length inside the term; ``"none"`` does not.
        reduction: ``"weighted_mean"``, ``"mean"`` or ``"sum"``.
        seed: of the normal start.

    Raises:
        ValueError: a number out of its range, an unknown choice, or ``"l2"`` with ``"gradient"`` and
            ``"zeros"`` (a zero center has no direction, its gradient no bound).
    """

    centers: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        gamma: float,
        center_update: str,
        center_init: str,
        feature_norm: str,
        reduction: str,
        seed: int,
    ) -> None:
        super().__init__()
        check_number("num_classes", num_classes, low=1, above=False)
        check_number("feature_dim", feature_dim, low=1, above=False)
        check_number("gamma", gamma, low=0, above=True)
        check_choice("center_update", center_update, CENTER_UPDATES)
        check_choice("center_init", center_init, CENTER_INITS)
        check_choice("feature_norm", feature_norm, FEATURE_NORMS)
        check_choice("reduction", reduction, REDUCTIONS)
        if (feature_norm, center_update, center_init) == ("l2", "gradient", "zeros"):
            raise ValueError(
                what_got_wanted(
                    "center_init",
                    got="'zeros' with feature_norm 'l2' and center_update 'gradient'",
                    wanted="centers that have a direction",
                    do="start from 'normal' or 'class_means'",
                )
            )
        self.gamma, self.center_update, self.center_init = gamma, center_update, center_init
        self.feature_norm, self.reduction = feature_norm, reduction
        self.register_buffer("centers", _first_centers(num_classes, feature_dim, center_init, seed))
        self._leaf: Tensor | None = None
        self._ready = center_init != "class_means"
        self.register_load_state_dict_post_hook(_after_loading)  # type: ignore[no-untyped-call]

    @property
    def needs_class_means(self) -> bool:
        """True until :meth:`set_centers` has been called, for ``center_init="class_means"``."""
        return not self._ready

    def set_centers(self, centers: Tensor) -> None:
        """Put the centers at ``centers`` (C, D), e.g. the class means of a first pass.

        Raises:
            ValueError: another shape, or a value that is not finite (the mean of a class without samples is NaN).
        """
        if centers.shape != self.centers.shape or not bool(torch.isfinite(centers).all()):
            bad = torch.nonzero(~torch.isfinite(centers).all(dim=-1)).flatten().tolist()
            got = f"{tuple(centers.shape)}" + (f" with no finite center for classes {bad}" if bad else "")
            raise ValueError(
                what_got_wanted(
                    "centers",
                    got=got,
                    wanted=f"{tuple(self.centers.shape)}, all finite",
                    do="give every class at least one sample in the first pass",
                )
            )
        with torch.no_grad():
            self.centers.copy_(centers)
        self._ready, self._leaf = True, None

    def step_centers(self, features: Tensor, target: Tensor, *, grad_scale: float | Tensor = 1.0) -> None:
        """Move the centers once; call it after ``backward`` with the batch that the loss saw.

        Outside training mode it does nothing. With several processes the step is that of all their batches,
        so the centers stay the same everywhere.

        Args:
            features: the batch's features (N, D); used by ``"paper"``.
            target: its classes (N,); used by ``"paper"``.
            grad_scale: what the loss was multiplied by before ``backward`` (AMP's loss scale); used by
                ``"gradient"``.
        """
        if not self.training:
            self._leaf = None
        elif self.center_update == "paper":
            self.update_centers(features, target)
        elif self._leaf is not None and self._leaf.grad is not None:
            # Each process's gradient holds the factor "world size" of sum_over_processes, as DDP's does.
            grad = sum_over_processes(self._leaf.grad) / num_processes() / grad_scale
            self.centers -= self.gamma * grad
        self._leaf = None

    def discard_step(self) -> None:
        """Forget the gradient of the centers; call it in place of :meth:`step_centers` for a skipped step."""
        self._leaf = None

    def update_centers(self, features: Tensor, target: Tensor) -> None:
        """Move the centers by the published step; nothing outside training mode.

        Raises:
            ValueError: features (N, D) or target (N,) of another shape or range.
        """
        if not self.training:
            return
        self._check(features, target)
        with torch.no_grad():
            x, centers = self.as_compared(features.detach(), self.centers)
            pull = torch.zeros(centers.shape[0], centers.shape[1] + 1, dtype=x.dtype, device=x.device)
            difference = x - centers[target]
            pull.index_add_(0, target.long(), torch.cat([difference, torch.ones_like(x[:, :1])], dim=1))
            pull = sum_over_processes(pull)
            sums, counts = pull[:, :-1], pull[:, -1]
            moved = centers + self._step(x, centers, sums, counts)
            self.centers.copy_(torch.where(counts[:, None] > 0, moved, self.centers))

    @abstractmethod
    def _step(self, features: Tensor, centers: Tensor, sums: Tensor, counts: Tensor) -> Tensor:
        """Return the published step (C, D) from Σ_i (x_i − c_j) (C, D) and n_j (C,)."""

    def _check(self, features: Tensor, target: Tensor) -> None:
        check_batch("features", features, target, self.centers.shape[0])
        check_centers(self.centers, features)
        if self.needs_class_means:
            raise RuntimeError(
                what_got_wanted(
                    "centers",
                    got="none yet",
                    wanted="the class means of a first pass (center_init='class_means')",
                    do="call set_centers before the first step",
                )
            )

    def _centers_to_use(self) -> Tensor:
        """Return the centers; for ``"gradient"`` in training, as the leaf that collects their gradient."""
        if self.center_update == "paper" or not self.training or not torch.is_grad_enabled():
            return self.centers
        if self._leaf is None:
            self._leaf = self.centers.detach().clone().requires_grad_()
        return self._leaf

    def as_compared(self, features: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, D) and centers (C, D) as the term compares them: with ``"l2"`` of length 1."""
        dtype = torch.promote_types(compute_dtype(features), centers.dtype)
        features, centers = features.to(dtype), centers.to(dtype)
        if self.feature_norm == "l2":
            return functional.normalize(features, dim=1), functional.normalize(centers, dim=1)
        return features, centers


def _first_centers(num_classes: int, feature_dim: int, center_init: str, seed: int) -> Tensor:
    if center_init == "normal":
        return torch.randn(num_classes, feature_dim, generator=torch.Generator().manual_seed(seed))
    return torch.full((num_classes, feature_dim), 0.0 if center_init == "zeros" else float("nan"))


def _after_loading(module: nn.Module, _: object) -> None:
    assert isinstance(module, CenterTerm)  # noqa: S101 - only ever registered on one
    module._ready = bool(torch.isfinite(module.centers).all())
    module._leaf = None
