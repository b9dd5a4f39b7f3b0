"""Pictures and datasets for benchmarks, made here: noise with the spectrum of photographs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from affectflow.data.faces import Faces
from affectflow.labels import EXPRESSIONS

#: Side of a stored face, in pixels; ingest's default.
FACE = 256


def photograph(side: int, seed: int) -> Image.Image:
    """Return noise of the spectrum of photographs with some grain, RGB, ``side`` pixels square.

    Its JPEG has about as many bytes a pixel as a photograph's.
    """
    random = np.random.default_rng(seed)
    total = random.normal(0, 2, (side, side, 3)).astype(np.float32)
    for octave in range(2, 9):
        cells = 2**octave
        for channel in range(3):
            field = Image.fromarray(random.normal(0, 160 / cells, (cells, cells)).astype(np.float32))
            total[..., channel] += np.asarray(field.resize((side, side), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8))


def make_dataset(root: Path, images: int, *, held_out: int = 2, side: int = FACE) -> None:
    """Ingest and split faces with the project's own commands, and lay the same files out for ImageFolder.

    Args:
        root: where ``faces/``, ``splits/`` and ``class_weights/`` shall be, and ``folder/<expression>/`` with the
            bytes that the artifact stores.
        images: how many; at least 8 × (2 × ``held_out`` + 1).
        held_out: faces of every expression in validation, and as many in test.
        side: of a face in pixels.
    """
    for number in range(images):
        folder = root / "source" / EXPRESSIONS[number % len(EXPRESSIONS)]
        folder.mkdir(parents=True, exist_ok=True)
        photograph(side, number).save(folder / f"{number:06d}.png", compress_level=1)
    run_step("ingest_affectnet", root, "--source", root / "source", "--face-size", side)
    per_class = ("--val-per-class", held_out, "--test-per-class", held_out)
    run_step("split_dataset", root, "--faces", root / "faces", *per_class)
    run_step("compute_class_weights", root, "--splits", root / "splits")
    faces = Faces.open(root / "faces")
    for row, expression in enumerate(faces.expression):
        folder = root / "folder" / EXPRESSIONS[expression]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row:06d}.jpg").write_bytes(faces.image_bytes(row))


def run_step(step: str, output_dir: Path, *flags: object) -> None:
    """Run a step's command."""
    command = [sys.executable, "-m", f"components.{step}", *map(str, flags), "--output-dir", str(output_dir)]
    subprocess.run([*command, "--quiet"], check=True, stdout=subprocess.DEVNULL)
