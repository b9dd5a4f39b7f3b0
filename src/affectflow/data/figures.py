"""Pages for the KFP UI that show a dataset: faces by class, and a few faces of every class.

Self-contained HTML without scripts; it follows the reader's light or dark setting. All text is escaped.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #5f6368; --paper: #fff; --bar: #3b6fd4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ea; --soft: #a5a9b0; --paper: #16181c; --bar: #7aa7ff; } }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .8rem; } h2 { font-size: 1.05rem; margin: 1.2rem 0 .4rem; }
svg { width: 100%; max-width: 48rem; height: auto; } text { fill: var(--ink); font: 14px system-ui, sans-serif; }
rect { fill: var(--bar); } .soft { fill: var(--soft); color: var(--soft); }
.row { display: flex; flex-wrap: wrap; gap: 6px; } .row img { width: 96px; height: 96px; border-radius: 6px; }
"""

_ROW, _NAMES, _BARS, _NUMBERS = 30, 110, 460, 190


def class_distribution_html(counts: Mapping[str, int], *, title: str = "Faces by expression") -> str:
    """Return a bar chart of faces by class, with numbers and shares (the paper's Figure 3).

    Args:
        counts: faces by class name, in the order in which they are shown.
        title: of the page.
    """
    total, largest = sum(counts.values()), max(counts.values(), default=0)
    width, height = _NAMES + _BARS + _NUMBERS, _ROW * len(counts)
    bars = []
    for place, (name, count) in enumerate(counts.items()):
        y = place * _ROW
        length = _BARS * count / largest if largest else 0.0
        share = count / total if total else 0.0
        bars.append(
            f'<text x="{_NAMES - 10}" y="{y + 20}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{_NAMES}" y="{y + 5}" width="{length:.1f}" height="{_ROW - 10}" rx="3"/>'
            f'<text x="{_NAMES + length + 8:.1f}" y="{y + 20}">{count:,} '
            f'<tspan class="soft">({share:.1%})</tspan></text>'
        )
    chart = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{"".join(bars)}</svg>'
    return _page(title, f'{chart}<p class="soft">{total:,} faces</p>')


def contact_sheet_html(
    faces: Mapping[str, Sequence[tuple[bytes, str]]], *, title: str = "Faces of every expression"
) -> str:
    """Return a page with a row of faces for every class.

    Args:
        faces: by class name, pairs of an encoded face (JPEG or PNG) and what its tooltip says.
        title: of the page.
    """
    parts = []
    for name, images in faces.items():
        row = "".join(_image(image, text) for image, text in images) or '<span class="soft">none</span>'
        parts.append(f'<h2>{escape(name)}</h2><div class="row">{row}</div>')
    return _page(title, "".join(parts))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; numbers are grouped by thousands and bars in text are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _image(image: bytes, text: str) -> str:
    kind = "jpeg" if image[:2] == b"\xff\xd8" else "png"
    data = base64.b64encode(image).decode("ascii")
    return f'<img src="data:image/{kind};base64,{data}" alt="" title="{escape(text)}">'


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )
