"""The run in MLflow that a step writes to: a run per model, nested under a run per pipeline run.

Tracking is on where ``MLFLOW_TRACKING_URI`` is set, and off otherwise: every function then returns a run
whose methods do nothing. Every evaluation of a model lies in a folder of its run that is named
by the digest of its metrics, so that none overwrites another; its address is ``runs:/RUN/evaluation/KEY``.
:mod:`affectflow.tracked_run` writes a run, :mod:`affectflow.tracked_models` reads all of it back.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from affectflow.artifacts import TRACKING_SIDECAR, dump_json
from affectflow.errors import AffectflowError, TrackingError, what_got_wanted
from affectflow.masking import mask
from affectflow.tracked_run import MlflowRun, Run, readable_errors, tracking_uri

#: Names the pipeline's run to the steps of a local pipeline. In the environment, so that it is no cache key.
PARENT_RUN_ID = "AFFECTFLOW_PARENT_RUN_ID"

DEFAULT_EXPERIMENT = "affectflow"
ROW_KEY = "row_key"

#: ``strict``: a server that is away is an error; ``required``: there must be one. Else entries wait for it.
TRACKING_VARIABLE = "AFFECTFLOW_TRACKING"

#: Tag: the one line with which the run's step failed.
ERROR = "error"
#: Tag: the newest evaluation of the run's model. Also the folder that holds all of them.
EVALUATION = "evaluation"

_KEY_LENGTH = 16


def is_strict() -> bool:
    """Return whether a tracking server that is away is an error, and not a reason to keep entries for later."""
    return os.environ.get(TRACKING_VARIABLE) == "strict"


@contextlib.contextmanager
def model_run(*, name: str, row_key: str, tags: Mapping[str, str], journal: str = "") -> Iterator[Run]:
    """Start the one run of a model and end it as finished or failed.

    A run of the same ``row_key`` that did not finish is gone on with. Where KFP's plugin has set
    ``MLFLOW_RUN_ID``, that run is the model's.

    Args:
        name: the run's name, for people.
        row_key: digest of the model's inputs, settings, seed and code, by which the run is found again.
        tags: further tags.
        journal: folder or ``s3://…`` where entries wait while a server is away; empty to send each at once.

    Raises:
        TrackingError: the server is away and the run is not known yet, or it refuses.
    """
    if not tracking_uri():
        yield Run()
        return
    if _keeps(journal):
        with _journalled(journal, row_key, lambda: _find_or_create(name, row_key)) as run:
            run.set_tags({ROW_KEY: row_key, **tags})
            try:
                yield run
            except AffectflowError as error:
                run.set_tags({ERROR: mask(str(error))})
                raise
            run.delete_tag(ERROR)
        return
    with readable_errors():
        import mlflow

        if os.environ.get("MLFLOW_RUN_ID"):
            active = mlflow.start_run()
        else:
            experiment_id = _experiment_id()
            unfinished = _unfinished_run(experiment_id, row_key)
            parent = os.environ.get(PARENT_RUN_ID) or None
            active = mlflow.start_run(
                run_id=unfinished,
                experiment_id=experiment_id,
                run_name=name,
                parent_run_id=None if unfinished else parent,
            )
    with active:
        run = MlflowRun(active.info.run_id)
        run.set_tags({ROW_KEY: row_key, **tags})
        try:
            yield run
        except AffectflowError as error:
            run.set_tags({ERROR: mask(str(error))})
            raise
        run.delete_tag(ERROR)  # of an earlier attempt


@contextlib.contextmanager
def step_run(name: str, journal: str = "") -> Iterator[Run]:
    """Give the run that a step without a model writes to.

    This is the task's own run under KFP's plugin, the pipeline's run in a local pipeline, and a new run where
    the step runs alone.

    Args:
        name: of a new run.
        journal: as of :func:`model_run`.
    """
    if not tracking_uri():
        yield Run()
        return
    if _keeps(journal):
        parent_id = os.environ.get("MLFLOW_RUN_ID") or os.environ.get(PARENT_RUN_ID)
        ends = not os.environ.get(PARENT_RUN_ID)
        with _journalled(journal, name, lambda: _named_or_new(parent_id, name), ends=ends) as run:
            yield run
        return
    with readable_errors():
        import mlflow

        plugin, parent = os.environ.get("MLFLOW_RUN_ID"), os.environ.get(PARENT_RUN_ID)
        active = None
        if plugin:
            active = mlflow.start_run()
        elif not parent:
            active = mlflow.start_run(experiment_id=_experiment_id(), run_name=name)
        run = MlflowRun(active.info.run_id if active else str(parent))
    with active or contextlib.nullcontext():
        yield run


def surrounding_run() -> Run:
    """Return the run within which this process works, without starting one: the task's own, or the pipeline's."""
    run_id = os.environ.get("MLFLOW_RUN_ID") or os.environ.get(PARENT_RUN_ID, "")
    if not run_id or not tracking_uri():
        return Run()
    with readable_errors():
        return MlflowRun(run_id)


def existing_run(artifact: str | Path, journal: str = "") -> Run:
    """Return the run that made an artifact, by its sidecar; untracked where there is neither.

    Args:
        artifact: its folder.
        journal: as of :func:`model_run`; the run is to be closed then.
    """
    sidecar = Path(artifact) / TRACKING_SIDECAR
    if not tracking_uri() or not sidecar.is_file():
        return Run()
    run_id = _read_sidecar(sidecar)
    if _keeps(journal):
        from affectflow.tracking_journal import PREFIX, Journal, JournalledRun

        kept = Journal(journal, f"{PREFIX}{run_id[:_KEY_LENGTH]}")
        kept.begin(run_id, _experiment_of(run_id))
        return JournalledRun(kept)
    with readable_errors():
        from mlflow import MlflowClient

        MlflowClient().get_run(run_id)
        return MlflowRun(run_id)


def _keeps(journal: str) -> bool:
    return bool(journal) and tracking_uri().startswith("http") and not is_strict()


@contextlib.contextmanager
def _journalled(place: str, key: str, find: Callable[[], tuple[str, str]], *, ends: bool = True) -> Iterator[Run]:
    """Give a run whose entries go through a journal; one that a stopped step has left is gone on with.

    Args:
        place: of journals.
        key: after which the run's journal is named.
        find: returns the ids of run and experiment; called where no journal knows them.
        ends: whether the run ends with the step.
    """
    from affectflow.tracking_journal import PREFIX, Journal, JournalledRun

    # A server that is away is known by the first failure; the sender itself tries again.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    journal = Journal(place, f"{PREFIX}{key[:_KEY_LENGTH]}", once=True)
    if not journal.run_id:
        with readable_errors():
            journal.begin(*find())
    run = JournalledRun(journal)
    try:
        yield run
    except BaseException:
        if ends:
            run.end("FAILED")
        raise
    else:
        if ends:
            run.end("FINISHED")
    finally:
        run.close()


def _find_or_create(name: str, row_key: str) -> tuple[str, str]:
    """Return the ids of a model's run and experiment: KFP's, an unfinished one of the same key, or a new one."""
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        return run_id, _experiment_of(run_id)
    experiment_id = _experiment_id()
    return _unfinished_run(experiment_id, row_key) or _create_run(experiment_id, name), experiment_id


def _named_or_new(run_id: str | None, name: str) -> tuple[str, str]:
    if run_id:
        return run_id, _experiment_of(run_id)
    experiment_id = _experiment_id()
    return _create_run(experiment_id, name), experiment_id


def _create_run(experiment_id: str, name: str) -> str:
    from mlflow import MlflowClient
    from mlflow.tracking.context.registry import resolve_tags

    parent = os.environ.get(PARENT_RUN_ID)
    tags = resolve_tags({"mlflow.parentRunId": parent} if parent else {})
    return str(MlflowClient().create_run(experiment_id, run_name=name, tags=tags).info.run_id)


def _experiment_of(run_id: str) -> str:
    """Return the id of a run's experiment; empty where the server cannot say just now."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    try:
        return str(MlflowClient().get_run(run_id).info.experiment_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            with readable_errors():
                raise
        return ""


def _read_sidecar(sidecar: Path) -> str:
    try:
        run_id = json.loads(sidecar.read_text(encoding="utf-8"))["run_id"]
        if not re.fullmatch("[0-9a-zA-Z-]{1,64}", run_id):
            raise ValueError(run_id)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrackingError(
            what_got_wanted(
                str(sidecar),
                got=f"no run's id ({error})",
                wanted='{"run_id": …}',
                do="delete it, or write it again",
            )
        ) from None
    return str(run_id)


def write_sidecar(folder: Path, run: Run) -> None:
    """Put the run's id beside an artifact's files, where the run is tracked."""
    if run.run_id:
        dump_json(folder / TRACKING_SIDECAR, {"run_id": run.run_id})


def evaluation_folder(metrics_digest: str) -> str:
    """Return where an evaluation's files stand among its run's artifacts."""
    return f"{EVALUATION}/{metrics_digest[:_KEY_LENGTH]}"


def evaluation_reference(run: Run, metrics_digest: str) -> str:
    """Return the address of one evaluation of a model, for :func:`download_model`."""
    return f"runs:/{run.run_id}/{evaluation_folder(metrics_digest)}"


def mark_evaluated(run: Run, metrics_digest: str, plan_key: str = "") -> None:
    """Name an evaluation the newest of its run, and the one that was planned; called when all of it is logged."""
    key = metrics_digest[:_KEY_LENGTH]
    run.set_tags({EVALUATION: key} | ({planned_tag(plan_key): key} if plan_key else {}))


def planned_tag(plan_key: str) -> str:
    """Return the tag that holds the evaluation which a pipeline planned under a key."""
    return f"planned.{plan_key[:_KEY_LENGTH]}"


def start_pipeline_run(*, name: str, artifact_root: Path | None, params: Mapping[str, Any]) -> str:
    """Create the database, the experiment and the run of a local pipeline, before any task can race for them.

    Returns:
        The run's id.
    """
    with readable_errors():
        from mlflow import MlflowClient

        client = MlflowClient()
        experiment_id = _experiment_id(artifact_root)
        run_id = str(client.create_run(experiment_id, run_name=name).info.run_id)
        run = MlflowRun(run_id)
        run.set_tags({"affectflow.kind": "pipeline"})
        run.log_params(params, prefix="pipeline")
        return run_id


def end_pipeline_run(run_id: str, *, succeeded: bool) -> None:
    """Mark a local pipeline's run as finished or failed."""
    from mlflow import MlflowClient

    MlflowClient().set_terminated(run_id, "FINISHED" if succeeded else "FAILED")


def count_experiments() -> int:
    """Return how many experiments the tracking server holds (1,000 at most).

    Raises:
        TrackingError: it does not answer, or refuses.
    """
    with readable_errors():
        from mlflow import MlflowClient

        return len(MlflowClient().search_experiments(max_results=1000))


def _experiment_id(artifact_root: Path | None = None) -> str:
    from mlflow import MlflowClient

    client = MlflowClient()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_EXPERIMENT)
    experiment = client.get_experiment_by_name(name)
    if experiment:
        return str(experiment.experiment_id)
    location = artifact_root.absolute().as_uri() if artifact_root else None
    return str(client.create_experiment(name, artifact_location=location))


def _unfinished_run(experiment_id: str, row_key: str) -> str | None:
    from mlflow import MlflowClient

    found = MlflowClient().search_runs([experiment_id], f"tags.{ROW_KEY} = '{row_key}'")
    return next((str(run.info.run_id) for run in found if run.info.status != "FINISHED"), None)
