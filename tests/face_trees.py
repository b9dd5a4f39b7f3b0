"""Builds small source trees for the tests, the traps of real copies at known rows included."""

import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from affectflow.data.layouts.manual import COLUMNS, IMAGES, LISTS

LANDMARKS = ";".join("1.5;2.5" for _ in range(68))
HEADER = ",".join(COLUMNS)


def pixels(seed: int, width: int = 120, height: int = 100) -> NDArray[np.uint8]:
    """Smooth colours that differ by seed."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: NDArray[np.uint8] | Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(stream, kind, **options)
    return stream.getvalue()


def line(
    path: str, code: object = 1, box: str = "10,10,80,80", valence: str = "0.5", landmarks: str = LANDMARKS
) -> str:
    return f"{path},{box},{landmarks},{code},{valence},0.25"


def write_manual(root: Path, training: list[str], validation: list[str] | None = None) -> Path:
    """Write both lists: training with a header, validation without."""
    (root / LISTS).mkdir(parents=True)
    (root / IMAGES).mkdir(exist_ok=True)
    (root / LISTS / "training.csv").write_bytes("\n".join([HEADER, *training]).encode("utf-8", "surrogateescape"))
    rows = validation if validation is not None else [line("v/v.jpg", 2)]
    (root / LISTS / "validation.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def put(root: Path, path: str, data: bytes) -> None:
    file = root / IMAGES / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


@dataclass(frozen=True)
class Trap:
    """A row and its picture, with the reason for which it is quarantined; ``None`` where it is kept."""

    name: str
    row: str
    data: bytes | None
    reason: str | None


def bomb() -> bytes:
    """A PNG of 20,000 × 20,000 pixels in its header, and no pixels."""
    data = bytearray(encoded(pixels(0), "PNG"))
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def damaged_jpeg() -> bytes:
    data = bytearray(encoded(pixels(1, 300, 300), quality=95))
    middle = len(data) // 2
    data[middle : middle + 60] = bytes(60)
    return bytes(data)


def traps() -> list[Trap]:
    good = encoded(pixels(2))
    deep = Image.fromarray(np.full((100, 120), 0x8040, dtype=np.uint16))
    kept = [
        ("upper_case.JPG", encoded(pixels(10))),
        ("png_named.jpg", encoded(pixels(11), "PNG")),
        ("jpeg_named.png", encoded(pixels(12))),
        ("picture.bmp", encoded(pixels(13), "BMP")),
        ("picture.TIF", encoded(pixels(14), "TIFF")),
        ("picture.tiff", encoded(pixels(15), "TIFF")),
        ("cmyk.jpg", encoded(Image.fromarray(pixels(16)).convert("CMYK"))),
        ("grey.jpg", encoded(Image.fromarray(pixels(17)).convert("L"))),
        ("palette.png", encoded(Image.fromarray(pixels(18)).convert("P"), "PNG")),
        ("alpha.png", encoded(Image.fromarray(pixels(19)).convert("RGBA"), "PNG")),
        ("deep.png", encoded(deep, "PNG")),
        ("no_extension", encoded(pixels(20))),
    ]
    lost = [
        ("zero.jpg", b"", "zero_byte"),
        ("cut.jpg", good[: len(good) // 2], "truncated"),
        ("cut_in_header.jpg", good[:100], "truncated"),
        ("cut.png", encoded(pixels(3), "PNG")[:500], "truncated"),
        ("text.jpg", b"<html>not found</html>", "undecodable"),
        ("damaged.jpg", damaged_jpeg(), "undecodable"),
        ("bomb.png", bomb(), "too_many_pixels"),
        ("missing.jpg", None, "missing"),
    ]
    boxes = [
        ("box_null.jpg", "NULL,NULL,NULL,NULL", "bad_box"),
        ("box_blank.jpg", ",,,", "bad_box"),
        ("box_nan.jpg", "nan,1,50,50", "bad_box"),
        ("box_negative.jpg", "10,10,-80,80", "bad_box"),
        ("box_empty.jpg", "10,10,0,80", "bad_box"),
        ("box_outside.jpg", "500,10,80,80", "box_outside"),
        ("box_huge.jpg", "-1e9,-1e9,2e9,2e9", "box_outside"),
        ("box_leaves.jpg", "-20,-10,80,80", None),
    ]
    paths = [
        ("../../secret.jpg", "outside_root"),
        ("/etc/passwd", "outside_root"),
        ("t/link_out.jpg", "outside_root"),
    ]
    rows = [
        ("ragged", line("t/ragged.jpg") + ",1", "bad_row"),
        ("short", "t/short.jpg,1,2", "bad_row"),
        ("quote", line('"t/quote.jpg'), "bad_row"),
        ("bytes", line("t/\udcff\udcfe.jpg"), "bad_row"),
        ("no_path", line(""), "bad_row"),
        ("code_11", line("t/code_11.jpg", 11), "bad_label"),
        ("code_half", line("t/code_half.jpg", 1.5), "bad_label"),
        ("code_blank", line("t/code_blank.jpg", ""), "bad_label"),
    ]
    found = [Trap(name, line(f"t/{name}"), data, None) for name, data in kept]
    found += [Trap(name, line(f"t/{name}"), data, reason) for name, data, reason in lost]
    found += [
        Trap(name, line(f"t/{name}", box=box), encoded(pixels(30 + number)), reason)
        for number, (name, box, reason) in enumerate(boxes)
    ]
    found += [Trap(path, line(path), None, reason) for path, reason in paths]
    found += [Trap(f"{name}.jpg", row, encoded(pixels(40)), reason) for name, row, reason in rows]
    return found


def write_traps(root: Path) -> list[Trap]:
    """Write every trap as a row of ``training.csv``, in order from line 2, and return them."""
    found = traps()
    for trap in found:
        if trap.data is not None:
            put(root, f"t/{trap.name}", trap.data)
    (root.parent / "secret.jpg").write_bytes(encoded(pixels(4)))
    (root / IMAGES / "t" / "link_out.jpg").symlink_to(root.parent / "secret.jpg")
    put(root, "v/v.jpg", encoded(pixels(5)))
    write_manual(root, [trap.row for trap in found])
    return found


def write_npy_face(root: Path, split: str, face: str, *, data: bytes | None, **annotations: object) -> None:
    """Write a face of layout npy; annotations by kind (exp, val, aro, lnd), bytes as they are."""
    for folder in ("images", "annotations"):
        (root / split / folder).mkdir(parents=True, exist_ok=True)
    if data is not None:
        (root / split / "images" / f"{face}.jpg").write_bytes(data)
    for kind, value in annotations.items():
        file = root / split / "annotations" / f"{face}_{kind}.npy"
        if type(value) is bytes:
            file.write_bytes(value)
        else:
            np.save(file, np.asarray(value), allow_pickle=True)


def write_npy(root: Path, *, faces: int = 3) -> Path:
    """Write a small tree of layout npy, whose expressions are 0, 1, 2, … in both sets."""
    for split in ("train_set", "val_set"):
        for number in range(faces):
            write_npy_face(
                root, split, str(number), data=encoded(pixels(number + 100 * (split == "val_set"))),
                exp=str(number % 8), val=0.25, aro="-0.5", lnd=np.zeros(136),
            )  # fmt: skip
    return root
