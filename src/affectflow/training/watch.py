"""Whether training is still sound: every number that a step gives is finite."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from affectflow.errors import TrainingError, what_got_wanted

#: The name under which a step reports the length of its gradient.
GRADIENT_NORM = "gradient_norm"

#: Steps between two looks; a look waits for the device.
_LOOK_EVERY = 25

#: An auxiliary part this many times as large as the softmax part is what made the numbers grow.
_LARGE_PART = 10.0

_AUXILIARY = ("center", "weighted_cluster")


class StepWatch:
    """Collects what each step gave, on the device, and stops the run at the first number that is not finite.

    Args:
        precision: of the forward passes; a likely cause.
        keeps_checkpoints: whether there is a checkpoint to go on from.
    """

    def __init__(self, *, precision: str, keeps_checkpoints: bool) -> None:
        self._precision, self._keeps_checkpoints = precision, keeps_checkpoints
        self._names: list[str] = []
        self._waiting: list[tuple[str, Tensor]] = []
        self._before: dict[str, float] = {}

    def add(self, where: str, values: dict[str, Tensor]) -> None:
        """Add a step's numbers, e.g. ``loss``, its parts and :data:`GRADIENT_NORM`, and look now and then.

        Args:
            where: which step it is, for the message.
            values: () each.

        Raises:
            TrainingError: as :meth:`look`.
        """
        self._names = list(values)
        self._waiting.append((where, torch.stack([value.float() for value in values.values()])))
        if len(self._waiting) == _LOOK_EVERY:
            self.look()

    def look(self) -> None:
        """Check all steps since the last look.

        Raises:
            TrainingError: a number is not finite. The line has the step, its numbers, those of the step before it,
                and the likely cause.
        """
        if not self._waiting:
            return
        rows = torch.stack([values for _, values in self._waiting]).tolist()
        steps = [where for where, _ in self._waiting]
        self._waiting.clear()
        for where, row in zip(steps, rows, strict=True):
            values = dict(zip(self._names, row, strict=True))
            if not all(map(math.isfinite, row)):
                raise self.error(where, values)
            self._before = values

    def error(self, where: str, values: dict[str, float]) -> TrainingError:
        """Return the error of numbers of which at least one is not finite."""
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        what = "gradient" if bad == [GRADIENT_NORM] else "loss"
        before = f"; at the step before: {_listed(self._before)}" if self._before else ""
        kept = "; the last good checkpoint is kept" if self._keeps_checkpoints else ""
        return TrainingError(
            what_got_wanted(
                f"training {what} at {where}",
                got=f"a value that is not finite: {_listed(values)}{before}",
                wanted="finite numbers",
                do=self._remedy(bad) + kept,
            )
        )

    def _remedy(self, bad: list[str]) -> str:
        part = next((name for name in _AUXILIARY if name in self._names), "")
        softmax = next((name for name in self._names if name.endswith("softmax")), "")
        if self._precision == "float16":
            return "float16 ends at 65,504: pass --precision bfloat16 or float32, or lower --learning-rate"
        grew = self._before.get(part, 0.0) > _LARGE_PART * self._before.get(softmax, math.inf)
        if part and (grew or (part in bad and softmax not in bad)):
            flag = "--center-lambda" if part == "center" else "--cluster-lambda"
            return (
                f"the {part} part pulls on features whose length nothing bounds: lower --learning-rate or {flag}, "
                "or pass --feature-norm l2"
            )
        return "the steps are too large: lower --learning-rate"


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all values of floating tensors are finite; waits for their device."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())
