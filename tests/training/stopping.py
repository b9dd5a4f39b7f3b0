"""Ends of a training run, and whether two runs ended the same."""

from collections.abc import Callable
from typing import Any

import torch


class Killed(Exception):  # noqa: N818 (it is no error)
    """Stands for the end of the process at a step."""


def kill_at(step: int) -> Callable[[int], None]:
    """Return what stops a trainer before its ``step``-th step, counted from 0."""

    def on_step(done: int) -> None:
        if done == step:
            raise Killed

    return on_step


def assert_same(got: Any, wanted: Any) -> None:
    """Equal to the bit, whatever the nesting."""
    if isinstance(wanted, torch.Tensor):
        assert torch.equal(got, wanted)
    elif isinstance(wanted, dict):
        assert got.keys() == wanted.keys()
        for name in wanted:
            assert_same(got[name], wanted[name])
    else:
        assert got == wanted
