"""Limits of time and memory under which files are read in the fuzzing tests."""

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from fuzz_targets import MEMORY, SECONDS


class HangError(Exception):
    """A reader took too long."""


@contextlib.contextmanager
def limits(seconds: float = 120.0) -> Iterator[None]:
    """Bound the address space of this process, and the time within; both are as before at the end."""

    def hang(number: int, frame: FrameType | None) -> NoReturn:
        raise HangError(f"no answer within {seconds:g} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    handler = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


__all__ = ["SECONDS", "HangError", "limits"]
