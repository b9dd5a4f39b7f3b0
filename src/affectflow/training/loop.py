"""The training loop: SGD on a joint loss, a validation after each epoch, and going on where a stopped run was."""

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.utils.data import DataLoader

from affectflow.errors import DataError, SettingsError, StoppedError, TrainingError, what_got_wanted
from affectflow.labels import EXPRESSIONS
from affectflow.losses import ClassStatistics, JointLoss
from affectflow.metrics import accuracy, f1_macro, uar
from affectflow.models import ExpressionModel, folded_batchnorms
from affectflow.progress import progress, say
from affectflow.training.centers import center_columns, centers_of, forget_limited_steps
from affectflow.training.checkpoints import CheckpointStore, check_fits, readable_checkpoint
from affectflow.training.crops import Uncropped
from affectflow.training.distributed import broadcast_buffers, gather, join_outputs, parallel, rank
from affectflow.training.inference import Normalise, autocast, run_model, to_device
from affectflow.training.loading import EpochBatches, Sample
from affectflow.training.recipe import SELECTIONS, Recipe
from affectflow.training.stopping import StopWatch
from affectflow.training.watch import GRADIENT_NORM, StepWatch, all_finite

#: A row of the history: numbers by name, and ``cluster_state``.
Row = dict[str, Any]

#: float16's loss scale below which a gradient that still overflows is not the scale's fault.
_SMALLEST_SCALE = 1.0


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

    def check(self, epochs: int, batches: int) -> None:
        """Raise ``ValueError`` where a checkpoint says what no run of so many epochs and batches can have been."""
        if not (0 <= self.epoch <= epochs and 0 <= self.batches_done < batches):
            raise ValueError(f"epoch {self.epoch!r}, batch {self.batches_done!r}")
        if not (len(self.history) == self.epoch and -1 <= self.best_epoch < self.epoch):
            raise ValueError(f"{len(self.history)} rows of history after epoch {self.epoch!r}")
        if not all(isinstance(row, dict) and "cluster_state" in row for row in self.history):
            raise ValueError("a row of history without columns")
        if self.epoch and not (self.best_epoch >= 0 and self.best_weights):
            raise ValueError("no weights of the best epoch")


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
        compiled: whether training steps run through torch.compile; validation does not, and all names stay.
        on_epoch: called with each finished row of the history and the images a second of its training. A run that
            goes on calls it for its last row once more, with None: the kill may have come before the first call.
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
        compiled: bool,
        on_epoch: Callable[[Row, float | None], None],
    ) -> None:
        assert isinstance(train_loader.batch_sampler, EpochBatches)  # noqa: S101 (our own call)
        self.model, self.loss = model, loss
        self.forward = parallel(model, device, compiled=compiled)
        self.train_loader, self.val_loader, self.val_size = train_loader, val_loader, val_size
        self.batches = train_loader.batch_sampler
        self.recipe, self.normalise, self.device = recipe, normalise, device
        self.checkpoints, self.on_epoch = checkpoints, on_epoch
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(
            self.trained,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.lambda_ = loss.lambda_
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self.watch = StepWatch(precision=recipe.precision, keeps_checkpoints=checkpoints is not None)
        self.stop = StopWatch()
        self.progress = _Progress()

    def fit(self) -> list[Row]:
        """Train all epochs that are left, put the chosen epoch's weights into the model, and return the history.

        Returns:
            A row an epoch: ``epoch`` (from 1), ``learning_rate``, ``train_loss`` and its parts, ``val_loss`` and
            its parts, ``train_gradient_norm`` (the mean length of the gradient), ``val_accuracy``, ``val_uar``,
            ``val_f1_macro``, and what the centers did.

        Raises:
            StoppedError: SIGTERM came; a checkpoint of the last whole step is kept.
            TrainingError: the loss or the gradient is no longer finite, or the features collapsed and the recipe
                stops there. The last good checkpoint is kept.
            CheckpointError: the checkpoint is of another model, loss or version.
            DataError: centers shall start at class means, and a class has no training face.
            SettingsError: a process gets one image a step, too few for BatchNorm layers that train.
        """
        torch.manual_seed(self.recipe.seed + rank())
        with self.stop.watching():
            return self._fit()

    def _fit(self) -> list[Row]:
        if not self._resume() and self.loss.needs_class_means:
            self._start_centers_at_class_means()
        self._stop_if_collapsed()
        with self._folded():
            self._train_epochs()
        self.model.load_state_dict(self.progress.best_weights)
        return self.progress.history

    def _folded(self) -> contextlib.AbstractContextManager[int]:
        """Return the context in which the frozen stages compute their BatchNorm within the convolutions."""
        image = self.train_loader.dataset[0, 0].image
        return folded_batchnorms(self.model, self.normalise(image[None].to(self.device)))

    def _train_epochs(self) -> None:
        while self.progress.epoch < self.recipe.epochs:
            if self.progress.batches_done == 0:
                self.progress.centers_before = centers_of(self.loss)
                forget_limited_steps(self.loss)
            started = time.monotonic()
            images = self._train_epoch()
            rate = images / (time.monotonic() - started)
            row = self._finish_epoch()
            self.on_epoch(row, rate)
            self._stop_if_collapsed()
            if self.progress.epoch < self.recipe.epochs:
                self._stop_if_asked()

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
        for images, target in self._batches_of(progress(self.train_loader, total=left, desc=desc, unit="batches")):
            share = self.recipe.lambda_share_at(state.epoch, state.batches_done, len(self.batches))
            self.loss.lambda_ = share * self.lambda_
            values = self._train_step(images, target)
            for name, value in values.items():
                state.sums[name] = state.sums[name] + value if name in state.sums else value
            state.batches_done += 1
            self.watch.add(f"step {self._steps_done:,} (epoch {state.epoch + 1})", values)
            every = self.recipe.checkpoint_every
            if every and state.batches_done % every == 0 and state.batches_done < len(self.batches):
                self._save()
            if state.batches_done < len(self.batches):
                self._stop_if_asked()
        self.watch.look()
        return left * self.batches.batch_size

    def _batches_of(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Yield batches; SIGTERM may end the loader's processes first, where it is sent to all of them."""
        try:
            yield from loader
        except RuntimeError:
            if not self.stop.told:
                raise
            self._stop_if_asked()

    @property
    def _steps_done(self) -> int:
        return self.progress.epoch * len(self.batches) + self.progress.batches_done

    def _train_step(self, images: Tensor | Uncropped, target: Tensor) -> dict[str, Tensor]:
        """Take one step of Algorithm 1: all updates are from the features and centers of one forward pass."""
        images = to_device(images, self.device)
        target = target.to(self.device, non_blocking=True)
        try:
            with autocast(self.device, self.recipe.precision):
                logits, features = self.forward(self.normalise(images))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise SettingsError(
                what_got_wanted(
                    "--batch-size",
                    got=f"{len(images)} image in a process",
                    wanted="2 or more, for BatchNorm layers that train",
                    do="raise it, lower --processes, or pass --keep-batchnorm all",
                )
            ) from None
        value = self.loss(logits, features, target)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(value.total).backward()
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([parameter.grad for parameter in self.trained if parameter.grad is not None])
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < scale:  # a float16 overflow: the optimiser's step was left out
            self.loss.discard_step()
            if scale > _SMALLEST_SCALE:
                norm = torch.zeros_like(norm)
        else:
            self.loss.step_centers(features.detach(), target, grad_scale=scale)
        return {"loss": value.total.detach(), **value.parts, GRADIENT_NORM: norm}

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
        losses = {name: float(part) for name, part in {"loss": value.total, **value.parts}.items()}
        if not all(map(math.isfinite, losses.values())):
            raise self.watch.error(f"the validation after epoch {state.epoch + 1}", losses)
        target, probability = outputs.target.numpy(), outputs.probability.numpy()
        row = {
            "epoch": float(state.epoch + 1),
            "learning_rate": self.recipe.learning_rate_at(state.epoch),
            **{f"train_{name}": float(total) / len(self.batches) for name, total in state.sums.items()},
            **{f"val_{name}": loss for name, loss in losses.items()},
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
        return row

    def _stop_if_asked(self) -> None:
        """After SIGTERM, keep a checkpoint of this step and stop."""
        if not self.stop.asked():
            return
        if self.progress.batches_done:  # at the end of an epoch it was kept already
            self._save()
        raise StoppedError(
            what_got_wanted(
                f"step {self._steps_done:,}",
                got="SIGTERM",
                wanted="to train on",
                do="run again to go on from here"
                if self.checkpoints
                else "run again from the start; with --checkpoint-dir it would go on from here",
            )
        )

    def _stop_if_collapsed(self) -> None:
        history = self.progress.history
        if self.recipe.stop_on_collapse and history and history[-1]["cluster_state"] == "collapsed":
            raise TrainingError(
                what_got_wanted(
                    f"features after epoch {history[-1]['epoch']:.0f}",
                    got="nearly the same one for every face (collapsed)",
                    wanted="features that tell faces apart",
                    do="try --center-init normal, --feature-norm l2, --lambda-warmup-epochs, or a smaller lambda",
                )
            )

    def _start_centers_at_class_means(self) -> None:
        """Put the centers at the class means of the features of a first pass over the whole training split."""
        self.batches.epoch, self.batches.start, self.batches.keep_last = 0, 0, True
        outputs = run_model(
            self.model,
            progress(self.train_loader, total=len(self.batches), desc="class means", unit="batches"),
            normalise=self.normalise,
            device=self.device,
            precision=self.recipe.precision,
        )
        self.batches.keep_last = False
        statistics = ClassStatistics(self.model.output.out_features, outputs.features.shape[1])
        statistics.update(outputs.features, outputs.target)
        statistics.sum_processes()
        absent = [name for name, count in zip(EXPRESSIONS, statistics.counts, strict=True) if not count]
        if absent:
            raise DataError(
                what_got_wanted(
                    "training faces",
                    got=f"none of {', '.join(absent)}",
                    wanted="some of each expression, for centers that start at class means",
                    do="add faces, or pass --center-init normal",
                )
            )
        means = statistics.means.to(outputs.features.dtype)
        self.loss.set_centers(means.to(self.device))

    def _save(self) -> None:
        """Keep what a stopped run goes on from, if it is sound."""
        self.watch.look()
        if self.checkpoints is None:
            return
        if not all_finite([*self.trained, *self.model.buffers(), *self.loss.buffers()]):
            raise self.watch.error(
                f"step {self._steps_done:,}", {"weights, running statistics or centers": math.nan}
            )
        random = {"cpu": gather(torch.get_rng_state())}
        if self.device.type == "cuda":
            random["cuda"] = gather(torch.cuda.get_rng_state(self.device))
        if rank() > 0:
            return
        self.checkpoints.save(
            {
                "progress": vars(self.progress),
                "model": self.model.state_dict(),
                "loss": self.loss.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "precision": self.recipe.precision,
                "random": random,
            },
            step=self._steps_done,
        )

    def _resume(self) -> bool:
        """Go on from the last good checkpoint; return whether there was one."""
        saved = self.checkpoints.load() if self.checkpoints else None
        if saved is None:
            return False
        with readable_checkpoint():
            self._restore(saved)
        say(f"going on after step {self._steps_done:,} of an earlier start")
        if self.progress.history:
            self.on_epoch(self.progress.history[-1], None)
        return True

    def _restore(self, saved: dict[str, Any]) -> None:
        check_fits("model", self.model, saved["model"])
        check_fits("loss", self.loss, saved["loss"])
        self.progress = _Progress(**saved["progress"])
        self.progress.check(self.recipe.epochs, len(self.batches))
        self.model.load_state_dict(saved["model"])
        self.loss.load_state_dict(saved["loss"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        # What was fast at the first start need not be so on the machine where the run goes on.
        self.recipe = dataclasses.replace(self.recipe, precision=saved.get("precision", self.recipe.precision))
        random = saved["random"]
        if rank() < len(random["cpu"]):
            torch.set_rng_state(random["cpu"][rank()])
        if self.device.type == "cuda" and rank() < len(random.get("cuda", ())):
            torch.cuda.set_rng_state(random["cuda"][rank()], self.device)
        self.progress.sums = {name: value.to(self.device) for name, value in self.progress.sums.items()}
