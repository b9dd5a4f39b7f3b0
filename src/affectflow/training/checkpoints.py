"""Checkpoints: what a stopped training run goes on from."""

import contextlib
import hashlib
import io
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from affectflow.errors import CheckpointError, StorageMissingError, what_got_wanted
from affectflow.storage import Storage, join

#: Raised when what a checkpoint holds changes.
_VERSION = 1
_FILE = "checkpoint.pt"


class CheckpointStore:
    """Keeps the last good checkpoints of one training run, in a folder named after its settings and inputs.

    Each stands in a folder of its own whose name holds its step and its SHA-256. It is written whole or not at
    all; one that is broken all the same is passed over, and the one before it is used. A checkpoint is held in
    memory as a whole when it is written or read.

    Args:
        storage: a folder or a bucket.
        folder: this run's own folder in it.
    """

    def __init__(self, storage: Storage, folder: str) -> None:
        self.storage, self.folder = storage, folder
        self._newest = ""  # the newest that is known to be whole

    def save(self, state: dict[str, Any], *, step: int) -> None:
        """Write the state after ``step`` optimiser steps, and delete all but the last good one before it.

        Raises:
            StorageError: it cannot be written.
        """
        buffer = io.BytesIO()
        torch.save({"version": _VERSION, **state}, buffer)
        content = buffer.getvalue()
        name = f"step-{step:09d}-{_digest(content)}"
        self.storage.write(join(self.folder, name, _FILE), content)
        for other in self._names():
            if other not in (name, self._newest):
                self.storage.delete(join(self.folder, other))
        self._newest = name

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, or None where there is none.

        Raises:
            CheckpointError: the newest whole file is not a checkpoint of this version.
            StorageError: the storage cannot be read.
        """
        for name in self._names():
            file = join(self.folder, name, _FILE)
            try:
                content = self.storage.read(file)
            except StorageMissingError:  # a kill came before the file had its name
                continue
            if name.rpartition("-")[2] != _digest(content):
                continue
            try:
                state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
                found = f"version {state.pop('version')!r}"
            except Exception as error:
                state, found = {}, type(error).__name__
            if found != f"version {_VERSION}":
                raise CheckpointError(
                    what_got_wanted(
                        join(self.storage.root, file),
                        got=found,
                        wanted=f"a checkpoint of version {_VERSION}",
                        do="delete it to train from the start",
                    )
                )
            self._newest = name
            return state
        return None

    def clear(self) -> None:
        """Delete the run's checkpoints: all that comes of it is written."""
        self.storage.delete(self.folder)

    def _names(self) -> list[str]:
        """Return the checkpoints' names, the newest first."""
        return sorted(self.storage.folders(self.folder), reverse=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@contextlib.contextmanager
def readable_checkpoint() -> Iterator[None]:
    """Turn what damaged or foreign entries of a checkpoint raise into one line."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            what_got_wanted(
                "the checkpoint",
                got=f"entries that do not fit ({type(error).__name__}: {error})",
                wanted="those of this run",
                do="delete it to train from the start, or pass another --checkpoint-dir",
            )
        ) from None


def check_fits(what: str, module: nn.Module, state: dict[str, Tensor]) -> None:
    """Check that a checkpoint's state dict has the names and shapes of the module that it is for.

    Args:
        what: ``"model"`` or ``"loss"``.
        module: what goes on.
        state: from the checkpoint.

    Raises:
        CheckpointError: naming a few entries that differ, e.g. of another backbone or number of classes.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in state.items()}
    differing = sorted(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))
    if differing:
        shown = ", ".join(
            f"{name} {got.get(name, 'absent')} for {wanted.get(name, 'none')}" for name in differing[:3]
        )
        raise CheckpointError(
            what_got_wanted(
                f"{what} in the checkpoint",
                got=f"{len(differing)} entries that do not fit, e.g. {shown}",
                wanted="the names and shapes of this run's",
                do="pass another --checkpoint-dir, or the settings that it was written with",
            )
        )
