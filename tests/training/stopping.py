"""Ends of a training run."""

from collections.abc import Callable


class Killed(Exception):
    """Stands for the end of the process at a step."""


def kill_at(step: int) -> Callable[[int], None]:
    """Return what stops a trainer before its ``step``-th step, counted from 0."""

    def on_step(done: int) -> None:
        if done == step:
            raise Killed

    return on_step
