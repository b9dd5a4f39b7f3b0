import csv
import json
from html.parser import HTMLParser

import pytest
from comparison_runs import DIGEST, failed, finished

from affectflow.artifacts import new_artifact, open_artifact
from affectflow.metrics import METRICS
from affectflow.report import write_comparison

PLANTED = "<script>alert('x')</script>|[a](javascript:b)\n**bold**"


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """The files of a comparison with all kinds of runs."""
    runs = [
        finished(6, skill=0.8, name=PLANTED, run_id=PLANTED),
        finished(6, skill=0.8, seed=1),
        finished(8, skill=1.6),
        finished(8, skill=1.6, seed=1),
        finished(10, skill=1.6, backbone="mobilenetv1_100"),
        failed(9),
        finished(None, loss=PLANTED, history=None),
    ]
    return write(tmp_path_factory.mktemp("several"), runs)


def write(folder, runs):
    header = {}
    with new_artifact(folder / "comparison", "comparison", header) as temporary:
        header |= write_comparison(temporary, runs, resamples=100)
    return folder / "comparison"


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.text = set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [value for name, value in attributes if name in {"src", "href", "action", "data"}]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data + " "


def rows_of(folder):
    return list(csv.DictReader((folder / "comparison.csv").open(encoding="utf-8")))


def test_comparison_is_a_whole_artifact(several):
    header = open_artifact(several, "comparison")
    assert set(header["files"]) == {"report.html", "report.md", "comparison.csv"}
    assert header["test_set"] == {"digest": DIGEST, "n": 320}


def test_page_loads_nothing_and_runs_nothing(several):
    page = Tags((several / "report.html").read_text(encoding="utf-8"))
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "form", "a"}
    assert page.sources and all(source.startswith("data:image/png;base64,") for source in page.sources)


def test_markup_planted_in_names_is_shown_as_text(several):
    html = (several / "report.html").read_text(encoding="utf-8")
    markdown = (several / "report.md").read_text(encoding="utf-8")
    assert "<script" not in html and "<script" not in markdown
    assert "<script>alert('x')</script>" in Tags(html).text
    assert r"\[a\](javascript:b) \*\*bold\*\*" in markdown


def test_markdown_tables_keep_their_columns_whatever_the_names(several):
    lines = (several / "report.md").read_text(encoding="utf-8").splitlines()
    tables = [line.replace(r"\|", "") for line in lines if line.startswith("|")]
    widths = [line.count("|") for line in tables]
    starts = [row for row, line in enumerate(tables) if line.startswith("| ---")]
    assert len(starts) == 7
    for start, end in zip(starts, [*[row - 1 for row in starts[1:]], len(tables)], strict=True):
        assert len(set(widths[start - 1 : end])) == 1


def test_report_says_what_is_better_what_is_noise_and_what_failed(several):
    text = Tags((several / "report.html").read_text(encoding="utf-8")).text
    assert "8 · se_resnet50 · vggface2 · weighted_softmax against softmax: UAR +" in text
    assert "points, better" in text and "over 2 seeds, in pairs" in text
    assert "Not the published model: mobilenetv1_100 for se_resnet50 in row 10." in text
    assert "Failed in part or whole: 9 · se_resnet50 · vggface2 · center+weighted_softmax." in text


def test_report_words_a_difference_within_noise(tmp_path):
    folder = write(tmp_path, [finished(6, skill=1.0), finished(8, skill=1.0)])
    assert "points, within noise" in (folder / "report.md").read_text(encoding="utf-8")
    [noise] = [row for row in rows_of(folder) if row["number"] == "8" and row["metric"] == "uar"]
    assert noise["verdict"] == "within noise"
    assert float(noise["difference_low"]) <= 0 <= float(noise["difference_high"])


def test_report_shows_ours_beside_the_published_figures(several):
    lines = (several / "report.md").read_text(encoding="utf-8").splitlines()
    ours = next(row for row, line in enumerate(lines) if line.startswith("| 8 |"))
    assert "mean of 2 seeds" in lines[ours] and "±" in lines[ours]
    assert "| published | 59.72 | 59.72 | 53.97 | 53.93 | 66.47 | 91.85 | – |" in lines[ours + 1]


def test_report_shows_what_the_centers_did(several):
    text = Tags((several / "report.html").read_text(encoding="utf-8")).text
    assert "What the centers did" in text and "active" in text and "3 to 6" in text


def test_csv_has_a_line_for_each_model_and_metric(several):
    rows = rows_of(several)
    assert len(rows) == 5 * len(METRICS)
    [row] = [row for row in rows if row["number"] == "8" and row["metric"] == "accuracy"]
    assert float(row["published"]) == pytest.approx(0.5972) and row["seeds"] == "2"
    assert float(row["low"]) < float(row["value"]) < float(row["high"])
    assert [row["value"] for row in rows if row["status"] == "failed"] == [""] * len(METRICS)


def test_json_says_the_same_as_the_csv(several):
    header = json.loads((several / "comparison.json").read_text(encoding="utf-8"))
    model = next(model for model in header["models"] if model["number"] == 8)
    [row] = [row for row in rows_of(several) if row["number"] == "8" and row["metric"] == "uar"]
    assert model["metrics"]["uar"]["value"] == float(row["value"])
    [pair] = [pair for pair in header["differences"] if pair["model"] == model["label"]]
    assert pair["metrics"]["uar"]["difference"] == float(row["difference"])
    assert [test["seed"] for test in pair["mcnemar"]] == [0, 1]
    assert {model["status"] for model in header["models"]} == {"finished", "failed"}


def test_one_run_makes_a_report_without_tests(tmp_path):
    folder = write(tmp_path, [finished(10)])
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert "there is no difference to test" in markdown and "Differences to the baseline" not in markdown
    assert "| published | 60.70 |" in markdown


def test_all_failed_makes_a_report_that_says_so(tmp_path):
    folder = write(tmp_path, [failed(9)])
    assert "Every run failed" in (folder / "report.md").read_text(encoding="utf-8")
    assert "<img" not in (folder / "report.html").read_text(encoding="utf-8")
    assert open_artifact(folder, "comparison")["test_set"] is None


def test_same_runs_write_the_same_bytes(tmp_path):
    first, second = (write(tmp_path / name, [finished(6), finished(8)]) for name in "ab")
    for name in ("report.html", "report.md", "comparison.csv", "comparison.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
