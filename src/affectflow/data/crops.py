"""From a source file's bytes to one stored face: decode safely, turn upright, crop, shrink, encode."""

import hashlib
import io
import math
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from affectflow.data.layouts.base import Box
from affectflow.data.quarantine import FaceError, Reason
from affectflow.errors import DataError, what_got_wanted

Pixels = NDArray[np.uint8]

#: Pictures with more pixels are not decoded (Pillow's own limit of 89 million holds as well).
MAX_PIXELS = 64_000_000
#: A box with a smaller share of its area in the picture counts as outside of it.
MIN_INSIDE = 0.1
#: By itself, faces with a smaller side are stored without loss: JPEG would cost them much and save little.
LOSSLESS_BELOW = 96

ImageFormat = Literal["auto", "jpeg", "png"]

#: A stored face has at most 1024 × 1024; one that claims more is not decoded.
_MAX_STORED_PIXELS = 4_000_000

_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM")
_ORIENTATION = 0x0112
_RATIO_16_TO_8 = 257
#: Decoder's warnings about oddities that cost no pixel. Many bytes before the end, or some before a restart marker
#: (0xd0 to 0xd7), are what is left of damaged data.
_HARMLESS = re.compile(
    r"Invalid SOS parameters for sequential|: ([1-9]|1[0-6]) extraneous bytes before marker 0x(?!d[0-7])"
)
_TRUNCATED = ("truncated", "premature end of jpeg file", "not enough", "unexpected end")


@dataclass(frozen=True, slots=True)
class Crop:
    """A face as it is stored.

    Attributes:
        sha256: of the source file's bytes.
        crop_sha256: of the face's shape and pixels before encoding.
        image: the encoded face, JPEG or PNG.
        width: of the face in pixels.
        height: of the face in pixels.
        perceptual_hash: 64 bits that change little when the face does; ``None`` where it was not asked for.
    """

    sha256: str
    crop_sha256: str
    image: bytes
    width: int
    height: int
    perceptual_hash: int | None = None


def make_crop(
    data: bytes,
    box: Box | None,
    *,
    face_size: int,
    margin: float,
    jpeg_quality: int,
    image_format: ImageFormat = "auto",
    with_perceptual_hash: bool = False,
) -> Crop:
    """Return the stored form of the face in ``box``.

    The crop is square: the box's longer side plus ``margin`` of it on every side, around the box's centre.
    Without a box the whole picture is the face, squared by its longer side, without margin. What lies outside
    the picture repeats its edge. The crop is shrunk to ``face_size`` (antialiased), never enlarged; a
    face that needs no shrinking keeps its pixels.

    Args:
        data: the source file's bytes.
        box: the face in the upright picture (after EXIF orientation), or ``None``.
        face_size: longest side of the result in pixels.
        margin: share of the box's longer side, 0 or more.
        jpeg_quality: 1 to 100.
        image_format: ``"png"`` stores without loss, ``"jpeg"`` with ``jpeg_quality``; ``"auto"`` stores faces
            below :data:`LOSSLESS_BELOW` pixels as PNG and the others as JPEG.
        with_perceptual_hash: whether to hash the face's looks, to find near duplicates.

    Raises:
        FaceError: ``truncated``, ``undecodable``, ``too_many_pixels`` or ``box_outside``.
    """
    with _open(data) as picture:
        width, height = picture.size
        turn = _orientation(picture)
        if turn >= 5:
            width, height = height, width
        left, top, side = _square(box, width, height, margin)
        pixels = _decode(data, picture, shrink=_shrink(side, face_size))
    pixels = _upright(pixels, turn)
    face = cut_square(pixels, left, top, side, size=(width, height), face_size=face_size)
    return Crop(
        sha256=hashlib.sha256(data).hexdigest(),
        crop_sha256=pixels_sha256(face),
        image=_encode(face, jpeg_quality, image_format),
        width=face.shape[1],
        height=face.shape[0],
        perceptual_hash=perceptual_hash(face) if with_perceptual_hash else None,
    )


def salvage(data: bytes, size: int) -> bytes | None:
    """Return a small JPEG of what can be seen of a picture, damaged or not; ``None`` where that is nothing.

    Args:
        data: the source file's bytes.
        size: longest side of the result in pixels.
    """
    try:
        return make_crop(data, None, face_size=size, margin=0, jpeg_quality=80, image_format="jpeg").image
    except FaceError as error:
        if error.reason is Reason.TOO_MANY_PIXELS:
            return None
    try:
        if _open(data).format != "JPEG":
            return None
        pixels: Pixels = simplejpeg.decode_jpeg(data, strict=False)
    except (FaceError, ValueError):
        return None
    height, width = pixels.shape[:2]
    left, top, side = _square(None, width, height, 0)
    face = cut_square(pixels, left, top, side, size=(width, height), face_size=size)
    return _encode(face, 80, "jpeg")


def decode_image(image: bytes | memoryview) -> Pixels:
    """Return a stored face as RGB, shape (H, W, 3) uint8.

    Raises:
        DataError: the bytes are not a face as this package stores them.
    """
    try:
        if bytes(image[:2]) == b"\xff\xd8":
            height, width, _, _ = simplejpeg.decode_jpeg_header(image)
            _check_stored_size(width, height)
            decoded: Pixels = simplejpeg.decode_jpeg(image)
            return decoded
        with Image.open(io.BytesIO(image), formats=("PNG",)) as picture:
            _check_stored_size(*picture.size)
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise DataError(
            what_got_wanted(
                "a stored face",
                got=f"bytes that cannot be decoded ({error})",
                wanted="a JPEG or PNG as it was stored",
                do="run ingest_affectnet again",
            )
        ) from None


def _check_stored_size(width: int, height: int) -> None:
    if width * height > _MAX_STORED_PIXELS:
        raise ValueError(f"{width} × {height} pixels, at most {_MAX_STORED_PIXELS:,}")


def decode_picture(data: bytes) -> Pixels:
    """Return a picture from elsewhere as upright RGB, shape (H, W, 3) uint8.

    Raises:
        FaceError: ``truncated``, ``undecodable`` or ``too_many_pixels``.
    """
    with _open(data) as picture:
        return _upright(_decode(data, picture, shrink=1), _orientation(picture))


def squared(pixels: Pixels) -> Pixels:
    """Return a whole picture squared by its longer side, edges repeated, as faces without a box are stored."""
    height, width = pixels.shape[:2]
    left, top, side = _square(None, width, height, 0.0)
    return cut_square(pixels, left, top, side, size=(width, height), face_size=int(side))


def pixels_sha256(pixels: Pixels) -> str:
    """Return the SHA-256 of an image's shape and pixels."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def perceptual_hash(pixels: Pixels) -> int:
    """Return 64 bits that stand for an image's low frequencies (pHash): near duplicates differ in few of them."""
    import imagehash  # late: it brings SciPy's transforms, which few runs need

    return int.from_bytes(np.packbits(imagehash.phash(Image.fromarray(pixels)).hash).tobytes(), "big")


def _open(data: bytes) -> Image.Image:
    """Read a picture's header, and refuse it when decoding it would take too much memory."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise FaceError(Reason.TOO_MANY_PIXELS, str(error)) from None
    except MemoryError:
        raise
    except Exception as error:
        raise _undecodable(error) from None
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise FaceError(Reason.TOO_MANY_PIXELS, f"{width} × {height} pixels, at most {MAX_PIXELS:,}")
    return picture


def _undecodable(error: Exception) -> FaceError:
    """Name a decoder's error. Pillow's formats raise errors of many types for damaged files."""
    text = str(error).split("<_io")[0].strip() or type(error).__name__
    cut_off = any(word in text.lower() for word in _TRUNCATED)
    return FaceError(Reason.TRUNCATED if cut_off else Reason.UNDECODABLE, text)


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    if picture.format == "TIFF":
        return 1  # Pillow turns these itself when it decodes them, and gives their upright size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value: Any = picture.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def _square(box: Box | None, width: int, height: int, margin: float) -> tuple[float, float, float]:
    """Return left, top and side of the square to cut from a picture of this size."""
    if box is None:
        side = float(max(width, height))
        # Whole pixels, so that a face that needs no shrinking keeps its pixels.
        return float((width - int(side)) // 2), float((height - int(side)) // 2), side
    left, top, wide, high = box
    inside_x = min(left + wide, width) - max(left, 0)
    inside_y = min(top + high, height) - max(top, 0)
    if inside_x <= 0 or inside_y <= 0 or inside_x * inside_y < MIN_INSIDE * wide * high:
        where = f"box x {left:g}, y {top:g}, width {wide:g}, height {high:g}"
        raise FaceError(Reason.BOX_OUTSIDE, f"{where} in a picture of {width} × {height}")
    side = max(1.0, float(round(max(wide, high) * (1 + 2 * margin))))
    return (
        float(math.floor(left + wide / 2 - side / 2 + 0.5)),
        float(math.floor(top + high / 2 - side / 2 + 0.5)),
        side,
    )


def _shrink(side: float, face_size: int) -> int:
    """Return by how much the decoder may shrink while the face keeps ``face_size`` pixels: 1, 2, 4 or 8.

    Only these have fast paths in libjpeg-turbo.
    """
    return next((factor for factor in (8, 4, 2) if side / factor >= face_size), 1)


def _decode(data: bytes, picture: Image.Image, *, shrink: int) -> Pixels:
    """Return the picture as stored (not upright) in RGB, (H, W, 3), shrunk where its format allows it."""
    try:
        if picture.format in ("JPEG", "MPO") and picture.mode in ("RGB", "L"):
            return _decode_jpeg(data, picture, shrink)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _to_rgb(picture)
    except FaceError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        raise _undecodable(error) from None


def _decode_jpeg(data: bytes, picture: Image.Image, shrink: int) -> Pixels:
    width, height = picture.size
    least = {
        "min_width": math.ceil(width / shrink) if shrink > 1 else 0,
        "min_height": math.ceil(height / shrink) if shrink > 1 else 0,
    }
    pixels: Pixels
    try:
        pixels = simplejpeg.decode_jpeg(data, **least)
    except ValueError as error:
        if not _HARMLESS.search(str(error)):
            raise
        pixels = simplejpeg.decode_jpeg(data, **least, strict=False)
    return pixels


def _to_rgb(picture: Image.Image) -> Pixels:
    """Convert any mode: 16 bits to 8, transparency over white, palettes, CMYK and grey to RGB."""
    if picture.mode.startswith("I"):
        deep = np.clip(np.asarray(picture).astype(np.int64), 0, 0xFFFF)
        grey = ((deep + _RATIO_16_TO_8 // 2) // _RATIO_16_TO_8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode == "F":
        raise FaceError(Reason.UNDECODABLE, "floating-point pixels, whose range is unknown")
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        return np.asarray(Image.alpha_composite(white, clear).convert("RGB"))
    return np.asarray(picture.convert("RGB"))


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Return a view that is turned and mirrored as EXIF's orientation says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def cut_square(
    pixels: Pixels, left: float, top: float, side: float, *, size: tuple[int, int], face_size: int
) -> Pixels:
    """Cut a square, shrink it and repeat the picture's edge where the square leaves it.

    Padding happens after shrinking, so a huge box costs no memory.

    Args:
        pixels: the picture, (H, W, 3), perhaps smaller than ``size``.
        left: of the square in pixels of ``size``; may be negative.
        top: of the square in pixels of ``size``; may be negative.
        side: of the square in pixels of ``size``.
        size: width and height that the coordinates refer to.
        face_size: longest side of the result in pixels.

    Shape:
        returns (n, n, 3) with n = min(side, face_size).
    """
    width, height = size
    n = max(1, min(face_size, round(side)))
    to_face = n / side
    x0, x1 = max(left, 0.0), min(left + side, float(width))
    y0, y1 = max(top, 0.0), min(top + side, float(height))
    before_x, before_y = round((x0 - left) * to_face), round((y0 - top) * to_face)
    inner_x = max(1, round((x1 - left) * to_face) - before_x)
    inner_y = max(1, round((y1 - top) * to_face) - before_y)

    scale_x, scale_y = pixels.shape[1] / width, pixels.shape[0] / height
    inner = _resize(pixels, x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y, inner_x, inner_y)
    after = (n - before_y - inner_y, n - before_x - inner_x)
    if before_x or before_y or any(after):
        inner = np.pad(inner, ((before_y, max(0, after[0])), (before_x, max(0, after[1])), (0, 0)), "edge")
    return np.ascontiguousarray(inner[:n, :n])


def _resize(pixels: Pixels, x0: float, y0: float, x1: float, y1: float, width: int, height: int) -> Pixels:
    """Resize the region [x0, x1) × [y0, y1), which may begin and end between pixels.

    With a triangle filter, antialiased: a third faster than a bicubic one, and no further from a bicubic reduction
    of the whole picture (``benchmarks/ingest.py`` measures both).
    """
    col, row = int(x0), int(y0)
    region = pixels[row : math.ceil(y1), col : math.ceil(x1)]
    if region.shape[:2] == (height, width) and (x0, y0) == (col, row):
        return region
    picture = Image.fromarray(np.ascontiguousarray(region))
    box = (x0 - col, y0 - row, min(x1 - col, region.shape[1]), min(y1 - row, region.shape[0]))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))


def _encode(face: Pixels, jpeg_quality: int, image_format: ImageFormat) -> bytes:
    if image_format == "jpeg" or (image_format == "auto" and min(face.shape[:2]) >= LOSSLESS_BELOW):
        encoded: bytes = simplejpeg.encode_jpeg(face, quality=jpeg_quality)
        return encoded
    grey = (face == face[:, :, :1]).all()
    stream = io.BytesIO()
    Image.fromarray(face[:, :, 0] if grey else face).save(stream, "PNG", optimize=True)
    return stream.getvalue()
