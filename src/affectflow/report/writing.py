"""The comparison as files: a page, its tables as Markdown, a table for programs, and the artifact's header."""

import csv
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from affectflow.html import Page
from affectflow.metrics import METRICS, class_names
from affectflow.report.comparison import BaselineComparison, Comparison, ScoredModel, compare
from affectflow.report.published import PUBLISHED_METRICS, PUBLISHED_ROWS
from affectflow.report.runs import ScoredRun
from affectflow.report.sections import Section, Table, build_sections

TITLE = "Comparison of models"

CSV_COLUMNS = (
    "model",
    "number",
    "backbone",
    "pretrained",
    "loss",
    "status",
    "seeds",
    "metric",
    "value",
    "low",
    "high",
    "sd_over_seeds",
    "published",
    "baseline",
    "difference",
    "difference_low",
    "difference_high",
    "p_holm",
    "verdict",
)


def write_comparison(
    folder: str | Path, runs: Sequence[ScoredRun], *, resamples: int = 2000, seed: int = 0, champion: str = ""
) -> dict[str, Any]:
    """Write ``report.html``, ``report.md`` and ``comparison.csv``, and return the fields of ``comparison.json``.

    Made for use inside :func:`affectflow.artifacts.new_artifact` of kind ``comparison``, whose header file is
    ``comparison.json``.

    Args:
        folder: an existing folder.
        runs: the runs to compare, finished or failed; one is enough.
        resamples: bootstrap resamples behind each interval.
        seed: of the bootstrap.
        champion: which model is the registry's champion and why, where that was judged.

    Raises:
        DataError: runs over different test sets, faulty predictions, or a number that is no row.
    """
    comparison = compare(runs, resamples=resamples, seed=seed)
    sections = build_sections(comparison, champion)
    target = Path(folder)
    (target / "report.html").write_text(render_html(sections), encoding="utf-8")
    (target / "report.md").write_text(render_markdown(sections), encoding="utf-8")
    _write_csv(target / "comparison.csv", comparison)
    return {**header_fields(comparison), "champion": champion}


def render_html(sections: Sequence[Section]) -> str:
    """Return the report as one self-contained page."""
    page = Page(TITLE)
    for section in sections:
        page.heading(section.title)
        for paragraph in section.paragraphs:
            page.paragraph(paragraph)
        if section.table is not None:
            page.table(section.table.header, section.table.rows, text_columns=section.table.text_columns)
        if section.images:
            page.images(*section.images, side_by_side=section.side_by_side)
    return page.render()


def render_markdown(sections: Sequence[Section]) -> str:
    """Return the report's text and tables; images are left to the page."""
    lines = [f"# {TITLE}", ""]
    for section in sections:
        if section.table is not None or not section.images:
            lines += [f"## {_markdown(section.title)}", ""]
            for paragraph in section.paragraphs:
                lines += [_markdown(paragraph), ""]
            if section.table is not None:
                lines += [*_markdown_table(section.table), ""]
    return "\n".join(lines)


def header_fields(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON values; shares in [0, 1], null where undefined."""
    test_set = comparison.test_set
    return {
        "test_set": None if test_set is None else {"digest": test_set.digest, "n": len(test_set.target)},
        "resamples": comparison.resamples,
        "seed": comparison.seed,
        "models": [_model_fields(scored) for scored in comparison.models],
        "differences": [_pair_fields(pair) for pair in comparison.baselines],
    }


def _model_fields(scored: ScoredModel) -> dict[str, Any]:
    run = scored.model.first
    recalls = scored.recalls
    row = None if run.number is None else PUBLISHED_ROWS[run.number]
    return {
        "label": scored.model.label,
        "number": run.number,
        "backbone": run.backbone,
        "pretrained": run.pretrained,
        "loss": run.loss,
        "status": "finished" if scored.intervals else "failed",
        "seeds": list(scored.model.finished),
        "failed_seeds": scored.model.failed_seeds,
        "run_ids": [one.run_id for one in scored.model.runs],
        "metrics": {
            name: {**interval, "sd_over_seeds": scored.deviations[name]}
            for name, interval in scored.intervals.items()
        },
        "published": None if row is None else {name: row.value(name) for name in PUBLISHED_METRICS},
        "recall": None
        if recalls is None
        else {
            name: None if np.isnan(recall) else float(recall)
            for name, recall in zip(class_names(len(recalls)), recalls, strict=True)
        },
        "confusion_matrix": None if scored.counts is None else scored.counts.tolist(),
    }


def _pair_fields(pair: BaselineComparison) -> dict[str, Any]:
    return {
        "model": pair.model,
        "baseline": pair.baseline,
        "seeds": list(pair.seeds),
        "metrics": {
            name: {
                **difference.paired,
                "p_holm": difference.p_holm,
                "by_seed": difference.seeds,
                "by_seed_p_holm": difference.seeds_p_holm,
                "verdict": difference.verdict,
            }
            for name, difference in pair.differences.items()
        },
        "mcnemar": [{"seed": seed, **test} for seed, test in pair.mcnemar.items()],
    }


def _write_csv(path: Path, comparison: Comparison) -> None:
    """One line a model and metric, shares in [0, 1]; empty where undefined or not published."""
    pairs = {pair.model: pair for pair in comparison.baselines}
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(CSV_COLUMNS)
        for scored in comparison.models:
            run, pair = scored.model.first, pairs.get(scored.model.label)
            row = None if run.number is None else PUBLISHED_ROWS[run.number]
            for name in METRICS:
                interval = scored.intervals.get(name, {"value": None, "low": None, "high": None})
                change: list[Any] = [None] * 6
                if pair is not None:
                    difference = pair.differences[name]
                    paired = difference.paired
                    change = [pair.baseline, paired["difference"], paired["low"], paired["high"]]
                    change += [difference.p_holm, difference.verdict]
                table.writerow(
                    [
                        scored.model.label,
                        run.number,
                        run.backbone,
                        run.pretrained,
                        run.loss,
                        "finished" if scored.intervals else "failed",
                        len(scored.model.finished),
                        name,
                        *interval.values(),
                        scored.deviations.get(name),
                        None if row is None else row.value(name),
                        *change,
                    ]
                )


def _markdown_table(table: Table) -> list[str]:
    marks = ["---" if column < table.text_columns else "---:" for column in range(len(table.header))]
    rows = [table.header, marks, *table.rows]
    return ["| " + " | ".join(cell if row is marks else _markdown(cell) for cell in row) + " |" for row in rows]


def _markdown(text: str) -> str:
    """Escape what HTML and Markdown would read as markup."""
    plain = html.escape(" ".join(text.split()), quote=False)
    for sign in ("\\", "`", "*", "[", "]", "|"):
        plain = plain.replace(sign, "\\" + sign)
    return plain
