"""The site in docs/: it builds without a warning, has no broken link, and fetches nothing from outside."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import WIDTHS, open_page

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.nightly

_ASSET = re.compile(r"<(?:script|img|link|source|iframe|video|audio)\b[^>]*?\b(?:src|href)=[\"']?([^\"'\s>]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_no_page_names_an_asset_from_outside(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    assets = [(page.name, asset) for page in pages for asset in _ASSET.findall(page.read_text(encoding="utf-8"))]
    assert len(assets) > 100
    assert [asset for asset in assets if re.match(r"(https?:)?//", asset[1])] == []
    styles = "".join(file.read_text(encoding="utf-8") for file in site.rglob("*.css"))
    assert not re.search(r"url\([\"']?(https?:)?//|@import", styles)


def test_the_reference_has_every_step_with_its_flags_and_every_loss(site: Path) -> None:
    from components.fine_tune.component import fine_tune
    from components.images import TARGETS

    steps = (site / "reference" / "steps.html").read_text(encoding="utf-8")
    assert all(f'id="{step}"' in steps for step in TARGETS)
    for name in fine_tune.component_spec.inputs:
        assert f"--{name.replace('_', '-')}" in steps
    losses = (site / "reference" / "losses.html").read_text(encoding="utf-8")
    assert "weighted_cluster_loss" in losses
    assert "<math" in losses
    assert ".. math::" not in losses
    assert ":func:" not in losses


@pytest.mark.parametrize("page", ["index.html", "method.html", "reference/losses.html", "how-to/add-a-step.html"])
def test_a_browser_fetches_nothing_from_outside_and_complains_of_nothing(site: Path, page: str) -> None:
    for width in WIDTHS:
        with open_page(site / page, width=width) as opened:
            assert opened.fetched_from_outside == []
            assert opened.complaints == []
            assert opened.overflow() <= 0
