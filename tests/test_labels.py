"""Labels map to AffectNet's codes, never to alphabetical order."""

import pytest

from affectflow.errors import DataError
from affectflow.labels import EXPRESSIONS, expression_code


def test_codes_are_affectnets() -> None:
    assert [expression_code(name) for name in EXPRESSIONS] == list(range(8))
    assert expression_code("anger") == 6
    assert expression_code("disgust") == 5


@pytest.mark.parametrize(
    ("label", "code"),
    [("Happiness", 1), (" sadness ", 2), ("ANGRY", 6), ("3", 3), ("3.0", 3), (7, 7), ("no-face", 10), ("NF", 10)],
)
def test_synonyms_and_numbers_are_understood(label: object, code: int) -> None:
    assert expression_code(label) == code


@pytest.mark.parametrize("label", ["", "11", "-1", "2.5", "nan", "smile", "NULL", "1e3"])
def test_other_labels_are_refused_in_one_line(label: str) -> None:
    with pytest.raises(DataError, match="label: got"):
        expression_code(label)
