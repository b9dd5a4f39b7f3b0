"""Crops: the right pixels, whatever the format, orientation or box."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from face_trees import encoded, pixels
from PIL import Image, ImageOps

from affectflow.data import crops
from affectflow.data.crops import Crop, decode_image, make_crop, pixels_sha256
from affectflow.data.layouts.base import Box
from affectflow.data.quarantine import FaceError, Reason
from affectflow.data.sources import FolderSource


def crop(
    data: bytes, box: Box | None, *, face_size: int = 256, margin: float = 0.0, jpeg_quality: int = 95
) -> Crop:
    return make_crop(data, box, face_size=face_size, margin=margin, jpeg_quality=jpeg_quality)


def face(data: bytes, box: Box | None, **settings: float) -> np.ndarray:
    return decode_image(crop(data, box, **settings).image)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_a_box_is_x_y_width_height_and_not_rows_first_or_corners() -> None:
    picture = np.zeros((300, 200, 3), dtype=np.uint8)
    picture[200:280, 20:100] = (250, 120, 10)
    data = encoded(picture, "PNG")
    inside = face(data, (20, 200, 80, 80))
    assert inside.shape == (80, 80, 3)
    assert (inside == (250, 120, 10)).all()
    assert not (face(data, (110, 190, 80, 100)) == (250, 120, 10)).any()


@pytest.mark.parametrize(("box", "square"), [((30, 20, 40, 80), (10, 20)), ((30, 40, 80, 40), (30, 20))])
def test_a_box_that_is_not_square_is_squared_around_its_centre(box: Box, square: tuple[int, int]) -> None:
    picture = pixels(1, 120, 130)
    left, top = square
    np.testing.assert_array_equal(face(encoded(picture, "PNG"), box), picture[top : top + 80, left : left + 80])


def test_the_margin_is_a_share_of_the_longer_side_on_every_side() -> None:
    picture = pixels(2, 150, 150)
    np.testing.assert_array_equal(
        face(encoded(picture, "PNG"), (50, 60, 50, 40), margin=0.2), picture[45:115, 40:110]
    )


@pytest.mark.parametrize("box", [(-30, -20, 80, 80), (70, 60, 80, 80), (-30, 60, 80, 80), (40, -25, 60, 60)])
def test_what_leaves_the_picture_repeats_its_edge(box: Box) -> None:
    picture = pixels(3)
    x, y, width, height = (int(value) for value in box)
    padded = np.pad(picture, ((100, 100), (100, 100), (0, 0)), "edge")
    expected = padded[100 + y : 100 + y + height, 100 + x : 100 + x + width]
    np.testing.assert_array_equal(face(encoded(picture, "PNG"), box), expected)


def test_padding_of_a_shrunk_face_falls_where_it_does_at_full_size() -> None:
    picture = pixels(4, 800, 600)
    padded = np.pad(picture, ((300, 300), (300, 300), (0, 0)), "edge")
    whole = Image.fromarray(padded[300 - 200 : 300 + 400, 300 + 400 : 300 + 1000])
    expected = np.asarray(whole.resize((128, 128), Image.Resampling.BICUBIC))
    assert difference(face(encoded(picture, "PNG"), (400, -200, 600, 600), face_size=128), expected) < 1.0


def test_without_a_box_the_whole_picture_is_squared_by_its_edge() -> None:
    picture = pixels(5, 60, 80)
    expected = np.pad(picture, ((0, 0), (10, 10), (0, 0)), "edge")
    np.testing.assert_array_equal(face(encoded(picture, "PNG"), None, margin=0.3), expected)


def test_a_small_source_keeps_its_pixels_and_is_stored_without_loss() -> None:
    grey = np.asarray(Image.fromarray(pixels(6, 48, 48)).convert("L"))
    stored = crop(encoded(grey, "PNG"), None)
    assert (stored.width, stored.height) == (48, 48)
    assert stored.image.startswith(b"\x89PNG")
    np.testing.assert_array_equal(decode_image(stored.image), np.repeat(grey[:, :, None], 3, axis=2))


def test_nothing_is_enlarged_and_large_faces_become_jpegs_of_the_face_size() -> None:
    data = encoded(pixels(7, 400, 400), quality=95)
    middle, large = crop(data, (10, 10, 150, 150)), crop(data, (0, 0, 400, 400))
    assert (middle.width, middle.height) == (150, 150)
    assert (large.width, large.height) == (256, 256)
    assert large.image.startswith(b"\xff\xd8")


@pytest.mark.parametrize("side", [300, 600, 1100, 2100])
def test_scaled_decoding_gives_what_full_decoding_and_pillow_give(side: int) -> None:
    picture = pixels(8, side + 101, side + 37)
    data = encoded(picture, quality=95)
    box = (51, 17, side, side)
    with Image.open(io.BytesIO(data)) as opened:
        cut = opened.crop((51, 17, 51 + side, 17 + side))
        expected = np.asarray(cut.resize((256, 256), Image.Resampling.BICUBIC))
    assert difference(face(data, box), expected) < 2.0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_pictures_are_turned_upright_before_the_box_is_read(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(pixels(9, 320, 200), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    with Image.open(io.BytesIO(data)) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert difference(face(data, (30, 40, 120, 120)), upright[40:160, 30:150]) < 2.0


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1", "LA", "RGBA", "RGB"])
def test_every_mode_becomes_the_rgb_picture_that_pillow_shows(mode: str) -> None:
    picture = Image.fromarray(pixels(10, 80, 80)).convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    data = encoded(picture, kind)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(face(data, None), expected)


def test_transparent_pixels_show_white_and_not_what_they_hide() -> None:
    hidden = np.zeros((60, 60, 4), dtype=np.uint8)
    hidden[..., 0] = 200
    assert (face(encoded(Image.fromarray(hidden), "PNG"), None) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(kind: str) -> None:
    deep = Image.fromarray(
        np.array([[0, 257, 0x8080], [0xFFFF, 514, 128]], dtype=np.uint16).repeat(20, 0).repeat(20, 1)
    )
    stored = face(encoded(deep, kind), (0, 0, 40, 40))
    assert stored[5, 5].tolist() == [0, 0, 0]
    assert stored[5, 25].tolist() == [1, 1, 1]
    assert stored[25, 5].tolist() == [255, 255, 255]
    assert face(encoded(deep, kind), (40, 0, 20, 20))[0, 0].tolist() == [128, 128, 128]


def test_crop_digest_follows_pixels_alone_and_source_digest_bytes() -> None:
    picture = pixels(11, 80, 80)
    one, other = crop(encoded(picture, "PNG"), None), crop(encoded(picture, "BMP"), None)
    assert one.crop_sha256 == other.crop_sha256
    assert one.sha256 != other.sha256
    assert pixels_sha256(picture) != pixels_sha256(picture.reshape(40, 160, 3))
    assert one.crop_sha256 != crop(encoded(pixels(12, 80, 80), "PNG"), None).crop_sha256


def test_a_picture_over_the_limit_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(pixels(13, 200, 200))
    monkeypatch.setattr(crops, "MAX_PIXELS", 200 * 200 - 1)
    monkeypatch.setattr(crops, "_decode", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(FaceError) as error:
        crop(data, None)
    assert error.value.reason is Reason.TOO_MANY_PIXELS


def reason_of(root: Path, path: str, folders: tuple[str, ...] = ("",)) -> Reason:
    with pytest.raises(FaceError) as error:
        FolderSource(root).read(folders, path)
    reason: Reason = error.value.reason
    return reason


def test_no_path_and_no_link_leads_out_of_the_source(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder_link").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    for path in ("../secret", "inside/../../secret", str(tmp_path / "secret"), "link", "folder_link/secret"):
        assert reason_of(root, path) is Reason.OUTSIDE_ROOT, path
    assert reason_of(root, "loop") is Reason.MISSING


def test_links_within_the_source_and_a_linked_picture_folder_are_followed(tmp_path: Path) -> None:
    disk, root = tmp_path / "disk", tmp_path / "root"
    disk.mkdir()
    root.mkdir()
    (disk / "a.jpg").write_bytes(b"a")
    (disk / "b.jpg").symlink_to("a.jpg")
    (root / "images").symlink_to(disk)
    assert FolderSource(root).read(("", "images"), "b.jpg") == b"a"


def test_what_is_no_readable_file_has_a_reason_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").touch()
    assert reason_of(tmp_path, "pipe") is Reason.UNDECODABLE
    assert reason_of(tmp_path, "folder") is Reason.UNDECODABLE
    assert reason_of(tmp_path, "zero") is Reason.ZERO_BYTE
    assert reason_of(tmp_path, "nothing") is Reason.MISSING
    assert reason_of(tmp_path, "x" * 5000) is Reason.MISSING


@pytest.mark.parametrize(("image_format", "side", "is_png"), [
    ("auto", 60, True), ("auto", 200, False), ("png", 200, True), ("jpeg", 60, False), ("jpeg", 200, False),
])  # fmt: skip
def test_faces_are_stored_without_loss_when_asked_or_small(image_format: str, side: int, is_png: bool) -> None:
    picture = pixels(20, side, side)
    stored = make_crop(
        encoded(picture, "PNG"), None, face_size=256, margin=0, jpeg_quality=90, image_format=image_format
    )
    assert stored.image.startswith(b"\x89PNG" if is_png else b"\xff\xd8")
    gap = difference(decode_image(stored.image), picture)
    assert (gap == 0) == is_png
    assert gap < 3
    if image_format == "png":
        shrunk = make_crop(
            encoded(picture, "PNG"), None, face_size=100, margin=0, jpeg_quality=90, image_format="png"
        )
        assert shrunk.crop_sha256 == pixels_sha256(decode_image(shrunk.image)), "what is stored is what was cut"


def with_bytes_before_the_end(data: bytes, number: int) -> bytes:
    return data[:-2] + b"\x12" * number + data[-2:]


def with_odd_scan_header(data: bytes) -> bytes:
    odd = bytearray(data)
    place = data.index(b"\xff\xda")
    odd[place + 5 + 2 * data[place + 4] + 1] = 0
    return bytes(odd)


@pytest.mark.parametrize("oddity", [lambda data: with_bytes_before_the_end(data, 9), with_odd_scan_header])
@pytest.mark.parametrize("side", [200, 600])
def test_oddities_that_cost_no_pixel_are_kept(oddity: Callable[[bytes], bytes], side: int) -> None:
    data = encoded(pixels(21, side, side))
    with pytest.raises(ValueError, match=r"extraneous|SOS"):
        simplejpeg.decode_jpeg(oddity(data))
    assert crop(oddity(data), None).crop_sha256 == crop(data, None).crop_sha256


def test_many_bytes_before_the_end_are_a_sign_of_damage() -> None:
    with pytest.raises(FaceError) as error:
        crop(with_bytes_before_the_end(encoded(pixels(22)), 200), None)
    assert error.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize(
    ("left", "is_kept"), [(111, True), (109, True), (113, False), (-72.5, False), (-71.5, True)]
)
def test_a_box_of_which_less_than_a_tenth_is_in_the_picture_is_outside(left: float, is_kept: bool) -> None:
    data = encoded(pixels(1))  # 120 wide
    if is_kept:
        assert crop(data, (left, 10, 80, 80)).width == 80
    else:
        with pytest.raises(FaceError) as error:
            crop(data, (left, 10, 80, 80))
        assert error.value.reason is Reason.BOX_OUTSIDE
