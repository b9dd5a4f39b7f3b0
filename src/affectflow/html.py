"""A self-contained HTML page: headings, text, tables, bars and inline images, all text escaped.

No scripts and nothing loaded from elsewhere (the page's own content policy forbids both); it follows the
reader's light or dark setting.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #5f6368; --paper: #ffffff; --card: #f5f6f8;
  --line: #d9dce1; --bar: #3b6fd4; --link: #1f55b8; --good: #0a6b3d; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --soft: #a5a9b0; --paper: #16181c; --card: #20242a;
  --line: #3a3f47; --bar: #7aa7ff; --link: #9dbeff; --good: #6fd19c; --bad: #ff8a80; } }
body { margin: 0 auto; max-width: 92rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
 h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .4rem 0; max-width: 60rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem; margin: .5rem 0; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
th, td { padding: .28rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { background: var(--card); font-weight: 600; } th.text, td.text { text-align: left; }
td.good { color: var(--good); font-weight: 600; } td.bad { color: var(--bad); font-weight: 600; }
figure { margin: .6rem 0; overflow-x: auto; } figcaption { color: var(--soft); font-size: .875rem; }
.row { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(34rem, 100%), 1fr)); }
img { max-width: min(100%, 62rem); height: auto; box-sizing: border-box; background: #fff; border: 1px solid var(--line);
  border-radius: 6px; }
@media (max-width: 40rem) { figure img { max-width: none; width: 38rem; } }
.thumbnails { display: grid; gap: 6px; grid-template-columns: repeat(auto-fill, 6rem); }
.thumbnails img { width: 6rem; height: 6rem; object-fit: contain; box-sizing: border-box; background: none; }
svg { display: block; width: 100%; max-width: 48rem; height: auto; } rect { fill: var(--bar); }
text { fill: var(--ink); font: 14px system-ui, sans-serif; } tspan { fill: var(--soft); }
"""

#: Of a bar chart, in its own units: height of a row, widths of the names, the longest bar and the numbers.
_ROW, _NAMES, _BARS, _NUMBERS = 30, 110, 460, 190


class Cell(str):
    """A table cell with a meaning that its colour shows: ``good``, ``bad`` or none."""

    tone: str

    def __new__(cls, text: str, tone: str = "") -> "Cell":
        """Make a cell of ``text``; ``tone`` is ``"good"``, ``"bad"`` or empty."""
        cell = super().__new__(cls, text)
        cell.tone = tone
        return cell


class Page:
    """Collects the parts of a page in reading order; :meth:`render` returns the document.

    Args:
        title: of the document, and its first heading.
        style: further CSS.

    Example:
        >>> page = Page("Runs <today>")
        >>> page.paragraph("a < b")
        >>> "<p>a &lt; b</p>" in page.render() and "<h1>Runs &lt;today&gt;</h1>" in page.render()
        True
    """

    def __init__(self, title: str, *, style: str = "") -> None:
        self._title, self._style = title, style
        self._parts: list[str] = []

    def heading(self, text: str, *, level: int = 2, anchor: str = "") -> None:
        """Add a heading of level 2 or 3, and a name that links can lead to."""
        name = f' id="{escape(anchor)}"' if anchor else ""
        self._parts.append(f"<h{level}{name}>{escape(text)}</h{level}>")

    def html(self, markup: str) -> None:
        """Add markup as it is: whatever text is in it must have been escaped."""
        self._parts.append(markup)

    def paragraph(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        text_columns: int = 1,
        caption: str = "",
    ) -> None:
        """Add a table; the first ``text_columns`` columns stand left, the others right. See :class:`Cell`.

        A line break in a cell is kept.
        """
        classes = ["text" if column < text_columns else "" for column in range(len(header))]
        head = "".join(_cell("th", name, kind) for name, kind in zip(header, classes, strict=True))
        body = "".join(
            f"<tr>{''.join(_cell('td', value, kind) for value, kind in zip(row, classes, strict=True))}</tr>\n"
            for row in rows
        )
        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        self._parts.append(
            f'<div class="scroll" tabindex="0"><table>{title}<thead><tr>{head}</tr></thead>\n'
            f"<tbody>\n{body}</tbody></table></div>"
        )

    def images(self, *images: tuple[bytes, str], side_by_side: bool = False) -> None:
        """Add PNG or JPEG images, each ``(bytes, caption)``; the caption is also the alternative text.

        Args:
            images: in reading order.
            side_by_side: as many in a line as fit, each smaller.
        """
        figures = "".join(_figure(png, caption) for png, caption in images)
        self._parts.append(f'<div class="row">{figures}</div>' if side_by_side else figures)

    def thumbnails(self, images: Sequence[tuple[bytes, str]]) -> None:
        """Add small PNG or JPEG images in even rows, each ``(bytes, text)``; the text is shown as a tooltip."""
        self._parts.append(f'<div class="thumbnails">{"".join(_thumbnail(*image) for image in images)}</div>')

    def bars(self, counts: Mapping[str, int], *, label: str) -> None:
        """Add a bar chart of counts of 0 or more, with numbers and shares, in the order of ``counts``.

        Args:
            counts: by name.
            label: what the chart shows, for those who do not see it.
        """
        total, largest = sum(counts.values()), max(counts.values(), default=0)
        rows = "".join(_bar(place, *item, total, largest) for place, item in enumerate(counts.items()))
        width, height = _NAMES + _BARS + _NUMBERS, _ROW * len(counts)
        self._parts.append(
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{rows}</svg>'
        )

    def render(self) -> str:
        """Return the whole document."""
        title = escape(self._title)
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        body = "\n".join(self._parts)
        return (
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>{_STYLE}{self._style}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
            f"{body}\n</main>\n</body>\n</html>\n"
        )


def _cell(tag: str, text: str, kind: str) -> str:
    tone = text.tone if isinstance(text, Cell) else ""
    names = " ".join(name for name in (kind, tone) if name)
    attribute = f' class="{names}"' if names else ""
    lines = escape(text).replace("\n", "<br>")
    scope = ' scope="col"' if tag == "th" else ""
    return f"<{tag}{scope}{attribute}>{lines}</{tag}>"


def _bar(place: int, name: str, count: int, total: int, largest: int) -> str:
    top, length = place * _ROW, _BARS * count / (largest or 1)
    return (
        f'<text x="{_NAMES - 10}" y="{top + 20}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{_NAMES}" y="{top + 5}" width="{length:.1f}" height="{_ROW - 10}" rx="3"/>'
        f'<text x="{_NAMES + length + 8:.1f}" y="{top + 20}">{count:,} '
        f"<tspan>({count / (total or 1):.1%})</tspan></text>"
    )


def _figure(image: bytes, caption: str) -> str:
    text = escape(caption)
    return f'<figure><img alt="{text}" src="{data_uri(image)}"><figcaption>{text}</figcaption></figure>'


def _thumbnail(image: bytes, text: str) -> str:
    text = escape(text)
    return f'<img alt="{text}" title="{text}" src="{data_uri(image)}">'


def data_uri(image: bytes) -> str:
    """Return a PNG or JPEG as an address that holds it."""
    kind = "jpeg" if image.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"
