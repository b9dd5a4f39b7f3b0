"""docs/method.md names the settings and defaults that the code has."""

import inspect
import re
from pathlib import Path

import pytest

from components.fine_tune.component import fine_tune

PAGE = (Path(__file__).parents[1] / "docs" / "method.md").read_text(encoding="utf-8")
SIGNATURE = inspect.signature(fine_tune.python_func).parameters
IN_TABLES = re.findall(r"^\| `(\w+)` \| (?:`(\w+)`|([\d.]+)) \|", PAGE, flags=re.MULTILINE)
IN_TEXT = re.findall(r"\*\*`(\w+)` = `(\w+)`", PAGE)
DEFAULTS = [(name, word or number) for name, word, number in IN_TABLES] + IN_TEXT


def test_the_defaults_of_the_page_are_found() -> None:
    named = {name for name, _ in DEFAULTS}
    assert {"epochs", "crop_scale_min", "select", "keep_batchnorm", "center_init", "reduction"} <= named


@pytest.mark.parametrize(("name", "default"), DEFAULTS)
def test_a_default_of_the_page_is_the_components(name: str, default: str) -> None:
    assert str(SIGNATURE[name].default) == default


def test_every_file_that_the_page_sends_one_to_exists() -> None:
    files = re.findall(r"pytest (\S+\.py)", PAGE)
    assert files and all((Path(__file__).parents[1] / file).is_file() for file in files)
