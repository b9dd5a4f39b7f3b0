"""Drawn faces in AffectNet's own layout."""

from pathlib import Path


def write_synthetic_affectnet(root: Path, *, images: int, seed: int) -> None:
    raise NotImplementedError
