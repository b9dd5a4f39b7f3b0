"""SIGTERM ends training at the end of the running step, with a checkpoint to go on from.

It is what Kubernetes, Docker and job schedulers send some seconds (30 by default in Kubernetes) before they kill.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import torch
import torch.distributed as dist

from affectflow.training.distributed import num_processes


class StopWatch:
    """Knows whether any of the processes that train together was told to stop, while it is :meth:`watching`."""

    def __init__(self) -> None:
        self.told = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note SIGTERM instead of dying of it; in another thread than the main one, where none can, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def asked(self) -> bool:
        """Return whether to stop; all processes ask at the same places and hear the same."""
        if num_processes() > 1:
            flag = torch.tensor(int(self.told))
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            self.told = bool(flag)
        return self.told

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.told = True
