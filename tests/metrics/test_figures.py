import io

import numpy as np
import pytest
from metric_cases import CASES, predictions
from PIL import Image

from affectflow.labels import EXPRESSIONS
from affectflow.metrics import (
    apply_temperature,
    confusion_matrix,
    precision_recall_curves,
    reliability_bins,
    roc_curves,
)
from affectflow.metrics import figures as f
from affectflow.metrics.drawing import png_bytes

HISTORY = {
    "epoch": [1, 2, 3],
    "train_loss": [2.0, 1.5, 1.2],
    "val_loss": [2.1, 1.7, np.nan],
    "val_accuracy": [0.2, 0.4, 0.45],
    "val_uar": [0.2, 0.35, 0.4],
}
FIRST_EPOCH = {name: values[:1] for name, values in HISTORY.items()}
TARGET, PROBABILITY = CASES["absent classes"]()
BINS = reliability_bins(TARGET, PROBABILITY)
IMAGE = np.zeros((8, 6, 3), dtype=np.uint8)

FIGURES = {
    "learning curves": lambda: f.learning_curves(HISTORY, title=r"a $\frac$ run with 5 % _and_", chosen_epoch=2),
    "learning curves of one epoch": lambda: f.learning_curves(FIRST_EPOCH),
    "learning curves of several runs": lambda: f.compared_learning_curves({"a": HISTORY, "b" * 90: HISTORY}),
    "confusion matrix": lambda: f.confusion_matrix_figure(confusion_matrix(TARGET, PROBABILITY)),
    "confusion matrix of two classes": lambda: f.confusion_matrix_figure([[3, 1], [0, 0]]),
    "recalls": lambda: f.recall_figure([[0.5, np.nan], [1.0, 0.0]], ["one", "two"]),
    "ROC": lambda: f.roc_figure(roc_curves(TARGET, PROBABILITY), classes=EXPRESSIONS),
    "precision and recall": lambda: f.precision_recall_figure(
        precision_recall_curves(TARGET, PROBABILITY), classes=EXPRESSIONS
    ),
    "reliability": lambda: f.reliability_figure(
        {"as trained": BINS, "T = 2": reliability_bins(TARGET, apply_temperature(PROBABILITY, 2.0))}
    ),
    "class distribution": lambda: f.class_distribution_figure({"train": [5] * 8, "val": [1] * 7 + [0]}),
    "intervals": lambda: f.interval_figure(
        [f.Estimate("a", 0.5, 0.4, 0.6, 0.55), f.Estimate("b", None, None, None, None)], label="UAR"
    ),
    "contact sheet": lambda: f.contact_sheet([IMAGE] * 7, ["truth\nsaid"] * 7),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_a_png_that_is_drawn_on_and_the_same_each_time(name):
    first, second = png_bytes(FIGURES[name]()), png_bytes(FIGURES[name]())
    assert first == second
    pixels = np.asarray(Image.open(io.BytesIO(first)).convert("L"))
    assert pixels[0].min() == 255 and (pixels < 128).mean() > 0.001


def test_figures_leave_no_state_in_pyplot():
    import sys

    import matplotlib

    before = dict(matplotlib.rcParams)
    png_bytes(FIGURES["ROC"]())
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_confusion_matrix_shows_row_shares_with_counts():
    figure = f.confusion_matrix_figure([[3, 1], [0, 0]], classes=["yes", "no"])
    assert texts(figure.axes[0]) == ["75%\n3", "25%\n1", "", ""]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["yes  (4)", "no  (0)"]


def test_learning_curves_show_losses_and_scores_by_epoch():
    figure = f.learning_curves(HISTORY, chosen_epoch=2)
    loss, score = figure.axes
    assert loss.lines[0].get_ydata().tolist() == HISTORY["train_loss"]
    assert score.lines[1].get_ydata().tolist() == HISTORY["val_uar"]
    assert list(loss.lines[2].get_xdata()) == [2, 2]


def test_curves_of_a_class_keep_their_colour_where_others_are_absent():
    curves = roc_curves(TARGET, PROBABILITY)
    lines = f.roc_figure(curves, classes=EXPRESSIONS).axes[0].lines[1:]
    assert [line.get_color() for line in lines] == [f.PALETTE[curve.code] for curve in curves]
    assert lines[3].get_label() == f"fear  {curves[3].area:.3f}"


def test_reliability_leaves_out_empty_bins():
    figure = f.reliability_figure({"as trained": BINS})
    assert len(figure.axes[0].lines[1].get_xdata()) == (BINS.count > 0).sum() < len(BINS.count)


def test_history_without_a_column_is_refused():
    with pytest.raises(ValueError, match="a column val_uar"):
        f.learning_curves({name: values for name, values in HISTORY.items() if name != "val_uar"})


def test_contact_sheet_without_images_is_refused():
    with pytest.raises(ValueError, match="contact sheet"):
        f.contact_sheet([], [])


def test_distribution_and_predictions_of_any_number_of_classes_are_drawn():
    target, probability = predictions(100, classes=12)
    assert png_bytes(f.roc_figure(roc_curves(target, probability), classes=[str(code) for code in range(12)]))
