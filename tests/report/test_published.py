import pytest

from affectflow.errors import DataError
from affectflow.report import LOSSES, PUBLISHED_ROWS, published_row
from affectflow.report.published import PUBLISHED_METRICS


def test_there_are_twenty_rows_numbered_as_in_the_paper():
    assert list(PUBLISHED_ROWS) == list(range(1, 21))
    assert [PUBLISHED_ROWS[number].table for number in (1, 10, 11, 20)] == [5, 5, 6, 6]
    assert all(PUBLISHED_ROWS[number].loss == LOSSES[(number - 1) % 5] for number in PUBLISHED_ROWS)


@pytest.mark.parametrize("number", PUBLISHED_ROWS)
def test_published_kappa_follows_from_accuracy_on_a_balanced_set(number):
    percent = published_row(number).percent
    assert percent["cohen_kappa"] == pytest.approx(
        (percent["accuracy"] - 12.5) / 0.875, abs=0.011
    )  # both are rounded


@pytest.mark.parametrize("number", PUBLISHED_ROWS)
def test_published_figures_stand_in_the_columns_they_can_be_in(number):
    row = published_row(number)
    assert tuple(row.percent) == PUBLISHED_METRICS
    assert row.percent["f1_macro"] <= row.percent["accuracy"] + 0.2
    assert row.percent["krippendorff_alpha"] <= row.percent["cohen_kappa"]
    assert row.percent["cohen_kappa"] < row.percent["average_precision"] < row.percent["roc_auc"] < 92


def test_rows_quoted_in_the_papers_text_are_right():
    assert published_row(10).percent["accuracy"] == 60.70 and published_row(8).percent["accuracy"] == 59.72
    assert published_row(7).percent["accuracy"] == 46.07 + 1.01 and published_row(20).percent["accuracy"] == 59.45
    assert published_row(8).percent["roc_auc"] == max(row.percent["roc_auc"] for row in PUBLISHED_ROWS.values())


def test_recipe_is_that_of_section_4_3():
    scratch, tuned = published_row(5), published_row(10)
    assert (scratch.learning_rate, scratch.batch_size, scratch.frozen_stages) == (0.01, 30, 0)
    assert (tuned.learning_rate, tuned.batch_size, tuned.frozen_stages) == (0.001, 36, 3)
    assert (scratch.pretrained, tuned.pretrained, published_row(20).pretrained) == ("none", "vggface2", "imagenet")
    assert [published_row(number).auxiliary_lambda for number in range(6, 11)] == [None, 0.5, None, 0.5, 1.0]


def test_values_are_shares_and_none_for_what_was_not_published():
    assert published_row(10).value("accuracy") == pytest.approx(0.607)
    assert published_row(10).value("uar") is None


def test_unknown_row_is_refused():
    with pytest.raises(DataError, match="got 21, wanted 1 to 20"):
        published_row(21)
