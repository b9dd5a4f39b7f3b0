"""Weigh the classes by their rarity in the training split."""

from pathlib import Path
from typing import Any

from affectflow.artifacts import new_artifact, write_file
from affectflow.data.class_weights import class_weights_fields
from affectflow.data.figures import markdown_table
from affectflow.data.splits import read_splits
from affectflow.labels import EXPRESSIONS
from affectflow.progress import say
from affectflow.tracked_run import run_note
from affectflow.tracking import surrounding_run


def run(*, splits: str, class_weights: str, summary: str) -> dict[str, Any]:
    """Compute Eq. 6's weights from the splits' training counts and write them; return their header fields."""
    table, _ = read_splits(splits)
    training = table.loc[table["split"] == "train", "expression"].value_counts()
    counts = {name: int(training.get(code, 0)) for code, name in enumerate(EXPRESSIONS)}
    header = class_weights_fields(counts)
    with new_artifact(class_weights, "class_weights", header):
        pass  # the header is the whole artifact
    text = _summary(header)
    Path(summary).parent.mkdir(parents=True, exist_ok=True)
    write_file(summary, text + run_note(surrounding_run()))
    say(text)
    return header


def _summary(header: dict[str, Any]) -> str:
    rows = [
        (name, count, f"{weight:.4f}")
        for name, count, weight in zip(header["classes"], header["counts"], header["weights"], strict=True)
    ]
    return f"# Class weights, W = {header['formula']}\n\n" + markdown_table(
        ("expression", "training faces", "weight"), rows
    )
