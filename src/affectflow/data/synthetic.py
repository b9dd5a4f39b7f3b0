"""Drawn faces in AffectNet's own layout (``manual``), to try the pipeline without a licensed copy.

What makes an expression stands in :data:`EXPRESSION_SHAPES`; how a face looks apart from it is drawn at random.
"""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from affectflow.data.layouts.manual import COLUMNS, IMAGES, LIST_FILES, LISTS
from affectflow.data.synthetic_drawing import Head, Shape, draw_face
from affectflow.errors import what_got_wanted
from affectflow.labels import EXPRESSIONS, NUM_EXPRESSIONS

#: Official training list, codes 0–7; the drawn faces come in these proportions.
AFFECTNET_COUNTS = (74_874, 134_416, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750)

#: Fewest faces of an expression, where enough images are asked for.
MIN_PER_CLASS = 12

#: Each expression at full strength; see ``Shape`` for the units.
EXPRESSION_SHAPES = {
    "neutral": Shape(),
    "happy": Shape(corner_lift=0.22, mouth_width=0.16, mouth_open=0.10, teeth=1.0, cheeks=0.9, eye_open=-0.10),
    "sad": Shape(corner_lift=-0.20, mouth_width=-0.06, brow_inner=0.16, brow_outer=-0.06, eye_open=-0.20),
    "surprise": Shape(mouth_open=0.34, mouth_width=-0.14, brow_inner=0.20, brow_outer=0.20, eye_open=0.55),
    "fear": Shape(
        corner_lift=-0.05, mouth_width=0.12, mouth_open=0.13, teeth=0.8, brow_inner=0.24, brow_outer=0.04,
        eye_open=0.55,
    ),
    "disgust": Shape(
        corner_lift=-0.12, upper_lip=0.12, mouth_open=0.06, teeth=0.4, nose_wrinkle=1.0, brow_inner=-0.10,
        brow_outer=-0.04, eye_open=-0.38, cheeks=0.4,
    ),
    "anger": Shape(
        corner_lift=-0.08, mouth_width=-0.08, brow_inner=-0.20, brow_outer=0.10, eye_open=0.12, lip_press=1.0,
    ),
    "contempt": Shape(one_sided=0.22, mouth_width=0.02, eye_open=-0.14, brow_outer=0.02),
}  # fmt: skip

_VALENCE_AROUSAL = {
    "neutral": (0.0, 0.0), "happy": (0.75, 0.2), "sad": (-0.65, -0.3), "surprise": (0.15, 0.75),
    "fear": (-0.3, 0.8), "disgust": (-0.7, 0.5), "anger": (-0.55, 0.7), "contempt": (-0.55, 0.45),
}  # fmt: skip

_DIRECTORIES = 20
_OTHER_CODES = (8, 9, 10)
_ONE_IN = 60  # rows of each of the other codes: one in so many images
_VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class _Row:
    """A row of a list: the picture's path, its box and landmarks, and its labels."""

    path: str
    box: tuple[float, float, float, float]
    landmarks: Sequence[tuple[float, float]]
    code: int
    valence: float
    arousal: float

    def cells(self) -> list[str]:
        landmarks = ";".join(f"{x:.2f};{y:.2f}" for x, y in self.landmarks)
        box = [f"{value:g}" for value in self.box]
        return [self.path, *box, landmarks, str(self.code), f"{self.valence:.6f}", f"{self.arousal:.6f}"]


def write_synthetic_affectnet(root: Path, *, images: int, seed: int) -> None:
    """Write drawn faces and both lists under ``root`` as AffectNet distributes them.

    ``training.csv`` has a header, ``validation.csv`` has none and holds equally many faces of each expression.
    Expressions come in AffectNet's proportions, rounded by largest remainder, but each at least
    :data:`MIN_PER_CLASS` times (or an eighth of ``images``, if that is less). Further rows, about one in sixty for
    each, carry the codes 8 to 10. Strength and sharpness of the expressions vary, so some are hard to tell apart.

    Args:
        root: an existing folder.
        images: pictures of codes 0–7, 8 or more.
        seed: equal seeds give equal files.

    Raises:
        ValueError: ``images`` is too small.
    """
    if images < NUM_EXPRESSIONS:
        raise ValueError(
            what_got_wanted("images", got=str(images), wanted=f"{NUM_EXPRESSIONS} or more", do="draw more faces")
        )
    counts = class_counts(images)
    others = max(1, images // _ONE_IN)
    codes = np.repeat([*range(NUM_EXPRESSIONS), *_OTHER_CODES], [*counts, *[others] * len(_OTHER_CODES)])
    np.random.default_rng(seed).shuffle(codes)
    for directory in range(_DIRECTORIES):
        (root / IMAGES / str(directory + 1)).mkdir(parents=True)
    rows = [_draw(root / IMAGES, code, number, seed) for number, code in enumerate(codes.tolist())]

    for_validation = max(1, round(min(counts) * _VALIDATION_SHARE))
    left = dict.fromkeys(range(NUM_EXPRESSIONS), for_validation)
    training, validation = [], []
    for row in rows:
        if left.get(row.code, 0):
            left[row.code] -= 1
            validation.append(row)
        else:
            training.append(row)
    (root / LISTS).mkdir()
    _write_list(root / LISTS / LIST_FILES[0], training, header=True)
    _write_list(root / LISTS / LIST_FILES[1], validation, header=False)


def class_counts(images: int) -> list[int]:
    """Return how many of ``images`` faces each expression gets, in code order; they sum to ``images``."""
    least = min(MIN_PER_CLASS, images // NUM_EXPRESSIONS)
    exact = np.array(AFFECTNET_COUNTS, dtype=float)
    small = np.zeros(NUM_EXPRESSIONS, dtype=bool)
    # Raising one class takes from the others, so that a further one may fall below the floor.
    while not small.all():
        exact[small] = least
        exact[~small] *= (images - least * small.sum()) / exact[~small].sum()
        if not (exact[~small] < least).any():
            break
        small |= exact < least
    counts = exact.astype(int)
    by_remainder = np.argsort(counts - exact, kind="stable")
    counts[by_remainder[: images - counts.sum()]] += 1
    return [int(count) for count in counts]


def _draw(folder: Path, code: int, number: int, seed: int) -> _Row:
    random = np.random.default_rng([seed, number])
    # Pictures of the other codes show a face as well; their label alone leaves them out.
    name = EXPRESSIONS[code] if code < NUM_EXPRESSIONS else str(random.choice(EXPRESSIONS))
    strength = float(np.clip(random.normal(0.85, 0.22), 0.25, 1.25))
    shape = EXPRESSION_SHAPES[name].scaled(strength).jittered(random)
    if random.random() < 0.5:
        shape = replace(shape, one_sided=-shape.one_sided)
    drawing = draw_face(Head.drawn(random), shape, random)

    file = f"{hashlib.sha224(f'{seed}/{number}'.encode()).hexdigest()}.jpg"
    path = f"{number % _DIRECTORIES + 1}/{file}"
    Image.fromarray(drawing.pixels).save(folder / path, "JPEG", quality=int(random.integers(80, 96)))
    valence, arousal = -2.0, -2.0
    if code < NUM_EXPRESSIONS:
        affect = np.array(_VALENCE_AROUSAL[name]) * strength + random.normal(0, 0.06, 2)
        valence, arousal = np.clip(affect, -1, 1).tolist()
    return _Row(path, drawing.box, drawing.landmarks, code, valence, arousal)


def _write_list(path: Path, rows: Sequence[_Row], *, header: bool) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if header:
            writer.writerow(COLUMNS)
        writer.writerows(row.cells() for row in rows)
