"""How a network is trained (Section 4.3): what the loop does at each step and epoch."""

from dataclasses import dataclass
from types import MappingProxyType

#: How an epoch is chosen: name → column of the history, and the sign that makes more better.
SELECTIONS = MappingProxyType(
    {"best_uar": ("val_uar", 1.0), "best_loss": ("val_loss", -1.0), "last": ("epoch", 1.0)}
)


@dataclass(frozen=True)
class Recipe:
    """How the weights are moved.

    Attributes:
        epochs: passes over the training split, not given by the paper.
        learning_rate: the first, 1e-3 with pre-trained weights and 1e-2 from scratch.
        halve_every: epochs after which the learning rate is halved, 10.
        momentum: 0.9.
        weight_decay: 5e-4; centers are no parameters of the optimiser, so it never touches them.
        precision: of forward passes, see :data:`~affectflow.training.inference.PRECISIONS`.
        select: which epoch's weights are kept, see :data:`SELECTIONS`.
        checkpoint_every: steps between checkpoints within an epoch; 0 for the ends of epochs alone.
        lambda_warmup_epochs: epochs over which λ rises evenly from 0; 0 for none, as in the paper.
        stop_on_collapse: whether collapsed features end the run.
        seed: of dropout; each further process adds its rank.
    """

    epochs: int
    learning_rate: float
    halve_every: int
    momentum: float
    weight_decay: float
    precision: str
    select: str
    checkpoint_every: int
    lambda_warmup_epochs: int
    stop_on_collapse: bool
    seed: int

    def learning_rate_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        return self.learning_rate * 0.5 ** (epoch // self.halve_every)

    def lambda_share_at(self, epoch: int, batch: int, batches: int) -> float:
        """Return the share of λ that a step has, from 0 to 1."""
        if self.lambda_warmup_epochs == 0:
            return 1.0
        return min(1.0, (epoch + batch / batches) / self.lambda_warmup_epochs)
