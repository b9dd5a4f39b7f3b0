"""The model: a backbone, one added fully connected layer, and the output layer (Ngo & Yoon 2020, Table 2)."""

from typing import Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from affectflow.errors import what_got_wanted
from affectflow.models.backbones import feature_width
from affectflow.models.freezing import FrozenStages, freeze_stages

ACTIVATIONS = ("relu", "none")

#: Which BatchNorm layers of the backbone keep their statistics while it trains: those of the frozen stages, all
#: of them, or none.
KEEP_BATCHNORM = ("frozen", "all", "none")


class ExpressionModel(nn.Module):
    """Backbone → Linear(width, 512) → activation → dropout → Linear(512, 8).

    Args:
        backbone: from :func:`~affectflow.models.backbones.create_backbone`.
        num_classes: C, the paper's is 8.
        feature_dim: D, the paper's is 512.
        dropout: share of features dropped before the output layer while training, in [0, 1); not in the paper.
        activation: after the added layer, ``"relu"`` or ``"none"``; the paper does not say which.

    Shape:
        images (N, 3, H, W) float, normalised; returns logits (N, C) and features (N, D). The features are what
        the output layer sees, after the activation, but before dropout.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int = 8,
        feature_dim: int = 512,
        dropout: float = 0.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise _wrong("activation", repr(activation), f"one of {', '.join(ACTIVATIONS)}")
        if not 0 <= dropout < 1:
            raise _wrong("dropout", f"{dropout:g}", "a share from 0 to below 1")
        if num_classes < 1 or feature_dim < 1:
            raise _wrong("num_classes and feature_dim", f"{num_classes} and {feature_dim}", "1 or more")
        self.backbone = backbone
        self.feature = nn.Linear(feature_width(backbone), feature_dim)
        self.activation = nn.ReLU() if activation == "relu" else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(feature_dim, num_classes)
        self._kept_batch_norms: tuple[str, ...] = ()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, C) and features (N, D) of images (N, 3, H, W)."""
        features = self.activation(self.feature(self.backbone(images)))
        return self.output(self.dropout(features)), features

    def freeze(self, stages: int, keep_batchnorm: str = "frozen") -> FrozenStages:
        """Freeze the backbone's first stages, see :func:`~affectflow.models.freezing.freeze_stages`.

        Args:
            stages: 0–5.
            keep_batchnorm: one of :data:`KEEP_BATCHNORM`. A layer that keeps its statistics normalises with them,
                whatever :meth:`train` is called with; the others use and update those of each batch. The paper
                does not say. ``"all"`` is for weights whose BatchNorm was folded into the convolutions: such
                layers compute the identity, and batch statistics would change what the network computes.

        Raises:
            ValueError: another number or choice, or a backbone without so many stages.
        """
        if keep_batchnorm not in KEEP_BATCHNORM:
            raise _wrong("keep_batchnorm", repr(keep_batchnorm), f"one of {', '.join(KEEP_BATCHNORM)}")
        frozen = freeze_stages(self.backbone, stages)
        every = tuple(name for name, module in self.backbone.named_modules() if isinstance(module, _BatchNorm))
        self._kept_batch_norms = {"frozen": frozen.batch_norms, "all": every, "none": ()}[keep_batchnorm]
        self.train(self.training)
        return frozen

    def train(self, mode: bool = True) -> Self:
        """Set the mode, leaving the BatchNorm layers that keep their statistics in evaluation mode."""
        super().train(mode)
        for name in self._kept_batch_norms:
            self.backbone.get_submodule(name).eval()
        return self


def _wrong(what: str, got: str, wanted: str) -> ValueError:
    return ValueError(what_got_wanted(what, got=got, wanted=wanted, do="pass one of these"))
