import base64
import re

from affectflow.html import Cell, Page

PLANTED = "<img src=x onerror=alert(1)> & \"quotes\" 'too'"


def page():
    page = Page(PLANTED)
    page.heading(PLANTED)
    page.paragraph(PLANTED)
    page.table([PLANTED, "n"], [[PLANTED, "1"], [Cell(PLANTED, "good"), "2\n3"]], caption=PLANTED)
    page.images((b"png", PLANTED), (b"other", "second"), side_by_side=True)
    page.thumbnails([(b"\xff\xd8face", PLANTED)])
    page.bars({PLANTED: 3, "none": 0}, label=PLANTED)
    return page.render()


def test_every_text_is_escaped():
    html = page()
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") == 14
    assert "<img src=x" not in html and '"quotes"' not in html


def test_page_has_no_script_and_forbids_loading():
    html = page()
    assert "<script" not in html and "http://" not in html and "https://" not in html
    assert "default-src 'none'; img-src data:" in html


def test_images_are_inline():
    html = page()
    encoded = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', html)
    wanted = [("png", b"png"), ("png", b"other"), ("jpeg", b"\xff\xd8face")]
    assert [(kind, base64.b64decode(text)) for kind, text in encoded] == wanted


def test_cells_keep_their_tone_alignment_and_line_breaks():
    html = page()
    assert '<td class="text good">' in html and "<td>2<br>3</td>" in html


def test_page_follows_light_and_dark():
    assert "prefers-color-scheme: dark" in page() and "color-scheme: light dark" in page()


def test_bars_of_nothing_are_a_chart_too():
    empty = Page("t")
    empty.bars({}, label="l")
    empty.bars({"a": 0}, label="l")
    assert empty.render().count("<svg") == 2 and "0 <tspan>(0.0%)</tspan>" in empty.render()
