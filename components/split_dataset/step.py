"""Draw the training, validation and test sets."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from affectflow.artifacts import new_artifact, write_file
from affectflow.data.faces import Faces
from affectflow.data.figures import markdown_table
from affectflow.data.splits import SPLITS, Policy, write_splits
from affectflow.labels import EXPRESSIONS
from affectflow.progress import say
from affectflow.steps import StepSettings, check_settings
from affectflow.tracked_run import run_note
from affectflow.tracking import surrounding_run


class Settings(StepSettings):
    """What the step can be told; see ``component.py`` for meanings and defaults."""

    policy: Policy
    val_per_class: Annotated[int, Field(ge=1)]
    test_per_class: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]


def run(*, faces: str, splits: str, summary: str, **settings: Any) -> dict[str, Any]:
    """Draw the splits of a dataset and write them; return their header fields."""
    chosen = check_settings(Settings, **settings)
    dataset = Faces.open(faces)
    header: dict[str, Any] = {}
    with new_artifact(splits, "splits", header) as folder:
        header |= write_splits(
            folder,
            dataset,
            policy=chosen.policy,
            val_per_class=chosen.val_per_class,
            test_per_class=chosen.test_per_class,
            seed=chosen.seed,
        )
    text = _summary(header)
    Path(summary).parent.mkdir(parents=True, exist_ok=True)
    write_file(summary, text + run_note(surrounding_run()))
    say(text)
    return header


def _summary(header: dict[str, Any]) -> str:
    counts = header["counts"]
    rows: list[list[object]] = [[name, *(counts[split][name] for split in SPLITS)] for name in EXPRESSIONS]
    rows.append(["total", *(sum(counts[split].values()) for split in SPLITS)])
    text = f"# Splits, policy {header['policy']}, seed {header['seed']}\n\n"
    text += markdown_table(("expression", *SPLITS), rows)
    if header["left_out"]:
        text += f"\n{header['left_out']:,} faces with the content of a test face are left out.\n"
    return text
