"""A model's page: how good it is, where it errs and on which faces, how it came about. One HTML file, no script.

Everything can be reached by keyboard and read by a screen reader: figures have tables beside them, and a cell of
the confusion matrix is a link to the faces behind it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from affectflow.html import Page, data_uri
from affectflow.labels import EXPRESSIONS
from affectflow.metrics import (
    METRICS,
    apply_temperature,
    most_confident_mistakes,
    precision_recall_curves,
    reliability_bins,
    roc_curves,
)
from affectflow.metrics import figures as draw
from affectflow.metrics.drawing import draw_line, label_axes, make_panels, png_bytes, whole_epochs
from affectflow.metrics.figures import PALETTE

#: Faces behind each cell of the confusion matrix, the most confident first.
FACES_A_CELL = 8
MISTAKES_SHOWN = 24

_CHANCE = 1 / len(EXPRESSIONS)

#: Figures of the centers by expression, by their name in the history: heading, and how to read it.
_CENTERS = {
    "center.s_plus_alpha": ("S + α", "what Eq. 4 divides by: the larger, the weaker the pull"),
    "center.center_to_mean": ("center to mean", "distance of a center from its class's mean feature"),
    "center.within": ("within", "mean squared distance of a class's features from their mean"),
    "center.center_moved": ("moved", "how far a center moved in the epoch"),
}

_STYLE = """
.headline { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; }
.card b { display: block; font-size: 2rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.scale { position: relative; height: 10px; margin: .6rem 0 .2rem; background: var(--line); border-radius: 5px; }
.scale i { position: absolute; top: 0; height: 10px; background: var(--bar); border-radius: 5px; min-width: 3px; }
.scale u { position: absolute; top: -4px; height: 18px; width: 2px; background: var(--ink); }
nav a { margin-right: 1rem; white-space: nowrap; display: inline-block; }
a { color: var(--link); }
a:focus-visible, [tabindex]:focus-visible { outline: 3px solid var(--bar); outline-offset: 2px; }
.bar { display: grid; grid-template-columns: 6rem 1fr 11rem; gap: .6rem; align-items: center; margin: .25rem 0;
  max-width: 52rem; }
.bar .track { position: relative; height: 16px; background: var(--line); border-radius: 4px; }
.bar .track i { position: absolute; left: 0; top: 0; bottom: 0; background: var(--bar); border-radius: 4px; }
.bar .track u { position: absolute; top: 6px; height: 4px; background: var(--ink); }
.bar .number { font-variant-numeric: tabular-nums; white-space: nowrap; }
@media (max-width: 40rem) { .bar { grid-template-columns: 5rem 1fr; } .bar .number { grid-column: 1 / -1; } }
table.matrix td { padding: 0; text-align: center; min-width: 3.4rem; }
table.matrix a { display: block; padding: .35rem .3rem; color: inherit; text-decoration: none; }
table.matrix a:hover { text-decoration: underline; }
table.matrix td.right { box-shadow: inset 0 0 0 2px var(--good); }
.cell { display: none; border: 1px solid var(--line); border-radius: 8px; padding: .5rem 1rem 1rem;
  margin: .6rem 0; }
.cell:target, .cell.shown { display: block; }
.faces { display: grid; gap: 8px; grid-template-columns: repeat(auto-fill, 6.5rem); }
.faces figure { margin: 0; } .faces img { width: 6.5rem; height: 6.5rem; object-fit: contain; background: none;
  box-sizing: border-box; } .faces figcaption { font-size: .8rem; line-height: 1.25; }
@media print { .cell { display: block; break-inside: avoid; } nav { display: none; } h2 { break-after: avoid; }
  figure, .card, table { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Scored:
    """A model's test faces and what it said of them.

    Attributes:
        target: true codes (N,).
        probability: (N, C).
        face: position of a test face → its encoded picture, small enough for a page.
        temperature: fitted on validation.
    """

    target: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]
    face: Callable[[int], bytes]
    temperature: float

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The most probable code of each face (N,)."""
        return np.asarray(self.probability.argmax(axis=1))


def model_page(
    title: str,
    scored: Scored,
    scores: Mapping[str, Any],
    *,
    figures: Mapping[str, bytes],
    history: Mapping[str, Sequence[Any]] | None,
    selected_epoch: int,
    settings: Mapping[str, Any],
    provenance: Mapping[str, str],
    lead: str,
) -> str:
    """Return the page as HTML.

    Args:
        title: what the model is called.
        scored: test faces and probabilities.
        scores: the test split's part of ``metrics.json``.
        figures: caption → PNG, of :func:`split_figures`.
        history: columns by epoch; None where there is none.
        selected_epoch: the epoch that was kept.
        settings: of the training.
        provenance: name → digest, version or address.
        lead: a sentence or two above everything.
    """
    page = Page(title, style=_STYLE)
    page.paragraph(lead)
    sections: dict[str, Callable[[], None]] = {
        "Headline": lambda: _headline(page, scores),
        "By expression": lambda: _by_expression(page, scores),
        "Confusion": lambda: _confusion(page, scored, scores),
        "Most confident mistakes": lambda: _mistakes(page, scored),
        "Calibration": lambda: _calibration(page, scored, scores, figures),
        "Curves": lambda: _curves(page, scored, figures),
        "Training": lambda: _training(page, title, history, selected_epoch),
        "Settings": lambda: page.table(["setting", "value"], _pairs(settings), text_columns=2),
        "Provenance": lambda: page.table(["what", "value"], _pairs(provenance), text_columns=2),
    }
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in sections)
    page.html(f'<nav aria-label="Sections">{links}</nav>')
    for name, write in sections.items():
        page.heading(name, anchor=_anchor(name))
        write()
    return page.render()


def split_figures(scored: Scored, confusion_matrix: Sequence[Sequence[int]]) -> dict[str, bytes]:
    """Return the test split's figures, caption → PNG, for the page and for MLflow."""
    target, probability = scored.target, scored.probability
    scaled = apply_temperature(probability, scored.temperature)
    bins = {
        "as trained": reliability_bins(target, probability),
        f"temperature {scored.temperature:.2f}": reliability_bins(target, scaled),
    }
    drawn = {
        "Confusion matrix": draw.confusion_matrix_figure(np.array(confusion_matrix)),
        "ROC curves": draw.roc_figure(roc_curves(target, probability), classes=EXPRESSIONS),
        "Precision-recall curves": draw.precision_recall_figure(
            precision_recall_curves(target, probability), classes=EXPRESSIONS
        ),
        "Calibration": draw.reliability_figure(bins),
    }
    return {caption: png_bytes(figure) for caption, figure in drawn.items()}


def _headline(page: Page, scores: Mapping[str, Any]) -> None:
    cards = "".join(
        _card(label, scores[name], chance)
        for label, name, chance in (
            ("UAR, the mean recall", "uar", _CHANCE),
            ("Accuracy", "accuracy", None),
            ("Cohen's kappa", "cohen_kappa", 0.0),
        )
    )
    page.html(f'<div class="headline">{cards}</div>')
    page.paragraph(
        f"On {scores['n']:,} test faces. Intervals are 95 % bootstrap intervals over groups of equal content: "
        "they hold for other faces like these, not for another seed or another dataset."
    )
    rows = [(name, _number(scores[name]["value"]), _interval(scores[name])) for name in METRICS]
    page.table(["metric", "value", "95 % interval"], rows, caption="All metrics on the test split")


def _card(label: str, entry: Mapping[str, float | None], chance: float | None) -> str:
    value, low, high = entry["value"], entry["low"], entry["high"]
    if value is None:
        return f'<div class="card">{escape(label)}<b>not defined</b></div>'
    left, right = (max(0.0, min(1.0, edge if edge is not None else value)) for edge in (low, high))
    mark = f'<u style="left:{100 * chance:.1f}%"></u>' if chance is not None else ""
    shown = f"; chance is {chance:.3f}" if chance is not None else ""
    return (
        f'<div class="card">{escape(label)}<b>{value:.3f}</b><div class="scale" aria-hidden="true">'
        f'<i style="left:{100 * left:.1f}%;width:{100 * (right - left):.1f}%"></i>{mark}</div>'
        f"{escape(_interval(entry))}{shown}</div>"
    )


def _by_expression(page: Page, scores: Mapping[str, Any]) -> None:
    page.paragraph(
        "Recall: of the faces that show it, the share that is found. The thin line is a 95 % Wilson interval, "
        "which is wide where there are few faces."
    )
    page.html("".join(_recall_bar(name, entry) for name, entry in scores["per_class"].items()))
    rows = [
        (name, f"{entry['support']:,}", *(_number(entry[kind]) for kind in ("recall", "precision", "f1")))
        for name, entry in scores["per_class"].items()
    ]
    page.table(["expression", "faces", "recall", "precision", "F1"], rows, caption="By expression, test split")


def _recall_bar(name: str, entry: Mapping[str, Any]) -> str:
    from scipy.stats import binomtest

    recall, faces = entry["recall"], entry["support"]
    if recall is None or not faces:
        return (
            f'<div class="bar"><span>{escape(name)}</span><span class="track"></span>'
            '<span class="number">no face</span></div>'
        )
    edge = binomtest(round(recall * faces), faces).proportion_ci(method="wilson")
    low, high = float(edge.low), float(edge.high)
    return (
        f'<div class="bar"><span>{escape(name)}</span><span class="track" aria-hidden="true">'
        f'<i style="width:{100 * recall:.1f}%"></i>'
        f'<u style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></u></span>'
        f'<span class="number">{recall:.0%} ({low:.0%} to {high:.0%})</span></div>'
    )


def _confusion(page: Page, scored: Scored, scores: Mapping[str, Any]) -> None:
    counts = np.array(scores["confusion_matrix"])
    page.paragraph(
        "Rows are what the faces show, columns what the model said; a share is of its row. Follow a number to the "
        f"faces behind it, the {FACES_A_CELL} most confident of them. Outlined cells are right."
    )
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in EXPRESSIONS)
    rows = "".join(
        f'<tr><th scope="row" class="text">{escape(name)} ({total:,})</th>'
        + "".join(_matrix_cell(truth, said, int(counts[truth, said]), total) for said in range(len(EXPRESSIONS)))
        + "</tr>\n"
        for truth, (name, total) in enumerate(zip(EXPRESSIONS, counts.sum(axis=1).tolist(), strict=True))
    )
    page.html(
        f'<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix"><table class="matrix">'
        f"<caption>Test faces by what they show (rows) and what was said (columns)</caption>"
        f'<thead><tr><th scope="col" class="text">shows \\ said</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    page.html(
        "".join(
            _cell_faces(scored, truth, said)
            for truth in range(len(EXPRESSIONS))
            for said in range(len(EXPRESSIONS))
            if counts[truth, said]
        )
    )


def _matrix_cell(truth: int, said: int, count: int, total: int) -> str:
    kind = ' class="right"' if truth == said else ""
    if not count:
        return f"<td{kind}>0</td>"
    share = count / total
    # The tint stays weak enough for the text to be read on it, in light and dark.
    tint = f"background:color-mix(in srgb, var(--bar) {round(45 * share)}%, transparent)"
    label = f"{count:,} faces of {EXPRESSIONS[truth]} said to be {EXPRESSIONS[said]}: {share:.0%}, show them"
    return (
        f'<td{kind} style="{tint}"><a href="#cell-{truth}-{said}" aria-label="{escape(label)}">'
        f"{share:.0%}<br>{count:,}</a></td>"
    )


def _cell_faces(scored: Scored, truth: int, said: int) -> str:
    within = np.flatnonzero((scored.target == truth) & (scored.predicted == said))
    confidence = scored.probability[within, said]
    chosen = within[np.argsort(-confidence, kind="stable")][:FACES_A_CELL]
    heading = f"{EXPRESSIONS[truth]} said to be {EXPRESSIONS[said]}: {len(chosen)} of {len(within):,}"
    faces = "".join(_face(scored, int(i), f"{scored.probability[i, said]:.0%} sure") for i in chosen)
    return (
        f'<section class="cell" id="cell-{truth}-{said}" tabindex="-1" aria-label="{escape(heading)}">'
        f'<h3>{escape(heading)}</h3><div class="faces">{faces}</div>'
        f'<p><a href="#confusion">Back to the matrix</a></p></section>'
    )


def _face(scored: Scored, position: int, text: str) -> str:
    shows, said = EXPRESSIONS[scored.target[position]], EXPRESSIONS[scored.predicted[position]]
    alternative = f"a face labelled {shows}, said to be {said}"
    return (
        f'<figure><img alt="{escape(alternative)}" src="{data_uri(scored.face(position))}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


def _mistakes(page: Page, scored: Scored) -> None:
    mistakes = most_confident_mistakes(scored.target, scored.probability, MISTAKES_SHOWN)
    if not len(mistakes):
        page.paragraph("None: every test face is said to be what it shows.")
        return
    page.paragraph("Look here first: some are wrong labels, some are two expressions at once, some are no faces.")
    faces = "".join(
        _face(
            scored,
            int(i),
            f"{EXPRESSIONS[scored.target[i]]}, said {EXPRESSIONS[scored.predicted[i]]} "
            f"{scored.probability[i].max():.0%}",
        )
        for i in mistakes
    )
    page.html(f'<div class="faces">{faces}</div>')


def _calibration(page: Page, scored: Scored, scores: Mapping[str, Any], figures: Mapping[str, bytes]) -> None:
    page.paragraph(
        "When the model is 80 % sure, it should be right 80 times of 100. A temperature of "
        f"{scored.temperature:.2f}, fitted on validation, makes it surer or less sure without changing what it "
        "says."
    )
    rows = [
        (name, _number(scores[name]["value"]), _interval(scores[name]), _number(entry["value"]), _interval(entry))
        for name, entry in scores["temperature_scaled"].items()
    ]
    page.table(["metric", "as trained", "95 % interval", "with temperature", "95 % interval"], rows)
    caption = "Accuracy against confidence, and how many faces have each confidence"
    page.images((figures["Calibration"], caption), side_by_side=True)


def _curves(page: Page, scored: Scored, figures: Mapping[str, bytes]) -> None:
    roc = {curve.code: curve.area for curve in roc_curves(scored.target, scored.probability)}
    ranked = {curve.code: curve.area for curve in precision_recall_curves(scored.target, scored.probability)}
    rows = [(name, _number(roc.get(code)), _number(ranked.get(code))) for code, name in enumerate(EXPRESSIONS)]
    page.table(["expression", "area under ROC", "average precision"], rows, caption="One class against the rest")
    page.images(
        (figures["ROC curves"], "ROC curves, one class against the rest; their areas are in the table above"),
        (figures["Precision-recall curves"], "Precision against recall, one class against the rest"),
        side_by_side=True,
    )


def _training(page: Page, title: str, history: Mapping[str, Sequence[Any]] | None, selected_epoch: int) -> None:
    if history is None:
        page.paragraph("The history was not passed on: give --history to see the epochs and the centers.")
        return
    curves = png_bytes(draw.learning_curves(history, title=title, chosen_epoch=selected_epoch))
    page.images((curves, f"Loss, accuracy and UAR by epoch; epoch {selected_epoch} was kept"))
    page.heading("What the centers did", level=3)
    states = list(history["cluster_state"])
    if not any(name.startswith("center.center_moved") for name in history):
        page.paragraph("This loss has no centers.")
        return
    counted = ", ".join(f"{state} in {states.count(state)}" for state in dict.fromkeys(states))
    page.paragraph(
        f"State of the auxiliary term over {len(states)} epochs: {counted}. 'off' means that the centers are so "
        "far apart that the term pulls next to nothing; 'collapsed' that all features are nearly the same."
    )
    page.images((_centers_figure(history), "Figures of the centers by epoch, a line an expression"))
    known = [prefix for prefix in _CENTERS if f"{prefix}.{EXPRESSIONS[0]}" in history]
    rows = [(name, *(_number(history[f"{prefix}.{name}"][-1]) for prefix in known)) for name in EXPRESSIONS]
    heads = [_CENTERS[prefix][0] for prefix in known]
    page.table(["expression", *heads], rows, caption="After the last epoch")
    for prefix in known:
        page.paragraph(": ".join(_CENTERS[prefix]) + ".")


def _centers_figure(history: Mapping[str, Sequence[Any]]) -> bytes:
    figure, panels = make_panels(2, 2, width=10, height=7)
    epoch = np.asarray(history["epoch"])
    for axes, (prefix, (heading, _)) in zip(panels, _CENTERS.items(), strict=True):
        for code, name in enumerate(EXPRESSIONS):
            if (column := f"{prefix}.{name}") in history:
                draw_line(axes, epoch, np.asarray(history[column], dtype=float), PALETTE[code], name)
        label_axes(axes, heading, "epoch", "")
        whole_epochs(axes)
    panels[0].legend(fontsize=8, frameon=False, ncols=2)
    return png_bytes(figure)


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in values.items()]


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:,.4f}"


def _interval(entry: Mapping[str, float | None]) -> str:
    low, high = entry["low"], entry["high"]
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
