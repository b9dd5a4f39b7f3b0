"""The look of all figures: panels, lines, heatmaps, labels and legends on a light background."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

INK, FAINT = "#222222", "#dddddd"
_DPI = 144


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as PNG; the bytes depend on its content and matplotlib's version alone."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def make_panels(
    rows: int, columns: int, *, width: float, height: float, heights: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``rows`` × ``columns`` panels in the house style, row by row; sizes in inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(width, height), layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    panels = [axes for row in grid for axes in row]
    for axes in panels:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color("#999999")
        axes.grid(color=FAINT, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, labelsize=9, color="#999999")
    return figure, panels


def draw_line(axes: Axes, x: npt.NDArray[Any], y: npt.NDArray[Any], color: str, name: str) -> None:
    """Draw one line of a curve by epoch, with points where there are few."""
    marker = "o" if len(x) <= 40 else ""
    axes.plot(x, y, color=color, linewidth=1.8, marker=marker, markersize=3.5, label=shorten(name))


def whole_epochs(axes: Axes) -> None:
    """Put ticks at whole epochs only, even for one epoch."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    low, high = axes.get_xlim()
    if high - low < 1:
        axes.set_xlim(round(low) - 0.5, round(high) + 0.5)


def draw_heatmap(
    axes: Axes,
    shares: npt.NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
) -> None:
    """Draw shares (R, C) in [0, 1] as shades of blue, with a text in each cell."""
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            color = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color=color)
    axes.set_xticks(np.arange(len(columns)), labels=[shorten(name) for name in columns])
    axes.set_yticks(np.arange(len(rows)), labels=[shorten(name) for name in rows])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def label_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Set a panel's title and the names of its axes."""
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)


def set_title(figure: Figure, title: str) -> Figure:
    """Put a title above the whole figure and return it; no title for an empty one."""
    if title:
        figure.suptitle(plain_text(title), fontsize=12, color=INK, fontweight="bold")
    return figure


def legend_below(figure: Figure, axes: Axes, *, columns: int) -> None:
    """Put the legend of one panel below the whole figure."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def shorten(name: str) -> str:
    """Return a name that fits beside a figure."""
    return plain_text(name if len(name) <= 80 else name[:79] + "…")


def plain_text(text: str) -> str:
    """Keep matplotlib from reading dollar signs as mathematics."""
    return text.replace("$", r"\$")
