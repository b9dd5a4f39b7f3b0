"""Messages and progress of steps: a bar on a terminal, a plain line now and then in a log."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

#: Seconds between two plain lines where there is no terminal, as in a KFP log.
LINE_EVERY = 15.0


def say(message: str) -> None:
    """Print a line of a step's story to standard output at once, as long as someone reads it."""
    with contextlib.suppress(BrokenPipeError):
        print(message, flush=True)  # noqa: T201


def warn(message: str) -> None:
    """Print a warning to standard error: something on which the user should act."""
    print(f"warning: {message}", file=sys.stderr, flush=True)  # noqa: T201


def progress(iterable: Iterable[Item], *, total: int, desc: str, unit: str) -> Iterator[Item]:
    """Yield the items and show how far they are, at what rate, and how long is left.

    Args:
        iterable: what to go through.
        total: its length.
        desc: what is done, e.g. ``"epoch 2/20"``.
        unit: what the items are, e.g. ``"images"``.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(iterable, total=total, desc=desc, unit=f" {unit}", leave=False, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    for done, item in enumerate(iterable, start=1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_EVERY and done < total:
            last = now
            rate = done / (now - start)
            left = (total - done) / rate
            say(f"{desc}: {done:,} of {total:,} {unit}, {rate:,.1f} a second, {left:,.0f} s left")
