"""Predicting from pictures and folders: table, page, and what cannot be read."""

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import WIDTHS, open_page
from PIL import Image

from affectflow.artifacts import new_artifact
from affectflow.labels import EXPRESSIONS
from affectflow.models import IMAGENET, ExpressionModel, create_backbone, model_spec, write_weights
from affectflow.predict import SHEET_FILE, TABLE_FILE, main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    torch.manual_seed(0)
    spec = model_spec(
        backbone="test_resnet",
        backbone_args={},
        classes=EXPRESSIONS,
        feature_dim=16,
        dropout=0.0,
        activation="relu",
    )
    network = ExpressionModel(create_backbone("test_resnet"), len(EXPRESSIONS), 16)
    with new_artifact(folder, "model", {**spec, "image_size": 32, "input_norm": IMAGENET.to_json()}) as inside:
        write_weights(inside, network)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(70):  # more than a batch
        pixels = random.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / ("more" if number % 2 else "") / f"{number:02}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture either")
    return folder


def test_a_folder_gives_a_table_and_a_page_and_names_what_cannot_be_read(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", str(model), str(pictures), "--output-dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert f"left out 1 of 71 pictures in {pictures} that cannot be read: {pictures / 'broken.jpg'}" in said.err
    with (tmp_path / "out" / TABLE_FILE).open() as stream:
        rows = list(csv.DictReader(stream))
    assert [Path(row["image"]).name for row in rows] == sorted(
        (f"{number:02}.png" for number in range(70)), key=lambda name: (int(name[:2]) % 2, name)
    )
    for row in rows:
        shares = {name: float(row[name]) for name in EXPRESSIONS}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert row["expression"] == max(shares, key=shares.get)
    page = (tmp_path / "out" / SHEET_FILE).read_text()
    assert page.count("<img ") == 70
    assert page.index("weak evidence") < page.index("<img ")


def test_a_batch_says_the_same_as_each_picture_alone(model: Path, pictures: Path, tmp_path: Path) -> None:
    from affectflow.predict import find_images, predict

    images = find_images([pictures])
    together = predict(str(model), images).to_numpy()
    for place in (0, 65, 69):
        alone = predict(str(model), [images[place]]).to_numpy()[0]
        np.testing.assert_allclose(together[place], alone, atol=1e-5)


def test_pictures_of_any_kind_say_the_same_as_their_pixels(model: Path, tmp_path: Path) -> None:
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    turned = Image.Exif()
    turned[0x112] = 6  # shown after a quarter turn clockwise
    saved = {
        "grey": (pixels.convert("L"), "PNG", {}),
        "palette": (pixels.convert("P"), "PNG", {}),
        "cmyk": (pixels.convert("CMYK"), "TIFF", {}),
        "turned": (pixels.transpose(Image.Transpose.ROTATE_90), "PNG", {"exif": turned}),
        "dot": (pixels.resize((1, 1)), "PNG", {}),
    }
    shown = {**{name: image for name, (image, _, _) in saved.items()}, "turned": pixels}
    for name, (image, form, options) in saved.items():
        image.save(tmp_path / f"{name}.{form.lower()}", form, **options)
        shown[name].convert("RGB").save(tmp_path / f"{name}-shown.png")
    files = sorted(str(file) for file in tmp_path.iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["--model", str(model), *files, "--output-dir", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / TABLE_FILE).open() as stream:
        said = {Path(row.pop("image")).stem: row for row in csv.DictReader(stream)}
    assert {name: said[name] for name in saved} == {name: said[f"{name}-shown"] for name in saved}
    assert said["turned"] != said["grey"]


@pytest.mark.parametrize("name", ["none.png", "broken.jpg", "notes.txt"])
def test_a_named_picture_that_cannot_be_read_is_an_error_of_one_line(
    model: Path, pictures: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", str(model), str(pictures / name)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert name in line


def test_a_folder_without_pictures_is_an_error(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["--model", str(model), str(tmp_path / "empty")]) == 2
    assert "no picture that can be read" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_can_be_read(model: Path, pictures: Path, tmp_path: Path, scheme: str) -> None:
    assert main(["--model", str(model), str(pictures), "--output-dir", str(tmp_path / "out"), "--quiet"]) == 0
    for width in WIDTHS:
        with open_page(tmp_path / "out" / SHEET_FILE, width=width, scheme=scheme) as opened:
            assert (opened.complaints, opened.fetched_from_outside, opened.low_contrast()) == ([], [], [])
            assert opened.overflow() <= 0
