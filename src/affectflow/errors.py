"""Errors that a user can mend. Each reads as one line: what, got, wanted, what to do.

Functions that take arguments raise ``ValueError`` for a bad one. What comes from outside (settings of a step,
data, artifacts, weights, checkpoints, servers) raises a subclass of :class:`AffectflowError`; the commands
print its line and exit with code 2. Any other exception is our own fault and keeps its traceback.
"""

import errno

#: What the system calls a disk, or a user's share of it, that has no room left.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

#: With which a command ends on one of these; 1 is left to Python's own traceback, a fault of ours.
USER_ERROR = 2
#: With which a step ends that SIGTERM stopped and that can go on: 128 and the signal's number.
STOPPED = 143

#: Characters that each part of an error's line may have; what a file holds may be long.
_LONGEST = 600


def what_got_wanted(what: str, *, got: str, wanted: str, do: str) -> str:
    """Return the one line of an error: long parts are cut, and control characters are shown, not sent.

    Args:
        what: the thing that is wrong, as its user knows it (a flag, a file, a column).
        got: what was found.
        wanted: what would have been right.
        do: the next thing to do, in the imperative.

    Example:
        >>> what_got_wanted("--epochs", got="0", wanted="1 or more", do="pass --epochs 20")
        '--epochs: got 0, wanted 1 or more; pass --epochs 20'
    """
    what, got, wanted, do = map(_shown, (what, got, wanted, do))
    return f"{what}: got {got}, wanted {wanted}; {do}"


def _shown(text: str) -> str:
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    text = text.replace("\n", " ")
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class AffectflowError(Exception):
    """A fault that the user can mend; its text is one line."""


class SettingsError(AffectflowError):
    """A setting of a step has a value that it cannot have."""


class DataError(AffectflowError):
    """The face data, its lists or its labels are not as they must be."""


class ArtifactError(AffectflowError):
    """An artifact is missing, half-written, changed, or of another kind or schema."""


class StorageError(AffectflowError):
    """A folder or an S3 bucket cannot be read or written: forbidden, full, unreachable, or not there."""


class StorageMissingError(StorageError):
    """There is no file of this name in a storage that can be read."""


class StorageLimitError(StorageError):
    """A file is larger than its reader allows."""


class WeightsError(AffectflowError):
    """A file of pre-trained weights is unsafe, unreadable, or does not fit the backbone."""


class CheckpointError(AffectflowError):
    """A checkpoint does not belong to this training run."""


class TrainingError(AffectflowError):
    """Training cannot go on, e.g. because the loss is no longer finite."""


class StoppedError(AffectflowError):
    """SIGTERM stopped the step at a place from which it can go on."""


class TrackingError(AffectflowError):
    """MLflow, or a run in it, is not there or does not answer as it must."""
