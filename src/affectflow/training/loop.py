"""The training loop: SGD on a joint loss, a validation after each epoch, and going on where a stopped run was."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from affectflow.errors import TrainingError, what_got_wanted
from affectflow.losses import ClassStatistics, JointLoss
from affectflow.metrics import accuracy, f1_macro, uar
from affectflow.models import ExpressionModel
from affectflow.progress import progress
from affectflow.training.centers import center_columns, centers_of
from affectflow.training.checkpoints import CheckpointStore
from affectflow.training.distributed import broadcast_buffers, gather, join_outputs, parallel, rank
from affectflow.training.inference import Normalise, autocast, run_model
from affectflow.training.loading import EpochBatches, Sample

#: Steps between two looks at whether the loss is still finite; a look waits for the device.
_CHECK_EVERY = 25

#: A row of the history: numbers by name, and ``cluster_state``.
Row = dict[str, Any]

#: How an epoch is chosen: name → column of the history, and the sign that makes more better.
SELECTIONS = {"best_uar": ("val_uar", 1.0), "best_loss": ("val_loss", -1.0), "last": ("epoch", 1.0)}


@dataclass(frozen=True)
class Recipe:
    """How the weights are moved (Section 4.3).

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


@dataclass
class _Progress:
    """Where training stands; with the modules' states, all that a checkpoint holds."""

    epoch: int = 0
    batches_done: int = 0
    centers_before: Tensor | None = None
    sums: dict[str, Tensor] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)
    best_epoch: int = -1
    best_weights: dict[str, Tensor] = field(default_factory=dict)


class Trainer:
    """Trains a model; :meth:`fit` does all of it.

    Args:
        model: on ``device`` already.
        loss: on ``device`` already; its centers move after each step.
        train_loader: over :class:`~affectflow.training.loading.EpochBatches`.
        val_loader: over this process's share of the validation split, in a fixed order.
        val_size: faces of the whole validation split; rank r of n processes has r, r + n, r + 2n, ….
        recipe: how the weights are moved.
        normalise: turns uint8 batches on the device into the network's input.
        device: where to train.
        checkpoints: where to keep what a stopped run goes on from; None to keep nothing.
        on_epoch: called with each finished row of the history and the images a second of its training.
    """

    def __init__(
        self,
        model: ExpressionModel,
        loss: JointLoss,
        *,
        train_loader: DataLoader[Sample],
        val_loader: DataLoader[Sample],
        val_size: int,
        recipe: Recipe,
        normalise: Normalise,
        device: torch.device,
        checkpoints: CheckpointStore | None,
        on_epoch: Callable[[Row, float], None],
    ) -> None:
        assert isinstance(train_loader.batch_sampler, EpochBatches)  # noqa: S101 (our own call)
        self.model, self.loss = model, loss
        self.forward = parallel(model, device)
        self.train_loader, self.val_loader, self.val_size = train_loader, val_loader, val_size
        self.batches = train_loader.batch_sampler
        self.recipe, self.normalise, self.device = recipe, normalise, device
        self.checkpoints, self.on_epoch = checkpoints, on_epoch
        self.optimizer = torch.optim.SGD(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        self.lambda_ = loss.lambda_
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self.progress = _Progress()

    def fit(self) -> list[Row]:
        """Train all epochs that are left, put the chosen epoch's weights into the model, and return the history.

        Returns:
            A row an epoch: ``epoch`` (from 1), ``learning_rate``, ``train_loss`` and its parts, ``val_loss`` and
            its parts, ``val_accuracy``, ``val_uar``, ``val_f1_macro``, and what the centers did.

        Raises:
            TrainingError: the loss is no longer finite. The last good checkpoint is kept.
        """
        torch.manual_seed(self.recipe.seed + rank())
        if not self._resume() and self.loss.needs_class_means:
            self._start_centers_at_class_means()
        while self.progress.epoch < self.recipe.epochs:
            if self.progress.batches_done == 0:
                self.progress.centers_before = centers_of(self.loss)
            started = time.monotonic()
            images = self._train_epoch()
            rate = images / (time.monotonic() - started)
            row = self._finish_epoch()
            self.on_epoch(row, rate)
        self.model.load_state_dict(self.progress.best_weights)
        return self.progress.history

    @property
    def best_row(self) -> Row:
        """The history's row of the chosen epoch."""
        return self.progress.history[self.progress.best_epoch]

    def _train_epoch(self) -> int:
        """Train what is left of the epoch and return the number of images seen."""
        state = self.progress
        self.batches.epoch, self.batches.start = state.epoch, state.batches_done
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(state.epoch)
        self.model.train()
        self.loss.train()
        left = len(self.batches) - state.batches_done
        desc = f"epoch {state.epoch + 1}/{self.recipe.epochs}"
        losses: list[Tensor] = []
        for images, target in progress(self.train_loader, total=left, desc=desc, unit="batches"):
            share = self.recipe.lambda_share_at(state.epoch, state.batches_done, len(self.batches))
            self.loss.lambda_ = share * self.lambda_
            values = self._train_step(images, target)
            losses.append(values["loss"])
            for name, value in values.items():
                state.sums[name] = state.sums[name] + value if name in state.sums else value
            state.batches_done += 1
            if len(losses) == _CHECK_EVERY or state.batches_done == len(self.batches):
                self._stop_if_not_finite(losses)
                losses.clear()
            every = self.recipe.checkpoint_every
            if every and state.batches_done % every == 0 and state.batches_done < len(self.batches):
                self._stop_if_not_finite(losses)
                losses.clear()
                self._save()
        return left * self.batches.batch_size

    def _train_step(self, images: Tensor, target: Tensor) -> dict[str, Tensor]:
        images = images.to(self.device, non_blocking=True)
        target = target.to(self.device, non_blocking=True)
        with autocast(self.device, self.recipe.precision):
            logits, features = self.forward(self.normalise(images))
        value = self.loss(logits, features, target)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(value.total).backward()
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < scale:  # a float16 overflow: the optimiser's step was left out
            self.loss.discard_step()
        else:
            self.loss.step_centers(features.detach(), target, grad_scale=scale)
        return {"loss": value.total.detach(), **value.parts}

    def _finish_epoch(self) -> Row:
        """Validate, add the epoch's row to the history, keep its weights if they are the best, and checkpoint."""
        state = self.progress
        broadcast_buffers(self.model)
        share = run_model(
            self.model,
            self.val_loader,
            normalise=self.normalise,
            device=self.device,
            precision=self.recipe.precision,
        )
        outputs = join_outputs(share, self.val_size)
        self.loss.eval()
        self.loss.lambda_ = self.lambda_
        with torch.no_grad():
            value = self.loss(
                outputs.logits.to(self.device), outputs.features.to(self.device), outputs.target.to(self.device)
            )
        target, probability = outputs.target.numpy(), outputs.probability.numpy()
        row = {
            "epoch": float(state.epoch + 1),
            "learning_rate": self.recipe.learning_rate_at(state.epoch),
            **{f"train_{name}": float(total) / len(self.batches) for name, total in state.sums.items()},
            "val_loss": float(value.total),
            **{f"val_{name}": float(part) for name, part in value.parts.items()},
            "val_accuracy": accuracy(target, probability),
            "val_uar": uar(target, probability),
            "val_f1_macro": f1_macro(target, probability),
            **center_columns(self.loss, state.centers_before, outputs),
        }
        state.history.append(row)
        column, sign = SELECTIONS[self.recipe.select]
        if state.best_epoch < 0 or sign * row[column] > sign * self.best_row[column]:
            state.best_epoch = state.epoch
            state.best_weights = copy.deepcopy(
                {name: tensor.cpu() for name, tensor in self.model.state_dict().items()}
            )
        state.epoch, state.batches_done, state.sums = state.epoch + 1, 0, {}
        self._save()
        if row["cluster_state"] == "collapsed" and self.recipe.stop_on_collapse:
            raise TrainingError(_collapse_line(state.epoch))
        return row

    def _start_centers_at_class_means(self) -> None:
        """Put the centers at the class means of the features of a first pass over the training split."""
        self.batches.epoch, self.batches.start = 0, 0
        outputs = run_model(
            self.model,
            progress(self.train_loader, total=len(self.batches), desc="class means", unit="batches"),
            normalise=self.normalise,
            device=self.device,
            precision=self.recipe.precision,
        )
        statistics = ClassStatistics(self.model.output.out_features, outputs.features.shape[1])
        statistics.update(outputs.features, outputs.target)
        statistics.sum_processes()
        means = statistics.means.to(outputs.features.dtype)
        self.loss.set_centers(means.to(self.device))

    def _stop_if_not_finite(self, losses: list[Tensor]) -> None:
        if not losses:
            return
        finite = torch.stack(losses).isfinite().tolist()
        if all(finite):
            return
        state = self.progress
        step = state.epoch * len(self.batches) + state.batches_done - len(losses) + finite.index(False) + 1
        parts = ", ".join(f"{name} {float(total):.3g}" for name, total in state.sums.items())
        raise TrainingError(
            what_got_wanted(
                f"training loss at step {step} (epoch {state.epoch + 1})",
                got=f"a value that is not finite; sums so far: {parts}",
                wanted="finite numbers",
                do="lower --learning-rate, or lambda of a center loss, whose features grow without bound; "
                "the last good checkpoint is kept",
            )
        )

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        state = self.progress
        random = {"cpu": gather(torch.get_rng_state())}
        if self.device.type == "cuda":
            random["cuda"] = gather(torch.cuda.get_rng_state(self.device))
        if rank() > 0:
            return
        self.checkpoints.save(
            {
                "progress": vars(state),
                "model": self.model.state_dict(),
                "loss": self.loss.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": random,
            },
            step=state.epoch * len(self.batches) + state.batches_done,
        )

    def _resume(self) -> bool:
        """Go on from the last good checkpoint; return whether there was one."""
        saved: dict[str, Any] | None = self.checkpoints.load() if self.checkpoints else None
        if saved is None:
            return False
        self.progress = _Progress(**saved["progress"])
        self.model.load_state_dict(saved["model"])
        self.loss.load_state_dict(saved["loss"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        random = saved["random"]
        if rank() < len(random["cpu"]):
            torch.set_rng_state(random["cpu"][rank()])
        if self.device.type == "cuda" and rank() < len(random.get("cuda", ())):
            torch.cuda.set_rng_state(random["cuda"][rank()], self.device)
        self.progress.sums = {name: value.to(self.device) for name, value in self.progress.sums.items()}
        return True


def _collapse_line(epoch: int) -> str:
    return what_got_wanted(
        f"features after epoch {epoch}",
        got="nearly the same one for every face (collapsed)",
        wanted="features that tell faces apart",
        do="try --center-init normal, --feature-norm l2, --lambda-warmup-epochs, or a smaller lambda",
    )
