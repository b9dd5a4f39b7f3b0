"""Compare models: runs → their predictions and metrics → report."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from affectflow.artifacts import artifact_digest, new_artifact, open_artifact
from affectflow.errors import SettingsError, what_got_wanted
from affectflow.progress import say, warn
from affectflow.report.runs import FAILED, FINISHED, ScoredRun
from affectflow.report.writing import write_comparison
from affectflow.steps import StepSettings, check_settings
from affectflow.tracking import download_artifacts, step_run


class Settings(StepSettings):
    """What :func:`run` takes; see ``component.py`` for meanings and defaults."""

    runs: list[str] = Field(min_length=1)
    resamples: int = Field(ge=100, le=100_000)
    seed: int = Field(ge=0, lt=2**31)
    metrics_digests: list[str]

    @field_validator("runs")
    @classmethod
    def _all_named(cls, value: list[str]) -> list[str]:
        if not all(value):
            raise ValueError("ids of MLflow runs, or folders of evaluate, none empty")
        return value


def run(*, comparison: str, report: str, summary: str, **settings: Any) -> None:
    """Compare runs and write the report; see ``component.py`` for what each path holds."""
    chosen = check_settings(Settings, **settings)
    digests = chosen.metrics_digests or [""] * len(chosen.runs)
    if len(digests) != len(chosen.runs):
        raise SettingsError(
            what_got_wanted(
                "--metrics-digests",
                got=f"{len(digests)}",
                wanted=f"{len(chosen.runs)}, one a run",
                do="leave them out",
            )
        )
    scored = [read_run(name, digest) for name, digest in zip(chosen.runs, digests, strict=True)]
    header: dict[str, Any] = {}
    with new_artifact(comparison, "comparison", header) as folder:
        header |= write_comparison(folder, scored, resamples=chosen.resamples, seed=chosen.seed)
    shutil.copyfile(Path(comparison) / "report.html", report)
    shutil.copyfile(Path(comparison) / "report.md", summary)
    with step_run("compare_runs") as tracked:
        tracked.log_folder(comparison, folder="comparison")
    say(f"compared {len(scored)} run{'s' if len(scored) > 1 else ''}: {Path(comparison) / 'report.html'}")


def read_run(name: str, metrics_digest: str = "") -> ScoredRun:
    """Return one model as it was scored.

    Args:
        name: the id of an MLflow run, or the output folder of ``evaluate`` (or the ``metrics/`` in it).
        metrics_digest: what its metrics had when they were written; empty where that is not known.
    """
    folder = Path(name)
    if folder.is_dir():
        evaluation = folder.parent if folder.name == "metrics" else folder
        return _read_folders(evaluation, None, name, metrics_digest)
    with tempfile.TemporaryDirectory() as temporary:
        downloaded = Path(temporary)
        tags, status = download_artifacts(name, downloaded)
        if not (downloaded / "evaluation").is_dir() and status in {"FAILED", "KILLED"}:
            return ScoredRun(
                name=tags.get("mlflow.runName", name),
                number=int(tags.get("row") or 0) or None,
                backbone=tags.get("backbone", "unknown"),
                pretrained=tags.get("pretrained", "unknown"),
                loss=tags.get("loss", "unknown"),
                seed=int(tags.get("seed", 0)),
                status=FAILED,
                run_id=name,
            )
        history = downloaded / "training" / "history"
        return _read_folders(downloaded / "evaluation", history, name, metrics_digest)


def _read_folders(evaluation: Path, history: Path | None, name: str, metrics_digest: str) -> ScoredRun:
    metrics = open_artifact(evaluation / "metrics", "metrics")
    if metrics_digest not in ("", artifact_digest(metrics)):
        warn(f"run {name} has been evaluated again with other settings since; its newest metrics are compared")
    open_artifact(evaluation / "predictions", "predictions")
    test = pq.read_table(
        evaluation / "predictions" / "predictions.parquet", filters=[("split", "=", "test")]
    ).to_pandas()
    model = metrics["model"]
    return ScoredRun(
        name=name,
        number=model["row"] or None,
        backbone=model["backbone"],
        pretrained=model["pretrained"],
        loss=model["loss"],
        seed=model["seed"],
        status=FINISHED,
        settings=model["settings"],
        target=test["target"].to_numpy(np.int64),
        probability=np.stack(test["probability"].to_list()),
        image_ids=test["image_id"].tolist(),
        groups=test["group"].to_numpy(object),
        metrics=metrics["test"],
        history=_read_history(history),
        test_set_digest=metrics["test_set_digest"],
        run_id="" if Path(name).is_dir() else name,
    )


def _read_history(folder: Path | None) -> dict[str, list[float]] | None:
    if folder is None or not folder.is_dir():
        return None
    open_artifact(folder, "history")
    columns: dict[str, list[float]] = pq.read_table(folder / "history.parquet").to_pydict()
    return columns
