"""Messages and progress of steps: a bar on a terminal, a plain line now and then in a log.

Credentials are masked. How much is said is read from the environment, so that a pipeline's steps and a training's
processes, which inherit it, say as much as the command that started them.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Literal, TextIO, TypeVar

from affectflow.masking import mask

Item = TypeVar("Item")
Verbosity = Literal["quiet", "normal", "verbose"]
Tone = Literal["good", "soft", "warning", "bad", "strong"]

#: Holds the verbosity; ``--quiet`` and ``--verbose`` set it.
VERBOSITY = "AFFECTFLOW_VERBOSITY"

#: Seconds between two plain lines where there is no terminal, as in a KFP log.
LINE_EVERY = 15.0

_ANSI = {"good": "32", "soft": "2", "warning": "33", "bad": "31", "strong": "1"}


def verbosity() -> Verbosity:
    """Return how much to say: ``quiet`` (warnings and errors alone), ``normal`` or ``verbose``."""
    asked = os.environ.get(VERBOSITY, "")
    return "quiet" if asked == "quiet" else "verbose" if asked == "verbose" else "normal"


def set_verbosity(*, quiet: bool, verbose: bool) -> None:
    """Set the verbosity of this process and of those that it starts; neither leaves it as it was."""
    if quiet or verbose:
        os.environ[VERBOSITY] = "quiet" if quiet else "verbose"


def say(message: str) -> None:
    """Print a line of a step's story to standard output at once, as long as someone reads it."""
    if verbosity() != "quiet":
        _print(message, sys.stdout)


def detail(message: str) -> None:
    """Print what only those want to read who asked for more with ``--verbose``."""
    if verbosity() == "verbose":
        _print(paint(message, "soft", sys.stdout), sys.stdout)


def warn(message: str) -> None:
    """Print a warning to standard error: something on which the user should act."""
    _print(f"{paint('warning:', 'warning', sys.stderr)} {message}", sys.stderr)


def report_error(message: str) -> None:
    """Print the one line with which a command ends that could not do its work."""
    sys.stdout.flush()
    _print(f"{paint('error:', 'bad', sys.stderr)} {message}", sys.stderr)


def paint(text: str, tone: Tone, stream: TextIO) -> str:
    """Return the text in a colour where ``stream`` is a terminal that wants them.

    NO_COLOR (https://no-color.org) or TERM=dumb switch colours off, FORCE_COLOR switches them on without a
    terminal; NO_COLOR wins.
    """
    if os.environ.get("NO_COLOR") or not (os.environ.get("FORCE_COLOR") or _is_terminal(stream)):
        return text
    return f"\x1b[{_ANSI[tone]}m{text}\x1b[0m"


def progress(iterable: Iterable[Item], *, total: int, desc: str, unit: str) -> Iterator[Item]:
    """Yield the items and show how far they are, at what rate, and how long is left.

    Args:
        iterable: what to go through.
        total: its length.
        desc: what is done, e.g. ``"epoch 2/20"``.
        unit: what the items are, e.g. ``"images"``.
    """
    if verbosity() == "quiet":
        yield from iterable
        return
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


def _print(text: str, stream: TextIO) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(mask(text), file=stream, flush=True)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"
