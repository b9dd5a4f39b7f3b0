"""Pages and tables that show a dataset: faces by class, and a few faces of every class."""

from collections.abc import Mapping, Sequence

from affectflow.html import Page


def class_distribution_html(counts: Mapping[str, int], *, title: str = "Faces by expression") -> str:
    """Return a page with a bar chart of faces by class, with numbers and shares (the paper's Figure 3).

    Args:
        counts: faces by class name, in the order in which they are shown.
        title: of the page.
    """
    page = Page(title)
    page.bars(counts, label=title)
    page.paragraph(f"{sum(counts.values()):,} faces")
    return page.render()


def contact_sheet_html(
    faces: Mapping[str, Sequence[tuple[bytes, str]]], *, title: str = "Faces of every expression"
) -> str:
    """Return a page with some faces of every class.

    Args:
        faces: by class name, pairs of an encoded face (JPEG or PNG) and what its tooltip says.
        title: of the page.
    """
    page = Page(title)
    for name, images in faces.items():
        page.heading(name)
        if images:
            page.thumbnails(images)
        else:
            page.paragraph("none")
    return page.render()


def quarantine_html(reasons: Mapping[str, Sequence[tuple[bytes | None, str]]], counts: Mapping[str, int]) -> str:
    """Return a page with what was set aside, by reason: what can be seen of it, and where it is listed.

    Args:
        reasons: by reason, for some of its faces, the picture (JPEG or PNG; ``None`` where there is none to see)
            and what it is.
        counts: by reason, all of its faces.
    """
    page = Page("Quarantine")
    if not counts:
        page.paragraph("Nothing was set aside.")
    for reason, shown in reasons.items():
        page.heading(f"{reason}: {counts[reason]:,}")
        pictures = [(picture, text) for picture, text in shown if picture is not None]
        if pictures:
            page.thumbnails(pictures)
        page.table(("picture", "list, row and detail"), [text.split("\n", 1) for _, text in shown], text_columns=2)
    return page.render()


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; numbers are grouped by thousands and bars in text are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
