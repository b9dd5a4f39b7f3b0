"""The dataset's pages: numbers are there, and nothing from a list becomes markup."""

from html.parser import HTMLParser

from face_trees import encoded, pixels

from affectflow.data.figures import class_distribution_html, contact_sheet_html, markdown_table

EVIL = '"><script>alert(1)</script>'


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_distribution_shows_every_count_with_a_bar_in_proportion() -> None:
    page = class_distribution_html({"happy": 3000, EVIL: 1500, "fear": 0})
    tags = Tags(page).seen
    assert "script" not in {tag for tag, _ in tags}
    widths = [float(attributes["width"] or 0) for tag, attributes in tags if tag == "rect"]
    assert widths[0] == 2 * widths[1] > widths[2] == 0
    for text in ("3,000", "(66.7%)", "4,500 faces"):
        assert text in page


def test_an_empty_distribution_is_a_page_too() -> None:
    assert "0 faces" in class_distribution_html({"happy": 0})


def test_the_contact_sheet_holds_every_image_and_loads_nothing() -> None:
    image = encoded(pixels(0))
    page = contact_sheet_html({"happy": [(image, EVIL), (encoded(pixels(1), "PNG"), "b")], EVIL: []})
    tags = Tags(page).seen
    assert "script" not in {tag for tag, _ in tags}
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert [(attributes["src"] or "")[:16] for attributes in images] == ["data:image/jpeg;", "data:image/png;b"]
    assert images[0]["title"] == EVIL


def test_tables_escape_bars_and_group_numbers() -> None:
    table = markdown_table(("a", "b"), [("x|y", 12345), ("<i>", 0.5)])
    assert table.splitlines()[2:] == ["| x\\|y | 12,345 |", "| &lt;i> | 0.5 |"]
