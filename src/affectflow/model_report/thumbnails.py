"""Small copies of faces, to be shown on a page."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

#: Longest side in pixels; a page shows faces at about this size.
SIDE = 112


def thumbnail(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return RGB pixels (H, W, 3) as a small JPEG; smaller faces are not enlarged."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=82)
    return stream.getvalue()
