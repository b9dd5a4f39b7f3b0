"""Every setting's description has its range and its choices: what --help, the reference and the KFP UI show."""

import importlib
from typing import Any, Literal, get_args, get_origin

import pytest

from components.images import TARGETS


def load(step: str) -> tuple[Any, Any]:
    component = getattr(importlib.import_module(f"components.{step}.component"), step)
    job = importlib.import_module(f"components.{step}.step")
    return component.component_spec.inputs, getattr(job, "Settings", None)


def range_in_words(metadata: list[Any]) -> str:
    """Return how a description gives these bounds, or ``""`` where there are none."""
    bounds = {
        name: getattr(part, name) for part in metadata for name in ("ge", "gt", "le", "lt") if hasattr(part, name)
    }
    low, above, high, below = (bounds.get(name) for name in ("ge", "gt", "le", "lt"))
    if low is not None and high is not None:
        return f"{low} to {high}"
    if above is not None:
        return f"above {above}" + (f", up to {high}" if high is not None else "")
    if low is not None:
        return f"{low} or more" + (f", below {below}" if below is not None and below < 2**31 else "")
    return ""


@pytest.mark.parametrize("step", sorted(TARGETS))
def test_descriptions_give_ranges_and_choices(step: str) -> None:
    inputs, settings = load(step)
    for name, field in (settings.model_fields if settings else {}).items():
        if name not in inputs:
            continue
        description = " ".join(inputs[name].description.split())
        assert range_in_words(field.metadata) in description, (name, range_in_words(field.metadata))
        if get_origin(field.annotation) is Literal:
            assert [choice for choice in get_args(field.annotation) if choice not in description] == [], name


def test_a_range_is_put_into_words() -> None:
    from pydantic import Field

    assert range_in_words(Field(ge=1).metadata) == "1 or more"
    assert range_in_words(Field(gt=0, le=1).metadata) == "above 0, up to 1"
    assert range_in_words(Field(ge=0, lt=1).metadata) == "0 or more, below 1"
    assert range_in_words(Field(ge=-1, le=5).metadata) == "-1 to 5"
