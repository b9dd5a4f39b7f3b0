"""A model's page and card: what they say, and the page in a browser."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import WIDTHS, open_page

from affectflow.labels import EXPRESSIONS
from affectflow.metrics import CALIBRATION_METRICS, METRICS, evaluate_all
from affectflow.model_report.card import model_card
from affectflow.model_report.page import FACES_A_CELL, Scored, model_page, split_figures
from affectflow.model_report.thumbnails import SIDE, thumbnail

pytestmark = pytest.mark.nightly

PLANTED = "<script>alert(1)</script>"
CLASSES = len(EXPRESSIONS)


def scored(count: int = 160) -> Scored:
    random = np.random.default_rng(0)
    target = np.arange(count) % CLASSES
    probability = random.dirichlet(np.ones(CLASSES), count)
    probability[np.arange(count), target] += random.uniform(0, 1, count)
    probability /= probability.sum(axis=1, keepdims=True)

    def face(position: int) -> bytes:
        return thumbnail(np.full((40, 30, 3), position % 256, np.uint8))

    return Scored(target, probability, face, 1.25)


def scores(test: Scored) -> dict:
    everything = evaluate_all(test.target, test.probability)
    intervals = {
        name: {"value": everything[name], "low": everything[name] - 0.05, "high": everything[name] + 0.05}
        for name in METRICS
    }
    return {
        **everything,
        **intervals,
        "temperature_scaled": {name: intervals[name] for name in CALIBRATION_METRICS},
    }


def history(epochs: int = 3) -> dict:
    columns = {name: [0.5] * epochs for name in ("train_loss", "val_loss", "val_accuracy", "val_uar")}
    columns |= {"epoch": [float(epoch) for epoch in range(1, epochs + 1)], "cluster_state": ["off"] * epochs}
    for prefix in ("s_plus_alpha", "center_to_mean", "within", "center_moved"):
        columns |= {f"center.{prefix}.{name}": [1.0, 2.0, 3.0] for name in EXPRESSIONS}
    return columns


def write_page(folder: Path, **changed) -> Path:
    test = scored()
    part = scores(test)
    options = {
        "figures": split_figures(test, part["confusion_matrix"]),
        "history": history(),
        "selected_epoch": 2,
        "settings": {"backbone": PLANTED},
        "provenance": {"model": "0" * 64},
        "lead": PLANTED,
    }
    html = model_page(f"resnet · {PLANTED} · {'long_name' * 9}", test, part, **(options | changed))
    (folder / "page.html").write_text(html, encoding="utf-8")
    return folder / "page.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page"))


def test_text_is_escaped_and_nothing_is_loaded(page: Path) -> None:
    html = page.read_text()
    assert "<script" not in html
    assert not re.search(r'(src|href)="(?!#|data:)', html)


def test_every_cell_with_faces_leads_to_them_the_most_confident_first(page: Path) -> None:
    html, test = page.read_text(), scored()
    for truth in range(CLASSES):
        for said in range(CLASSES):
            within = (test.target == truth) & (test.probability.argmax(axis=1) == said)
            section = re.search(rf'<section class="cell" id="cell-{truth}-{said}".*?</section>', html, re.DOTALL)
            assert (section is not None) == within.any() == (f'href="#cell-{truth}-{said}"' in html)
            if section:
                sure = [int(share) for share in re.findall(r"(\d+)% sure", section[0])]
                assert len(sure) == section[0].count("<img") == min(within.sum(), FACES_A_CELL)
                assert sure == sorted(sure, reverse=True)
                assert sure[0] == round(100 * test.probability[within, said].max())


def test_a_model_without_history_or_centers_says_so(tmp_path: Path) -> None:
    assert "The history was not passed on" in write_page(tmp_path, history=None).read_text()
    plain = {name: column for name, column in history().items() if not name.startswith("center.")}
    assert "This loss has no centers" in write_page(tmp_path, history=plain).read_text()


def test_the_page_knows_the_names_that_the_losses_diagnostics_have() -> None:
    from affectflow.model_report import page as module

    text = (Path(__file__).parents[2] / "docs" / "method.md").read_text()
    for prefix in ("center.s_plus_alpha", "center.within", "center.center_moved", "center.center_to_mean"):
        assert prefix in module._CENTERS
        assert prefix in text


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_it_fits_is_readable_and_complains_of_nothing(page: Path, scheme: str) -> None:
    for width in WIDTHS:
        with open_page(page, width=width, scheme=scheme) as opened:
            assert opened.complaints == []
            assert opened.fetched_from_outside == []
            assert opened.overflow() <= 0
            assert opened.low_contrast() == []


@pytest.mark.slow
def test_faces_behind_a_cell_are_reached_by_keyboard_alone(page: Path) -> None:
    with open_page(page) as opened:
        link = opened.page.locator('table.matrix a[href="#cell-0-0"]')
        hidden = opened.page.locator("#cell-0-0")
        assert not hidden.is_visible()
        link.focus()
        opened.page.keyboard.press("Enter")
        assert hidden.is_visible()
        assert opened.page.evaluate("document.activeElement.id") == "cell-0-0"
        unnamed = opened.page.evaluate("[...document.images].filter(image => !image.alt).length")
        assert unnamed == 0
        opened.page.emulate_media(media="print")
        assert opened.page.locator("#cell-1-1").is_visible()


@pytest.mark.slow
def test_low_contrast_is_seen(tmp_path: Path) -> None:
    (tmp_path / "pale.html").write_text("<p style='color:#bbb;background:#fff'>pale</p><p>dark</p>")
    with open_page(tmp_path / "pale.html") as opened:
        assert [text.split(":")[0] for text in opened.low_contrast()] == ["pale"]


def test_a_thumbnail_is_small_and_keeps_its_shape() -> None:
    import io

    from PIL import Image

    assert Image.open(io.BytesIO(thumbnail(np.zeros((400, 200, 3), np.uint8)))).size == (SIDE // 2, SIDE)
    assert Image.open(io.BytesIO(thumbnail(np.zeros((20, 10, 3), np.uint8)))).size == (10, 20)


MODEL = {
    "backbone": "resnet50",
    "pretrained": "none",
    "loss": "softmax",
    "seed": 0,
    "feature_dim": 512,
    "image_size": 224,
    "classes": list(EXPRESSIONS),
    "selected_epoch": 2,
    "settings": {"epochs": 3, "select": "best_uar"},
}
DATASET = {"faces": 400, "quarantined": {"missing": 2}, "layout": "csv", "digest": "ab" * 32}


def card(**changed) -> str:
    counts = {"train": [50, 40, 30, 20, 15, 10, 9, 8], "val": [5] * 8, "test": [20] * 8}
    return model_card(MODEL, dataset=DATASET | changed, counts=counts, test=scores(scored()))


def test_a_card_has_data_metrics_with_intervals_limits_uses_and_licence() -> None:
    text = card()
    part = scores(scored())
    for heading in ("Data", "Metrics", "Limits", "Intended use", "Unfit use", "Licences"):
        assert f"\n## {heading}\n" in text
    assert f"| uar | {part['uar']['value']:.4f} | {part['uar']['low']:.4f} to {part['uar']['high']:.4f} |" in text
    recalls = {name: entry["recall"] for name, entry in part["per_class"].items()}
    assert f"finds {min(recalls, key=recalls.get)} least often" in text
    assert "contempt, has 8 training faces" in text
    assert text == card()
    json.dumps(text)


def test_the_licence_follows_where_the_faces_come_from() -> None:
    assert "not known to this project" in card()
    assert "AffectNet is given for research" in card(layout="manual")
    assert "drawings" in card(layout="manual", synthetic=True)
