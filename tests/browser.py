"""Pages in headless Chromium: what they fetch and complain of, whether they overflow, and their contrast."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

#: Widths that must fit: a small phone and a large screen.
WIDTHS = (360, 1600)


@dataclass
class Opened:
    """A page as a reader has it: Playwright's page, and what it fetched and complained of."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def fetched_from_outside(self) -> list[str]:
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:", "about:"))]

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return int(
            self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        )

    def low_contrast(self) -> list[str]:
        """Return texts whose contrast with what is behind them is below WCAG AA, with the ratio."""
        return list(self.page.evaluate(_CONTRAST))


@contextmanager
def open_page(file: Path, *, width: int = 1280, scheme: str = "light") -> Iterator[Opened]:
    """Open a file; skips the test where there is no Chromium."""
    program = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
        None,
    )
    if program is None:
        pytest.skip("Chromium is absent: pages are not looked at")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            opened = Opened(context.new_page())
            opened.page.on("request", lambda request: opened.requests.append(request.url))
            opened.page.on("console", lambda message: _note(opened, message))
            opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
            opened.page.goto(file.absolute().as_uri(), wait_until="load")
            yield opened
        finally:
            browser.close()


def _note(opened: Opened, message: Any) -> None:
    if message.type in ("error", "warning"):
        opened.complaints.append(message.text)


_CONTRAST = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const f = v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
    return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const over = (top, bottom) => {
    const a = top[3] ?? 1; return [0, 1, 2].map(i => top[i] * a + bottom[i] * (1 - a)); };
  const behind = e => { const stack = [];
    for (let n = e; n; n = n.parentElement) { const c = parse(getComputedStyle(n).backgroundColor);
      if (c.length && (c[3] ?? 1) > 0) { stack.push(c); if ((c[3] ?? 1) === 1) break; } }
    return stack.reverse().reduce((under, top) => over(top, under), [255, 255, 255]); };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const text = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join(' ').trim();
    const style = getComputedStyle(e), box = e.getBoundingClientRect();
    if (!text || style.visibility !== 'visible' || !box.width || !box.height || +style.opacity === 0) continue;
    const colour = e.namespaceURI.endsWith('svg') ? style.fill : style.color;
    if (colour === 'none') continue;
    const under = behind(e), ink = over(parse(colour), under);
    const [a, b] = [light(ink), light(under)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found; }"""
