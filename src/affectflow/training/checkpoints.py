"""Checkpoints: what a stopped training run goes on from."""

import os
import uuid
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from affectflow.artifacts import sha256_file
from affectflow.errors import CheckpointError, what_got_wanted

#: Raised when what a checkpoint holds changes.
_VERSION = 1


class CheckpointStore:
    """Keeps the last good checkpoint of one training run, in a folder that is named after its settings and inputs.

    A checkpoint is written under a temporary name, synced and renamed, and its SHA-256 stands in the file's
    name: one that was cut short or changed is passed over, and the one before it is used.

    Args:
        folder: this run's own folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: dict[str, Any], *, step: int) -> None:
        """Write the state after ``step`` optimiser steps, and delete all but the one before it."""
        self._delete_partial()
        temporary = self.folder / f".{uuid.uuid4().hex[:8]}.partial"
        with temporary.open("wb") as stream:
            torch.save({"version": _VERSION, **state}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        final = self.folder / f"step-{step:09d}-{sha256_file(temporary)[:16]}.pt"
        temporary.rename(final)
        for old in self._files()[2:]:
            old.unlink()

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, or None where there is none.

        Raises:
            CheckpointError: the newest whole file is not a checkpoint of this version.
        """
        for file in self._files():
            if file.stem.rpartition("-")[2] != sha256_file(file)[:16]:
                continue
            try:
                state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
                found = f"version {state.pop('version')!r}"
            except Exception as error:
                state, found = {}, type(error).__name__
            if found != f"version {_VERSION}":
                raise CheckpointError(
                    what_got_wanted(
                        str(file),
                        got=found,
                        wanted=f"a checkpoint of version {_VERSION}",
                        do="delete it to train from the start",
                    )
                )
            return state
        return None

    def clear(self) -> None:
        """Delete the run's checkpoints: all that comes of it is written."""
        self._delete_partial()
        for file in self._files():
            file.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"), reverse=True)

    def _delete_partial(self) -> None:
        for file in self.folder.glob(".*.partial"):
            file.unlink()


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
