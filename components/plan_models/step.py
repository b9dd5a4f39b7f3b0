"""Plan models: rows and seeds → checked weights files → one entry a model, with the key that finds it again."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator

from affectflow.artifacts import canonical_digest, write_file
from affectflow.errors import SettingsError, what_got_wanted
from affectflow.progress import say
from affectflow.report.published import PUBLISHED_ROWS, PublishedRow, published_row
from affectflow.steps import StepSettings, check_settings
from affectflow.storage import file_exists
from affectflow.tracked_run import run_note, tracking_uri
from affectflow.tracking import surrounding_run

#: A KFP parameter may not be much longer than 100 kB, and an entry has about 500 bytes.
MOST_MODELS = 200

_SCRATCH = "none"
_PAPER_BACKBONES = sorted({row.backbone for row in PUBLISHED_ROWS.values()})


class Settings(StepSettings):
    """What :func:`run` takes; see ``component.py`` for meanings and defaults."""

    rows: list[int]
    seeds: list[int]
    weights_vggface2: str
    weights_imagenet: str
    backbone_map: dict[str, str]
    backbone_args: str
    learning_rate_scratch: float = Field(gt=0)
    learning_rate_pretrained: float = Field(gt=0)
    batch_size_scratch: int = Field(ge=2)
    batch_size_pretrained: int = Field(ge=2)
    weights_vggface2_digest: str
    weights_imagenet_digest: str
    settings: dict[str, Any]
    images: list[str]

    @field_validator("rows", "seeds", mode="before")
    @classmethod
    def _parse_numbers(cls, value: str) -> list[int]:
        return parse_numbers(value)

    @field_validator("backbone_args")
    @classmethod
    def _is_json(cls, value: str) -> str:
        try:
            if isinstance(json.loads(value or "{}"), dict):
                return value
        except json.JSONDecodeError:
            pass
        raise ValueError('a JSON object such as {"pad_type": "same"}')

    @field_validator("backbone_map", mode="before")
    @classmethod
    def _parse_map(cls, value: str) -> Any:
        wanted = 'a JSON object from a backbone of the paper to a name, such as {"resnet50": "resnet18"}'
        try:
            names = json.loads(value or "{}")
        except json.JSONDecodeError:
            raise ValueError(wanted) from None
        if not isinstance(names, dict) or not all(isinstance(name, str) and name for name in names.values()):
            raise ValueError(wanted)
        if unknown := sorted(set(names) - set(_PAPER_BACKBONES)):
            raise ValueError(f"{' or '.join(_PAPER_BACKBONES)} as what is replaced, not {unknown[0]}")
        return names

    def weights(self, source: str) -> tuple[str, str]:
        """Return the file of a pre-training source and its digest; both empty for training from scratch."""
        if source == _SCRATCH:
            return "", ""
        return getattr(self, f"weights_{source}"), getattr(self, f"weights_{source}_digest")


def run(*, summary: str, **settings: Any) -> list[dict[str, Any]]:
    """Plan the models; see ``component.py`` for what they hold."""
    chosen = check_settings(Settings, **settings)
    if chosen.images and not tracking_uri():
        raise SettingsError(
            what_got_wanted(
                "MLFLOW_TRACKING_URI",
                got="nothing",
                wanted="a server, in which the comparison finds the models",
                do="set it for the steps",
            )
        )
    rows = [published_row(number) for number in chosen.rows]
    _check_weights(chosen, rows)
    if len(rows) * len(chosen.seeds) > MOST_MODELS:
        raise SettingsError(
            what_got_wanted(
                "--rows and --seeds",
                got=f"{len(rows) * len(chosen.seeds)} models",
                wanted=f"{MOST_MODELS} or fewer",
                do="start the pipeline once for each part of the seeds",
            )
        )
    # Seed by seed, so that a run that is stopped early has all rows of its first seeds.
    models = [_plan(chosen, row, seed) for seed in chosen.seeds for row in rows]
    write_file(summary, _table(models) + run_note(surrounding_run()))
    say(f"planned {len(models)} models: {len(rows)} rows of Tables 5 and 6, {len(chosen.seeds)} seeds")
    return models


def parse_numbers(text: str) -> list[int]:
    """Return the numbers of a text such as ``"6-10,20"``, in rising order, each once.

    Raises:
        ValueError: another text, saying what is wanted.
    """
    wanted = "numbers and ranges such as 6-10,20"
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first + last) > 20:
            raise ValueError(wanted)
        start, end = int(first), int(last or first)
        if end < start or end - start >= 1000 or end >= 2**31:
            raise ValueError(f"{wanted}, from the smaller to the larger")
        numbers.update(range(start, end + 1))
    return sorted(numbers)


def _check_weights(chosen: Settings, rows: Sequence[PublishedRow]) -> None:
    for source in sorted({row.pretrained for row in rows} - {_SCRATCH}):
        needy = [row.number for row in rows if row.pretrained == source]
        file, _ = chosen.weights(source)
        if file and file_exists(file):
            continue
        raise SettingsError(
            what_got_wanted(
                f"--weights-{source}",
                got=file or "no file",
                wanted=f"the weights that row{'s' * (len(needy) > 1)} {_numbers(needy)} start from",
                do="pass a file that exists, or leave these rows out with --rows",
            )
        )


def _plan(chosen: Settings, row: PublishedRow, seed: int) -> dict[str, Any]:
    scratch = row.pretrained == _SCRATCH
    weights, digest = chosen.weights(row.pretrained)
    model = {
        "row": row.number,
        "seed": seed,
        "backbone": chosen.backbone_map.get(row.backbone, row.backbone),
        "backbone_args": chosen.backbone_args,
        "pretrained": row.pretrained,
        "weights": weights,
        "weights_digest": digest,
        "loss": row.loss,
        "learning_rate": chosen.learning_rate_scratch if scratch else chosen.learning_rate_pretrained,
        "batch_size": chosen.batch_size_scratch if scratch else chosen.batch_size_pretrained,
    }
    return {**model, "plan_key": canonical_digest([model, chosen.settings, chosen.images])}


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _table(models: Sequence[dict[str, Any]]) -> str:
    columns = ["row", "seed", "backbone", "pretrained", "loss", "learning_rate", "batch_size"]
    lines = [" | ".join(str(model[name]) for name in columns) for model in models]
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    return f"## {len(models)} planned models\n\n{head}" + "".join(f"| {line} |\n" for line in lines)
