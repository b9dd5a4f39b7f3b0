"""Figures of a model's training and evaluation, drawn with matplotlib's Agg canvas and no global state.

Each function returns a ``matplotlib.figure.Figure`` on a light background, which
:func:`affectflow.metrics.drawing.png_bytes` turns into a PNG.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from affectflow.errors import what_got_wanted
from affectflow.metrics.calibration import NUM_BINS, ReliabilityBins
from affectflow.metrics.classification import class_names
from affectflow.metrics.drawing import (
    INK,
    draw_heatmap,
    draw_line,
    label_axes,
    legend_below,
    make_panels,
    set_title,
    shorten,
    whole_epochs,
)
from affectflow.metrics.ranking import Curve

#: A run's history: columns by name (a pandas DataFrame will do), a value an epoch.
History = Mapping[str, Sequence[float]]

#: Told apart by people with the usual colour deficiencies as far as eight colours can be.
PALETTE = ("#767676", "#e69f00", "#0072b2", "#56b4e9", "#cc79a7", "#009e73", "#d55e00", "#5b3a8e")

_RUNS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#767676", "#56b4e9", "#5b3a8e")
_TRAIN, _VAL, _MARK = "#0072b2", "#d55e00", "#444444"


@dataclass(frozen=True)
class Estimate:
    """One line of an interval chart: a name, a value with its bounds, and the published value; shares in [0, 1].

    ``value`` None leaves the line without a point (a failed run).
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    published: float | None


def learning_curves(history: History, *, title: str = "", chosen_epoch: int | None = None) -> Figure:
    """Draw one run's losses (train, val) and its val accuracy and UAR by epoch (the paper's Figure 5).

    Args:
        history: columns ``epoch``, ``train_loss``, ``val_loss``, ``val_accuracy``, ``val_uar``.
        title: above the figure.
        chosen_epoch: the epoch whose checkpoint was kept, marked by a line.

    Raises:
        ValueError: a column is missing.
    """
    epoch = _column(history, "epoch")
    figure, (loss, score) = make_panels(1, 2, width=10, height=4)
    draw_line(loss, epoch, _column(history, "train_loss"), _TRAIN, "train")
    draw_line(loss, epoch, _column(history, "val_loss"), _VAL, "val")
    draw_line(score, epoch, _column(history, "val_accuracy"), "#009e73", "val accuracy")
    draw_line(score, epoch, _column(history, "val_uar"), "#5b3a8e", "val UAR")
    label_axes(loss, "Loss", "epoch", "loss")
    label_axes(score, "Accuracy and UAR", "epoch", "share")
    score.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (loss, score):
        whole_epochs(axes)
        if chosen_epoch is not None:
            axes.axvline(
                chosen_epoch, color=_MARK, linewidth=1, linestyle=":", label=f"kept: epoch {chosen_epoch}"
            )
        axes.legend(frameon=False)
    return set_title(figure, title)


def compared_learning_curves(histories: Mapping[str, History], *, title: str = "") -> Figure:
    """Draw train loss, val loss, val accuracy and val UAR of several runs (the paper's Figure 5, UAR added).

    Args:
        histories: run name → columns as for :func:`learning_curves`; at most 8 can be told apart.
        title: above the figure.

    Raises:
        ValueError: a column is missing.
    """
    figure, panels = make_panels(2, 2, width=10, height=7)
    columns = {
        "train_loss": "Train loss",
        "val_loss": "Validation loss",
        "val_accuracy": "Validation accuracy",
        "val_uar": "Validation UAR",
    }
    for axes, (column, heading) in zip(panels, columns.items(), strict=True):
        for number, (name, history) in enumerate(histories.items()):
            color = _RUNS[number % len(_RUNS)]
            draw_line(axes, _column(history, "epoch"), _column(history, column), color, name)
        label_axes(axes, heading, "epoch", "")
        whole_epochs(axes)
        if column in {"val_accuracy", "val_uar"}:
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend_below(figure, panels[0], columns=3 if max(map(len, histories), default=0) <= 36 else 1)
    return set_title(figure, title)


def confusion_matrix_figure(
    counts: npt.ArrayLike, *, classes: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Draw a confusion matrix as shares of each row, with the counts below them (the paper's Figure 6).

    Args:
        counts: samples by true class (rows) and predicted class (columns).
        classes: names in code order; None takes :func:`affectflow.metrics.class_names`.
        title: above the figure.

    Shape:
        counts (C, C) int. A row of zeros (an absent class) is drawn empty.
    """
    table = np.asarray(counts, dtype=np.int64)
    names = class_names(len(table)) if classes is None else classes
    size = table.sum(axis=1, keepdims=True)
    shares = table / np.maximum(size, 1)
    figure, (axes,) = make_panels(1, 1, width=1.8 + 0.82 * len(names), height=1.4 + 0.68 * len(names))
    texts = [
        [f"{share:.0%}\n{count:,}" if total else "" for share, count in zip(row, numbers, strict=True)]
        for row, numbers, total in zip(shares, table, size[:, 0], strict=True)
    ]
    rows = [f"{name}  ({total:,})" for name, total in zip(names, size[:, 0], strict=True)]
    draw_heatmap(axes, shares, texts, rows, names)
    label_axes(axes, "", "predicted", "truth (samples)")
    axes.grid(visible=False)
    return set_title(figure, title or "Confusion matrix: share of each true class")


def recall_figure(
    recalls: npt.ArrayLike, names: Sequence[str], *, classes: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Draw the recall of each class (columns) for several models (rows).

    Args:
        recalls: recalls in [0, 1]; NaN for a class that the test set lacks.
        names: of the models.
        classes: names in code order; None takes :func:`affectflow.metrics.class_names`.
        title: above the figure.

    Shape:
        recalls (M, C) float; names (M,).
    """
    table = np.asarray(recalls, dtype=np.float64)
    columns = class_names(table.shape[1]) if classes is None else classes
    figure, (axes,) = make_panels(1, 1, width=4.6 + 0.78 * len(columns), height=1.2 + 0.38 * len(names))
    texts = [["" if np.isnan(value) else f"{value:.0%}" for value in row] for row in table]
    draw_heatmap(axes, np.nan_to_num(table), texts, names, columns)
    return set_title(figure, title or "Recall by class")


def roc_figure(curves: Sequence[Curve], *, classes: Sequence[str], title: str = "") -> Figure:
    """Draw the one-vs-rest ROC curves of :func:`affectflow.metrics.roc_curves`, chance dashed."""
    figure, (axes,) = make_panels(1, 1, width=7.6, height=5.2)
    axes.plot([0, 1], [0, 1], color=_MARK, linewidth=1, linestyle="--", label="chance  0.500")
    for curve in curves:
        _class_line(axes, curve, classes)
    _unit_square(axes, title or "ROC, one class against the rest", "false positive rate", "true positive rate")
    return figure


def precision_recall_figure(curves: Sequence[Curve], *, classes: Sequence[str], title: str = "") -> Figure:
    """Draw the curves of :func:`affectflow.metrics.precision_recall_curves` as steps (no interpolation)."""
    figure, (axes,) = make_panels(1, 1, width=7.6, height=5.2)
    for curve in curves:
        _class_line(axes, curve, classes, drawstyle="steps-pre")
    _unit_square(axes, title or "Precision and recall, one class against the rest", "recall", "precision")
    return figure


def reliability_figure(bins: Mapping[str, ReliabilityBins], *, title: str = "") -> Figure:
    """Draw accuracy against confidence by bin, and how many samples each bin holds.

    Args:
        bins: name → bins, e.g. ``{"as trained": …, "T = 1.4": …}`` for the effect of a temperature.
        title: above the figure.
    """
    figure, (axes, below) = make_panels(2, 1, width=6, height=6.4, heights=(3, 1))
    axes.plot([0, 1], [0, 1], color=_MARK, linewidth=1, linestyle="--", label="calibrated")
    middles = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
    for number, (name, part) in enumerate(bins.items()):
        color = (_TRAIN, _VAL, *PALETTE)[number % 10]
        filled = part.count > 0
        error = np.sum(part.count * np.abs(part.accuracy - part.confidence)) / part.count.sum()
        axes.plot(
            part.confidence[filled],
            part.accuracy[filled],
            color=color,
            marker="o",
            markersize=4,
            label=f"{name}: ECE {error:.3f}",
        )
        below.step(middles, part.count / part.count.sum(), where="mid", color=color)
    label_axes(axes, "", "", "accuracy")
    label_axes(below, "", "confidence of the predicted class", "share of samples")
    axes.set_ylim(-0.02, 1.02)
    for panel in (axes, below):
        panel.set_xlim(0, 1)
        panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    below.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="upper left")
    return set_title(figure, title or "Reliability")


def class_distribution_figure(
    counts: Mapping[str, Sequence[int]], *, classes: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Draw how many faces each class has, a panel a split, each with its own scale.

    Args:
        counts: split → count of each class in code order.
        classes: names in code order; None takes :func:`affectflow.metrics.class_names`.
        title: above the figure.
    """
    figure, panels = make_panels(1, len(counts), width=2.6 + 3 * len(counts), height=3.8)
    for axes, (split, numbers) in zip(panels, counts.items(), strict=True):
        names = class_names(len(numbers)) if classes is None else classes
        bars = axes.barh(np.arange(len(names)), numbers, color=_TRAIN, height=0.7)
        axes.bar_label(bars, labels=[f"{number:,}" for number in numbers], padding=3, fontsize=8, color=INK)
        axes.set_yticks(np.arange(len(names)), labels=names if axes is panels[0] else [""] * len(names))
        axes.invert_yaxis()
        axes.margins(x=0.22)
        label_axes(axes, f"{split} ({sum(numbers):,})", "", "")
        axes.grid(visible=False)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
    return set_title(figure, title or "Faces by class")


def interval_figure(estimates: Sequence[Estimate], *, label: str, title: str = "") -> Figure:
    """Draw values with their intervals, one line a model, and the published value beside each.

    Args:
        estimates: top to bottom.
        label: of the axis, e.g. ``"accuracy"``.
        title: above the figure.
    """
    figure, (axes,) = make_panels(1, 1, width=11, height=1.5 + 0.32 * len(estimates))
    for row, estimate in enumerate(estimates):
        if estimate.value is not None:
            if estimate.low is not None and estimate.high is not None:
                axes.plot([estimate.low, estimate.high], [row, row], color=_TRAIN, linewidth=2)
            axes.plot(estimate.value, row, marker="o", markersize=6, color=_TRAIN)
        if estimate.published is not None:
            axes.plot(estimate.published, row, marker="D", markersize=5, color=_VAL, markerfacecolor="white")
    axes.plot([], [], color=_TRAIN, marker="o", label="ours, 95 % interval")
    if any(estimate.published is not None for estimate in estimates):
        axes.plot([], [], color=_VAL, marker="D", markerfacecolor="white", linestyle="", label="published")
    axes.set_yticks(np.arange(len(estimates)), labels=[shorten(estimate.name) for estimate in estimates])
    axes.set_ylim(len(estimates) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    label_axes(axes, "", label, "")
    legend_below(figure, axes, columns=2)
    return set_title(figure, title)


def contact_sheet(
    images: Sequence[npt.NDArray[np.uint8]], captions: Sequence[str], *, columns: int = 6, title: str = ""
) -> Figure:
    """Draw small images in a grid, each with its caption, e.g. the most confident mistakes.

    Args:
        images: RGB pixels, each (H, W, 3) uint8; sizes may differ.
        captions: one an image, two short lines at most.
        columns: images in a row.
        title: above the figure.

    Raises:
        ValueError: no images, or not as many captions.
    """
    if not images or len(images) != len(captions):
        line = what_got_wanted(
            "contact sheet",
            got=f"{len(images)} images and {len(captions)} captions",
            wanted="as many captions as images, at least one",
            do="leave the sheet out when there is nothing to show",
        )
        raise ValueError(line)
    rows = -(-len(images) // columns)
    figure, panels = make_panels(rows, columns, width=1.75 * columns, height=0.5 + 2.15 * rows)
    for number, axes in enumerate(panels):
        axes.set_axis_off()
        if number < len(images):
            axes.imshow(images[number])
            axes.set_title(captions[number], fontsize=9, color=INK)
    return set_title(figure, title)


def _class_line(axes: Axes, curve: Curve, classes: Sequence[str], **style: Any) -> None:
    color = PALETTE[curve.code % len(PALETTE)]
    name = f"{classes[curve.code]}  {curve.area:.3f}"
    axes.plot(curve.x, curve.y, color=color, linewidth=1.6, label=name, **style)


def _unit_square(axes: Axes, title: str, x: str, y: str) -> None:
    label_axes(axes, title, x, y)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    axes.set_aspect("equal")
    axes.legend(
        frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5), title="area under the curve"
    )


def _column(history: History, name: str) -> npt.NDArray[Any]:
    if name not in history:
        columns = ", ".join(str(column) for column in history)
        raise ValueError(
            what_got_wanted(
                "history", got=f"columns {columns}", wanted=f"a column {name}", do="pass history.parquet"
            )
        )
    return np.asarray(history[name], dtype=np.float64)
