"""MLflow, as it is written: a run per model, nested under a run per pipeline run.

Tracking is on where ``MLFLOW_TRACKING_URI`` is set, and off otherwise: every function then returns a run
whose methods do nothing. Parameters carry a prefix (``train.learning_rate``), because KFP's MLflow plugin
logs a step's inputs under their bare names. Every evaluation of a model lies in a folder of its run that is named
by the digest of its metrics, so that none overwrites another; its address is ``runs:/RUN/evaluation/KEY``.
:mod:`affectflow.tracked_models` reads all of it back.
"""

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from affectflow.artifacts import TRACKING_SIDECAR, dump_json
from affectflow.errors import AffectflowError, TrackingError, what_got_wanted

#: Names the pipeline's run to the steps of a local pipeline. In the environment, so that it is no cache key.
PARENT_RUN_ID = "AFFECTFLOW_PARENT_RUN_ID"

DEFAULT_EXPERIMENT = "affectflow"
ROW_KEY = "row_key"

#: Tag: the one line with which the run's step failed.
ERROR = "error"
#: Tag: the newest evaluation of the run's model. Also the folder that holds all of them.
EVALUATION = "evaluation"

_KEY_LENGTH = 16


class Run:
    """A run that metrics and files are written to; this base is the untracked one, which keeps nothing."""

    run_id = ""

    def log_params(self, values: Mapping[str, Any], *, prefix: str) -> None:
        """Log settings once, each under ``prefix.name``."""

    def set_tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""

    def delete_tag(self, name: str) -> None:
        """Delete a tag where there is one."""

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Log numbers of one step, e.g. one epoch; those that are not finite are left out."""

    def log_file(self, path: str | Path, *, folder: str = "") -> None:
        """Log a file as an artifact of the run, under ``folder``."""

    def log_bytes(self, content: bytes, *, name: str, folder: str) -> None:
        """Log bytes as the artifact ``folder/name`` of the run."""

    def log_folder(self, path: str | Path, *, folder: str) -> None:
        """Log a folder's files as artifacts of the run, under ``folder``."""

    def log_dataset(self, *, name: str, digest: str, source: str, context: str, counts: list[int]) -> None:
        """Log a dataset as an input of the run.

        Args:
            name: what it is called.
            digest: of its content.
            source: where it came from.
            context: what it is used for, ``"training"`` or ``"evaluation"``.
            counts: faces by expression, in code order.
        """

    def log_model(self, model_folder: str | Path, *, signature: Any, input_example: Any) -> None:
        """Log a ``model/`` artifact as an MLflow model that :mod:`affectflow.serving` loads without a pickle."""

    def url(self) -> str:
        """Return the address of the run's page, or ``""`` where there is none."""
        return ""


class MlflowRun(Run):
    """A run on the tracking server, written through the client whatever run is active."""

    def __init__(self, run_id: str) -> None:
        from mlflow import MlflowClient

        self.run_id = run_id
        self._client = MlflowClient()

    @override
    def log_params(self, values: Mapping[str, Any], *, prefix: str) -> None:
        from mlflow.entities import Param

        params = [
            Param(f"{prefix}.{name}", value if isinstance(value, str) else json.dumps(value))
            for name, value in values.items()
        ]
        self._client.log_batch(self.run_id, params=params)

    @override
    def set_tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in values.items()])

    @override
    def delete_tag(self, name: str) -> None:
        if name in self._client.get_run(self.run_id).data.tags:
            self._client.delete_tag(self.run_id, name)

    @override
    def log_metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        import math
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, step) for name, value in values.items() if math.isfinite(value)]
        self._client.log_batch(self.run_id, metrics=metrics)

    @override
    def log_file(self, path: str | Path, *, folder: str = "") -> None:
        self._client.log_artifact(self.run_id, str(path), folder or None)

    @override
    def log_bytes(self, content: bytes, *, name: str, folder: str) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / name
            file.write_bytes(content)
            self.log_file(file, folder=folder)

    @override
    def log_folder(self, path: str | Path, *, folder: str) -> None:
        self._client.log_artifacts(self.run_id, str(path), folder)

    @override
    def log_dataset(self, *, name: str, digest: str, source: str, context: str, counts: list[int]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=digest[:36],
            source_type="local",
            source=json.dumps({"uri": source}),
            profile=json.dumps({"counts": counts}),
        )
        tag = InputTag("mlflow.data.context", context)
        self._client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, tags=[tag])])

    @override
    def log_model(self, model_folder: str | Path, *, signature: Any, input_example: Any) -> None:
        import mlflow

        from affectflow import __version__

        mlflow.pyfunc.log_model(
            name="model",
            loader_module="affectflow.serving",
            data_path=str(model_folder),
            signature=signature,
            input_example=input_example,
            pip_requirements=[f"affectflow[torch]=={__version__}"],
        )

    @override
    def url(self) -> str:
        uri = tracking_uri()
        if not uri.startswith("http"):
            return ""
        experiment = self._client.get_run(self.run_id).info.experiment_id
        return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{self.run_id}"


def tracking_uri() -> str:
    """Return where runs are tracked, or ``""`` where they are not."""
    return os.environ.get("MLFLOW_TRACKING_URI", "")


@contextlib.contextmanager
def model_run(*, name: str, row_key: str, tags: Mapping[str, str]) -> Iterator[Run]:
    """Start the one run of a model and end it as finished or failed.

    A run of the same ``row_key`` that did not finish is gone on with. Where KFP's plugin has set
    ``MLFLOW_RUN_ID``, that run is the model's.

    Args:
        name: the run's name, for people.
        row_key: digest of the model's inputs, settings, seed and code, by which the run is found again.
        tags: further tags.
    """
    if not tracking_uri():
        yield Run()
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
            run.set_tags({ERROR: str(error)})
            raise
        run.delete_tag(ERROR)  # of an earlier attempt


@contextlib.contextmanager
def step_run(name: str) -> Iterator[Run]:
    """Give the run that a step without a model writes to.

    This is the task's own run under KFP's plugin, the pipeline's run in a local pipeline, and a new run where
    the step runs alone.
    """
    if not tracking_uri():
        yield Run()
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


def run_note(run: Run) -> str:
    """Return a line of Markdown that leads to a run, for the end of a step's summary; empty where it is untracked.

    A run without a server has no address: its id is given, and what opens it.
    """
    if not run.run_id:
        return ""
    if url := run.url():
        return f"\n[The run in MLflow]({url})\n"
    return f"\nThe run in MLflow: `{run.run_id}` (`make ui` opens it)\n"


def existing_run(artifact: str | Path) -> Run:
    """Return the run that made an artifact, by its sidecar; untracked where there is neither."""
    sidecar = Path(artifact) / TRACKING_SIDECAR
    if not tracking_uri() or not sidecar.is_file():
        return Run()
    run_id = _read_sidecar(sidecar)
    with readable_errors():
        from mlflow import MlflowClient

        MlflowClient().get_run(run_id)
        return MlflowRun(run_id)


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


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turn MLflow's exceptions into one line, and quiet what it logs on its way."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.tracking.fluent", "mlflow.pyfunc"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        away = error.error_code != "RESOURCE_DOES_NOT_EXIST"
        raise TrackingError(
            what_got_wanted(
                f"MLflow at {tracking_uri()}",
                got=str(error).splitlines()[0][:300],
                wanted="an answer" if away else "a run or model that it has",
                do="check MLFLOW_TRACKING_URI, or unset it to go on untracked" if away else "check the id or name",
            )
        ) from None
