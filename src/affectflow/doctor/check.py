"""What a check finds, and how its faults become findings."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from affectflow.errors import AffectflowError

Status = Literal["ok", "note", "bad", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: what was checked.
        status: ``ok``; ``note``: works, but someone may want to know; ``bad``: must be mended; ``skipped``: not
            asked for.
        found: what is there.
        mend: what to do, in the imperative; empty where nothing needs to be done.
    """

    name: str
    status: Status
    found: str
    mend: str = ""


def examine(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return what a check finds; an error in it is a finding too, so that the other checks still run."""
    try:
        return list(check())
    except AffectflowError as error:
        found, _, mend = str(error).rpartition("; ")
        return [Finding(name, "bad", found or mend, mend)]
    except Exception as error:  # whatever is broken here is what the doctor is asked about
        line = " ".join(str(error).split())[:300]
        return [Finding(name, "bad", f"{type(error).__name__}: {line}", "mend what it names")]
