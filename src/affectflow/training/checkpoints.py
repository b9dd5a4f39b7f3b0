"""Checkpoints: what a stopped training run goes on from."""

import os
from pathlib import Path
from typing import Any

import torch

from affectflow.artifacts import sha256_file
from affectflow.errors import CheckpointError, what_got_wanted


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
        temporary = self.folder / f".{os.getpid()}.partial"
        with temporary.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        final = self.folder / f"step-{step:09d}-{sha256_file(temporary)[:16]}.pt"
        temporary.rename(final)
        for old in self._files()[2:]:
            old.unlink()

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, or None where there is none.

        Raises:
            CheckpointError: the newest whole file is not a checkpoint.
        """
        for file in self._files():
            if file.stem.rpartition("-")[2] != sha256_file(file)[:16]:
                continue
            try:
                state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:
                raise CheckpointError(
                    what_got_wanted(
                        str(file),
                        got=type(error).__name__,
                        wanted="a checkpoint of this version",
                        do="delete it to train from the start",
                    )
                ) from None
            return state
        return None

    def clear(self) -> None:
        """Delete the run's checkpoints: its model is written."""
        for file in self._files():
            file.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"), reverse=True)
