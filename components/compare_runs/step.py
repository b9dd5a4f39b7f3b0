"""Compare models: runs or a plan → their predictions and metrics → report, champion."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from affectflow.artifacts import new_artifact, open_artifact, samples_digest, write_file
from affectflow.errors import AffectflowError, DataError, SettingsError, what_got_wanted
from affectflow.headers import MetricsHeader, check_header
from affectflow.predictions import read_test_predictions
from affectflow.progress import progress, say, warn
from affectflow.report.champion import Decision, choose_candidate, decide
from affectflow.report.runs import FAILED, FINISHED, ScoredRun
from affectflow.report.writing import write_comparison
from affectflow.steps import StepSettings, check_settings
from affectflow.tables import read_table
from affectflow.tracked_models import (
    current_champion,
    download_model,
    find_failed,
    find_planned,
    register_champion,
)
from affectflow.tracked_run import run_note
from affectflow.tracking import step_run


class Settings(StepSettings):
    """What :func:`run` takes; see ``component.py`` for meanings and defaults."""

    runs: list[str]
    plan: list[dict[str, Any]]
    resamples: int = Field(ge=100, le=100_000)
    seed: int = Field(ge=0, lt=2**31)
    registered_model: str = Field(pattern="^[A-Za-z0-9 _.-]*$")
    champion_metric: str

    @field_validator("runs")
    @classmethod
    def _all_named(cls, value: list[str]) -> list[str]:
        if not all(value):
            raise ValueError("ids of MLflow runs, or folders of evaluate, none empty")
        return value


def run(*, comparison: str, report: str, summary: str, **settings: Any) -> str:
    """Compare runs and write the report; see ``component.py`` for what each path holds. Returns its folder."""
    chosen = check_settings(Settings, **settings)
    if not chosen.runs and not chosen.plan:
        raise SettingsError(
            what_got_wanted("--runs", got="none", wanted="one or more", do="name runs, or folders of evaluate")
        )
    scored = [
        read_run(source) if isinstance(source, str) else read_planned(source)
        for source in progress(
            [*chosen.runs, *chosen.plan], total=len(chosen.runs) + len(chosen.plan), desc="reading", unit="runs"
        )
    ]
    candidate, decision = _judge_champion(chosen, scored)

    header: dict[str, Any] = {}
    with new_artifact(comparison, "comparison", header) as folder:
        header |= write_comparison(
            folder,
            scored,
            resamples=chosen.resamples,
            seed=chosen.seed,
            champion=decision.words if decision else "",
        )
    write_file(report, (Path(comparison) / "report.html").read_bytes())
    if candidate and decision and decision.promote:
        _promote(chosen, candidate, decision)
    with step_run("compare_runs", str(Path(comparison).absolute().parent)) as tracked:
        tracked.log_folder(comparison, folder="comparison")
        text = (Path(comparison) / "report.md").read_text(encoding="utf-8")
        write_file(summary, text + run_note(tracked))

    for one in scored:
        if one.status == FAILED:
            say(f"failed: {one.name}{': ' if one.reason else ''}{one.reason}")
    if decision:
        say(f"champion: {decision.words}")
    say(f"compared {len(scored)} run{'s' if len(scored) > 1 else ''}: {Path(comparison) / 'report.html'}")
    return comparison


def read_run(name: str) -> ScoredRun:
    """Return one model as it was scored.

    Args:
        name: the id of an MLflow run, the address of an evaluation (``runs:/ID/evaluation/KEY``), or the output
            folder of ``evaluate`` (or the ``metrics/`` in it).

    Raises:
        AffectflowError: there is nothing of that name, or nothing that can be compared.
    """
    folder = Path(name)
    if folder.is_dir():
        evaluation = folder.parent if folder.name == "metrics" else folder
        return _read_evaluation(evaluation, None, reference=name)
    with tempfile.TemporaryDirectory() as temporary:
        model = download_model(name, Path(temporary))
        if model.evaluation:
            return _read_evaluation(
                model.evaluation,
                model.history,
                reference=model.reference,
                name=model.name,
                run_id=model.run_id,
            )
        tags = model.tags
        if model.status not in {"FAILED", "KILLED"} or "loss" not in tags:
            raise DataError(
                what_got_wanted(
                    f"run {name}",
                    got=f"{model.name!r}, {model.status.lower()}, without an evaluation",
                    wanted="a model that evaluate scored, or that failed",
                    do="evaluate its model, or leave it out",
                )
            )
        return ScoredRun(
            name=model.name,
            number=int(tags.get("row") or 0) or None,
            backbone=tags.get("backbone", "unknown"),
            pretrained=tags.get("pretrained", "unknown"),
            loss=tags["loss"],
            seed=int(tags.get("seed", 0)),
            status=FAILED,
            run_id=model.run_id,
            reason=tags.get("error", ""),
        )


def read_planned(model: dict[str, Any]) -> ScoredRun:
    """Return a model that ``plan_models`` planned: as it was scored, or as failed where there is no evaluation."""
    if found := find_planned(model["plan_key"]):
        return read_run(found)
    number, seed = int(model["row"]), int(model["seed"])
    named = {name: str(model[name]) for name in ("backbone", "pretrained", "loss")}
    run_id, error = find_failed({"row": str(number), "seed": str(seed), **named})
    return ScoredRun(
        name=" · ".join([str(number), *named.values(), f"seed {seed}"]),
        number=number,
        seed=seed,
        status=FAILED,
        run_id=run_id,
        reason=error
        or "MLflow holds no evaluation of it: a step before that failed, and its log says why, or it was trained "
        "with another MLflow server",
        **named,
    )


def _judge_champion(chosen: Settings, scored: list[ScoredRun]) -> tuple[ScoredRun | None, Decision | None]:
    """Return the best run by validation and whether it becomes champion; nothing where nothing is registered."""
    candidate = choose_candidate([run for run in scored if run.run_id], chosen.champion_metric)
    if not candidate or not chosen.registered_model:
        return None, None
    try:
        champion = current_champion(chosen.registered_model)
        old = read_run(champion.reference) if champion else None
    except AffectflowError as error:
        return candidate, Decision(
            False, f"The one before stays, since it cannot be compared (delete its alias to choose anew): {error}"
        )
    return candidate, decide(candidate, old, chosen.champion_metric, resamples=chosen.resamples, seed=chosen.seed)


def _promote(chosen: Settings, candidate: ScoredRun, decision: Decision) -> None:
    tags = {
        "row": str(candidate.number or ""),
        "backbone": candidate.backbone,
        "loss": candidate.loss,
        "test_set": candidate.test_set_digest[:16],
    }
    try:
        version = register_champion(chosen.registered_model, candidate.reference, tags=tags, why=decision.words)
    except AffectflowError as error:
        warn(f"the report is written, but the champion could not be registered: {error}")
        return
    say(f"registered models:/{chosen.registered_model}@champion, version {version}")


def _read_evaluation(
    evaluation: Path, history: Path | None, *, reference: str, name: str = "", run_id: str = ""
) -> ScoredRun:
    metrics = open_artifact(evaluation / "metrics", "metrics")
    check_header(evaluation / "metrics", "metrics", metrics, MetricsHeader)
    test = read_test_predictions(evaluation / "predictions")
    digest = samples_digest(test["image_id"].tolist(), test["target"].tolist())
    if digest != metrics["test_set_digest"]:
        raise DataError(
            what_got_wanted(
                reference,
                got=f"predictions of the test set {digest}",
                wanted=f"those of its metrics, {metrics['test_set_digest']}",
                do="evaluate the model again",
            )
        )
    model = metrics["model"]
    return ScoredRun(
        name=name or reference,
        number=model["row"] or None,
        backbone=model["backbone"],
        pretrained=model["pretrained"],
        loss=model["loss"],
        seed=model["seed"],
        status=FINISHED,
        settings=model["settings"],
        target=test["target"].to_numpy(np.int64),
        probability=np.stack(test["probability"].to_list()).astype(np.float64),
        image_ids=test["image_id"].tolist(),
        groups=test["group"].to_numpy(object),
        metrics=metrics["test"],
        history=_read_history(history),
        test_set_digest=metrics["test_set_digest"],
        run_id=run_id,
        val_metrics=metrics["val"],
        reference=reference,
    )


def _read_history(folder: Path | None) -> dict[str, list[float]] | None:
    if folder is None or not folder.is_dir():
        return None
    header = open_artifact(folder, "history")
    table = read_table(folder / "history.parquet", None, do="train the model again", rows=header.get("epochs"))
    columns: dict[str, list[float]] = table.to_pydict()
    return columns
