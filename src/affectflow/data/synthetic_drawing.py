"""Draws a cartoon of a face: what its expression is comes from a :class:`Shape`, the rest from a :class:`Head`.

Coordinates of a face: the origin between the eyes' height and the nose's middle, x to the viewer's right, y down;
the head is 2 wide and about 2.6 high. They are turned, scaled and moved into the picture.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]
Color = tuple[int, int, int]

_SUPERSAMPLE = 2
_TURN = np.linspace(0, 2 * np.pi, 33)[:-1]
_SKINS = ((250, 224, 204), (238, 200, 170), (222, 178, 145), (196, 145, 110), (150, 100, 72), (100, 68, 52))
_HAIRS = ((35, 25, 20), (70, 45, 25), (120, 80, 40), (190, 150, 80), (150, 60, 30), (140, 140, 145))


@dataclass(frozen=True)
class Shape:
    """An expression as offsets from a relaxed face, in the face's coordinates (lengths) or 0–1 (strengths).

    Attributes:
        corner_lift: of both mouth corners; positive smiles.
        one_sided: lift of one corner alone; the sign says which.
        mouth_width: added to the mouth's half width.
        mouth_open: half the opening between the lips.
        upper_lip: how far the upper lip's middle is raised.
        lip_press: 0–1, how thin and straight the lips are pressed.
        teeth: 0–1, how much of the opening shows teeth.
        brow_inner: lift of the brows' inner ends.
        brow_outer: lift of the brows' outer ends.
        eye_open: share added to the eyes' opening.
        nose_wrinkle: 0–1, lines beside and on the nose.
        cheeks: 0–1, raised cheeks with a line under the eyes.
    """

    corner_lift: float = 0.0
    one_sided: float = 0.0
    mouth_width: float = 0.0
    mouth_open: float = 0.0
    upper_lip: float = 0.0
    lip_press: float = 0.0
    teeth: float = 0.0
    brow_inner: float = 0.0
    brow_outer: float = 0.0
    eye_open: float = 0.0
    nose_wrinkle: float = 0.0
    cheeks: float = 0.0

    def scaled(self, strength: float) -> "Shape":
        """Return the expression at another strength; 0 is a relaxed face."""
        return Shape(**{field.name: getattr(self, field.name) * strength for field in fields(self)})

    def jittered(self, random: np.random.Generator) -> "Shape":
        """Return the expression with the small differences between persons."""
        noise = {
            "corner_lift": 0.035, "one_sided": 0.025, "mouth_width": 0.04, "mouth_open": 0.015,
            "brow_inner": 0.035, "brow_outer": 0.035, "eye_open": 0.09,
        }  # fmt: skip
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, spread in noise.items():
            values[name] += random.normal(0, spread)
        values["mouth_open"] = max(0.0, values["mouth_open"])
        return Shape(**values)


@dataclass(frozen=True)
class Head:
    """How a person and a picture look apart from the expression; angles in radians, sizes in pixels."""

    width: int
    height: int
    center: tuple[float, float]
    scale: float
    tilt: float
    turn: float
    roundness: float
    eye_distance: float
    eye_size: float
    brow_thickness: float
    hair_length: float
    fringe: float
    skin: Color
    hair: Color
    iris: Color
    background: tuple[Color, Color]
    light: tuple[float, float]
    brightness: float
    glasses: bool

    @classmethod
    def drawn(cls, random: np.random.Generator) -> "Head":
        """Draw a head at random."""
        width, height = (int(side) for side in random.integers(200, 321, 2))
        scale = min(width, height) * random.uniform(0.27, 0.34)
        room_x, room_y = width / 2 - 1.1 * scale, max(0.0, height / 2 - 1.4 * scale)
        center = (
            width / 2 + random.uniform(-1, 1) * max(0.0, room_x),
            height / 2 + random.uniform(-1, 1) * room_y,
        )
        skin = np.array(_SKINS[random.integers(len(_SKINS))]) + random.normal(0, 8) + random.normal(0, 3, 3)
        hair = np.array(_HAIRS[random.integers(len(_HAIRS))]) + random.normal(0, 8) + random.normal(0, 3, 3)
        irises = ((70, 45, 25), (60, 90, 60), (70, 110, 160), (40, 30, 25))
        return cls(
            width=width,
            height=height,
            center=center,
            scale=float(scale),
            tilt=float(np.clip(random.normal(0, 0.13), -0.4, 0.4)),
            turn=float(np.clip(random.normal(0, 0.05), -0.12, 0.12)),
            roundness=random.uniform(0.9, 1.08),
            eye_distance=random.uniform(0.37, 0.43),
            eye_size=random.uniform(0.9, 1.12),
            brow_thickness=random.uniform(0.055, 0.1),
            hair_length=random.uniform(0.0, 1.0),
            fringe=random.uniform(-0.95, -0.72),
            skin=_color(skin),
            hair=_color(hair),
            iris=irises[random.integers(len(irises))],
            background=(_color(random.uniform(30, 230, 3)), _color(random.uniform(30, 230, 3))),
            light=(random.uniform(-0.25, 0.25), random.uniform(-0.2, 0.2)),
            brightness=random.uniform(0.75, 1.12),
            glasses=bool(random.random() < 0.12),
        )


@dataclass(frozen=True)
class Drawing:
    """A picture, (height, width, 3) uint8, with the face's box (x, y, width, height) and 68 landmarks in it."""

    pixels: NDArray[np.uint8]
    box: tuple[float, float, float, float]
    landmarks: list[tuple[float, float]]


def draw_face(head: Head, shape: Shape, random: np.random.Generator) -> Drawing:
    """Draw a face; ``random`` adds noise to pixels and box alone."""
    canvas = _Canvas(head)
    _draw_hair_behind(canvas)
    canvas.polygon(_outline(head), head.skin)
    _draw_ears_and_neck(canvas)
    _draw_nose(canvas, shape)
    _draw_cheeks(canvas, shape)
    for side in (-1, 1):
        _draw_eye(canvas, shape, side)
        _draw_brow(canvas, shape, side)
    _draw_mouth(canvas, shape)
    _draw_hair_in_front(canvas)
    if head.glasses:
        _draw_glasses(canvas)
    return Drawing(_finish(canvas, random), _box(canvas, random), _landmarks(canvas, shape))


class _Canvas:
    """Draws in the face's coordinates on a larger picture, which is shrunk at the end."""

    def __init__(self, head: Head) -> None:
        self.head = head
        size = (head.width * _SUPERSAMPLE, head.height * _SUPERSAMPLE)
        self.image = Image.new("RGB", size, head.background[0])
        self._draw = ImageDraw.Draw(self.image)
        self._draw_background()

    def _draw_background(self) -> None:
        top, bottom = (np.array(color) for color in self.head.background)
        rows = np.linspace(0, 1, 16)[:, None]
        bands = (top * (1 - rows) + bottom * rows).astype(np.uint8)[:, None, :]
        self.image.paste(Image.fromarray(bands).resize(self.image.size, Image.Resampling.BILINEAR))

    def to_picture(self, points: Points) -> Points:
        """Map points of the face, (N, 2), to the picture's pixels."""
        head = self.head
        x = points[:, 0] + head.turn * (1.2 - np.abs(points[:, 0]))
        y = points[:, 1]
        cos, sin = np.cos(head.tilt), np.sin(head.tilt)
        mapped = np.stack([cos * x - sin * y, sin * x + cos * y], axis=1) * head.scale
        placed: Points = mapped + np.array(head.center)
        return placed

    def _xy(self, points: Points) -> list[Any]:
        flat: list[Any] = (self.to_picture(points) * _SUPERSAMPLE).ravel().tolist()
        return flat

    def polygon(self, points: Points, color: Color) -> None:
        self._draw.polygon(self._xy(points), fill=color)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        self.polygon(_ellipse(x, y, rx, ry), color)

    def line(self, points: Points, color: Color, width: float) -> None:
        pixels = max(1, round(width * self.head.scale * _SUPERSAMPLE))
        self._draw.line(self._xy(points), fill=color, width=pixels, joint="curve")


def _color(values: NDArray[np.float64]) -> Color:
    red, green, blue = (int(value) for value in np.clip(values, 0, 255))
    return red, green, blue


def _shade(color: Color, factor: float) -> Color:
    return _color(np.array(color) * factor)


def _blend(one: Color, other: Color, share: float) -> Color:
    return _color(np.array(one) * (1 - share) + np.array(other) * share)


def _ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    return np.stack([x + rx * np.cos(_TURN), y + ry * np.sin(_TURN)], axis=1)


def _arc(ends: tuple[tuple[float, float], tuple[float, float]], middle: float, n: int = 13) -> Points:
    """Return a parabola between two ends whose middle lies ``middle`` below (y down) the straight line."""
    t = np.linspace(0, 1, n)
    (x0, y0), (x1, y1) = ends
    return np.stack([x0 + (x1 - x0) * t, y0 + (y1 - y0) * t + 4 * middle * t * (1 - t)], axis=1)


def _outline(head: Head) -> Points:
    """Return the head: an ellipse above, a narrower chin below."""
    x, y = np.cos(_TURN), np.sin(_TURN)
    below = np.clip(y, 0, 1)
    return np.stack([x * (0.94 * head.roundness - 0.2 * below**2), np.where(y < 0, 1.2, 1.28) * y], axis=1)


def _draw_hair_behind(canvas: _Canvas) -> None:
    head = canvas.head
    if head.hair_length > 0.45:
        canvas.ellipse(
            0, 0.1 + 0.5 * head.hair_length, 1.15, 1.1 + 0.4 * head.hair_length, _shade(head.hair, 0.85)
        )
    canvas.ellipse(0, -0.25, 1.07 * head.roundness, 1.12, head.hair)


def _draw_ears_and_neck(canvas: _Canvas) -> None:
    head = canvas.head
    canvas.polygon(np.array([(-0.42, 1.05), (0.42, 1.05), (0.5, 1.75), (-0.5, 1.75)]), _shade(head.skin, 0.82))
    canvas.polygon(_outline(head), head.skin)
    if head.hair_length < 0.7:
        for side in (-1, 1):
            canvas.ellipse(side * 0.95 * head.roundness, 0.05, 0.1, 0.22, _shade(head.skin, 0.93))


def _draw_hair_in_front(canvas: _Canvas) -> None:
    head = canvas.head
    top = _ellipse(0, -0.2, 1.0 * head.roundness, 1.08)
    top = top[top[:, 1] < head.fringe + 0.25]
    order = np.argsort(top[:, 0])
    fringe = _arc(((top[order[-1], 0], head.fringe + 0.25), (top[order[0], 0], head.fringe + 0.25)), -0.12)
    canvas.polygon(np.concatenate([top[order], fringe]), head.hair)


def _draw_nose(canvas: _Canvas, shape: Shape) -> None:
    skin = canvas.head.skin
    lift = -0.05 * shape.nose_wrinkle
    canvas.line(np.array([(-0.07, -0.15), (-0.1, 0.28 + lift)]), _shade(skin, 0.86), 0.03)
    canvas.line(_arc(((-0.17, 0.33 + lift), (0.17, 0.33 + lift)), 0.08), _shade(skin, 0.68), 0.035)
    for side in (-1, 1):
        canvas.ellipse(side * 0.09, 0.36 + lift, 0.04, 0.025, _shade(skin, 0.5))
    if shape.nose_wrinkle > 0.15:
        dark = _blend(skin, _shade(skin, 0.5), min(1.0, shape.nose_wrinkle))
        for height in (-0.2, -0.1, 0.0):
            canvas.line(_arc(((-0.11, height), (0.11, height)), -0.05), dark, 0.03)
        for side in (-1, 1):
            canvas.line(np.array([(side * 0.2, 0.26), (side * 0.34, 0.42), (side * 0.4, 0.6)]), dark, 0.035)


def _draw_cheeks(canvas: _Canvas, shape: Shape) -> None:
    if shape.cheeks <= 0.15:
        return
    skin = canvas.head.skin
    strength = min(1.0, shape.cheeks)
    for side in (-1, 1):
        canvas.ellipse(side * 0.55, 0.32, 0.2, 0.14, _blend(skin, (225, 110, 95), 0.3 * strength))
        line = _arc(((side * 0.3, 0.14), (side * 0.66, 0.1)), 0.05)
        canvas.line(line, _blend(skin, _shade(skin, 0.65), strength), 0.025)


def _eye_half_height(head: Head, shape: Shape) -> float:
    return max(0.02, 0.115 * head.eye_size * (1 + shape.eye_open))


def _draw_eye(canvas: _Canvas, shape: Shape, side: int) -> None:
    head = canvas.head
    x, y = side * head.eye_distance, -0.1
    half_width, half_height = 0.19 * head.eye_size, _eye_half_height(head, shape)
    white = _ellipse(x, y, half_width, half_height)
    canvas.polygon(white, (246, 244, 240))
    # Lids cover the iris: a wide eye shows white all around it.
    radius = 0.105 * head.eye_size
    iris = _ellipse(x, y, radius, min(radius, half_height))
    canvas.polygon(iris, head.iris)
    canvas.ellipse(x, y, 0.05, min(0.05, half_height), (15, 12, 12))
    canvas.ellipse(x + 0.03, y - min(0.03, half_height / 2), 0.018, 0.018, (255, 255, 255))
    lid = white[white[:, 1] <= y]
    canvas.line(lid[np.argsort(lid[:, 0])], _shade(head.skin, 0.35), 0.035)


def _draw_brow(canvas: _Canvas, shape: Shape, side: int) -> None:
    head = canvas.head
    # A one-sided smirk raises the brow of its side a little.
    raised = 0.25 * max(0.0, shape.one_sided * side)
    inner = (side * 0.18, -0.36 - shape.brow_inner)
    outer = (side * 0.66, -0.36 - shape.brow_outer - raised)
    canvas.line(_arc((inner, outer), -0.05), _shade(head.hair, 0.7), head.brow_thickness)
    if shape.brow_inner < -0.07:
        dark = _shade(head.skin, 0.65)
        canvas.line(np.array([(side * 0.07, -0.44), (side * 0.05, -0.24)]), dark, 0.025)


def _mouth_curves(shape: Shape) -> tuple[Points, Points]:
    """Return the upper and the lower lip's inner edge, each (13, 2) from left to right."""
    half = 0.34 + shape.mouth_width
    left = 0.72 - shape.corner_lift * 0.6 + min(0.0, shape.one_sided)
    right = 0.72 - shape.corner_lift * 0.6 - max(0.0, shape.one_sided)
    ends = ((-half, left), (half, right))
    bend = shape.corner_lift * 0.75 * (1 - 0.6 * min(1.0, shape.lip_press)) + abs(shape.one_sided) * 0.4
    upper = _arc(ends, bend - shape.mouth_open - shape.upper_lip)
    lower = _arc(ends, bend + shape.mouth_open)
    return upper, lower


def _draw_mouth(canvas: _Canvas, shape: Shape) -> None:
    skin = canvas.head.skin
    lips = _blend(skin, (170, 50, 60), 0.55)
    upper, lower = _mouth_curves(shape)
    pressed = min(1.0, max(0.0, shape.lip_press))
    if shape.mouth_open + shape.upper_lip / 2 > 0.03:
        canvas.polygon(np.concatenate([upper, lower[::-1]]), (70, 20, 25))
        if shape.teeth > 0.15:
            share = 0.5 * min(1.0, shape.teeth)
            canvas.polygon(np.concatenate([upper, (upper * (1 - share) + lower * share)[::-1]]), (245, 242, 235))
    else:
        canvas.line((upper + lower) / 2, _shade(skin, 0.45), 0.03)
    thickness = 0.055 * (1 - 0.6 * pressed)
    canvas.line(upper, lips, thickness)
    canvas.line(lower, lips, thickness * 1.25)
    if pressed > 0.3:
        canvas.line((upper + lower) / 2, _shade(skin, 0.4), 0.045)
    if shape.corner_lift < -0.06:
        canvas.line(_arc(((-0.12, 0.98), (0.12, 0.98)), -0.04), _shade(skin, 0.72), 0.03)
    if abs(shape.one_sided) > 0.08:
        corner = upper[-1] if shape.one_sided > 0 else upper[0]
        outwards = 1.0 if shape.one_sided > 0 else -1.0
        crease = corner + np.array([(0.07 * outwards, -0.12), (0.12 * outwards, -0.02), (0.09 * outwards, 0.08)])
        canvas.line(crease, _shade(skin, 0.6), 0.03)


def _draw_glasses(canvas: _Canvas) -> None:
    head = canvas.head
    for side in (-1, 1):
        rim = _ellipse(side * head.eye_distance, -0.08, 0.28, 0.25)
        canvas.line(np.concatenate([rim, rim[:2]]), (40, 40, 45), 0.03)
    bridge = head.eye_distance - 0.28
    canvas.line(np.array([(-bridge, -0.1), (bridge, -0.1)]), (40, 40, 45), 0.03)


def _finish(canvas: _Canvas, random: np.random.Generator) -> NDArray[np.uint8]:
    """Shrink, light the picture from one side, and add sensor noise."""
    head = canvas.head
    pixels = np.asarray(canvas.image.reduce(_SUPERSAMPLE), dtype=np.float32)
    across = np.linspace(-1, 1, head.width, dtype=np.float32)[None, :, None]
    down = np.linspace(-1, 1, head.height, dtype=np.float32)[:, None, None]
    pixels *= head.brightness * (1 + head.light[0] * across + head.light[1] * down)
    pixels += random.normal(0, 1, (head.height, head.width, 1)).astype(np.float32) * random.uniform(1, 6)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _box(canvas: _Canvas, random: np.random.Generator) -> tuple[float, float, float, float]:
    """Return the box of brows to chin as a detector would give it: not square, and not quite exact."""
    outline = canvas.to_picture(_outline(canvas.head))
    forehead = canvas.to_picture(np.array([(0.0, -0.85)]))[0]
    left, right = outline[:, 0].min(), outline[:, 0].max()
    top, bottom = min(forehead[1], outline[:, 1].max() - 1), outline[:, 1].max()
    noise = random.normal(0, 0.04, 4) * canvas.head.scale
    x, y = round(left + noise[0]), round(top + noise[1])
    width, height = round(right - left + noise[2]), round(bottom - top + noise[3])
    return float(x), float(y), float(width), float(height)


def _landmarks(canvas: _Canvas, shape: Shape) -> list[tuple[float, float]]:
    """Return 68 points in the usual order: jaw, brows, nose, eyes, mouth."""
    head = canvas.head
    turn = np.linspace(np.pi, 0, 17)
    jaw = np.stack([0.85 * np.cos(turn), 1.25 * np.sin(turn)], axis=1)
    parts = [jaw]
    for side, step in ((-1, -1), (1, 1)):
        brow = _arc(((side * 0.18, -0.36 - shape.brow_inner), (side * 0.66, -0.36 - shape.brow_outer)), -0.05, 5)
        parts.append(brow[::step])
    parts.append(np.stack([np.zeros(4), np.linspace(-0.15, 0.28, 4)], axis=1))
    parts.append(_arc(((-0.17, 0.33), (0.17, 0.33)), 0.08, 5))
    eye = np.array([(-1, 0), (-0.5, -0.8), (0.5, -0.8), (1, 0), (0.5, 0.8), (-0.5, 0.8)])
    size = np.array([0.19 * head.eye_size, _eye_half_height(head, shape)])
    parts += [eye * size + np.array([side * head.eye_distance, -0.1]) for side in (-1, 1)]
    upper, lower = _mouth_curves(shape)
    outer_upper, outer_lower = upper - np.array([0, 0.05]), lower + np.array([0, 0.06])
    parts += [outer_upper[::2], outer_lower[10:1:-2], upper[[1, 4, 6, 8, 11]], lower[[8, 6, 4]]]
    points = canvas.to_picture(np.concatenate(parts))
    return [(float(x), float(y)) for x, y in points]
