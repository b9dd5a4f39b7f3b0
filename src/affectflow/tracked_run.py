"""A run in MLflow, as it is written: params, tags, metrics, files, datasets, models.

Which run a step writes to is found by :mod:`affectflow.tracking`. Parameters carry a prefix
(``train.learning_rate``), because KFP's MLflow plugin logs a step's inputs under their bare names.
"""

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from affectflow.errors import TrackingError, what_got_wanted
from affectflow.masking import mask


class Run:
    """A run that metrics and files are written to; this base is the untracked one, which keeps nothing."""

    run_id = ""

    def log_params(self, values: Mapping[str, Any], *, prefix: str) -> None:
        """Log settings once, each under ``prefix.name``."""

    def set_tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""

    def delete_tag(self, name: str) -> None:
        """Delete a tag where there is one."""

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0, at: int | None = None) -> None:
        """Log numbers of one step, e.g. one epoch; those that are not finite are left out.

        Args:
            values: by name.
            step: their place on the axis.
            at: when they were measured, in milliseconds since 1970; None for now.
        """

    def log_file(self, path: str | Path, *, folder: str = "") -> None:
        """Log a file as an artifact of the run, under ``folder``."""

    def log_bytes(self, content: bytes, *, name: str, folder: str) -> None:
        """Log bytes as the artifact ``folder/name`` of the run."""
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / name
            file.write_bytes(content)
            self.log_file(file, folder=folder)

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

    def log_model(self, model_folder: str | Path) -> None:
        """Log a ``model/`` artifact as an MLflow model that :mod:`affectflow.serving` loads without a pickle."""

    def end(self, status: str) -> None:
        """Mark the run as ``FINISHED`` or ``FAILED``."""

    def close(self) -> None:
        """Wait for what is still on its way to the server."""

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
            Param(f"{prefix}.{name}", mask(value if isinstance(value, str) else json.dumps(value)))
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
    def log_metrics(self, values: Mapping[str, float], *, step: int = 0, at: int | None = None) -> None:
        import math
        import time

        from mlflow.entities import Metric

        now = at or int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, step) for name, value in values.items() if math.isfinite(value)]
        self._client.log_batch(self.run_id, metrics=metrics)

    @override
    def log_file(self, path: str | Path, *, folder: str = "") -> None:
        self._client.log_artifact(self.run_id, str(path), folder or None)

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
    def log_model(self, model_folder: str | Path) -> None:
        import mlflow
        from mlflow.models import Model

        from affectflow import __version__
        from affectflow.served_interface import input_example, signature

        Model.log(  # what mlflow.pyfunc.log_model does, for a run that is not the active one of this thread
            artifact_path=None,
            name="model",
            flavor=mlflow.pyfunc,
            run_id=self.run_id,
            loader_module="affectflow.serving",
            data_path=str(model_folder),
            signature=signature(),
            input_example=input_example(),
            pip_requirements=[f"affectflow[torch]=={__version__}"],
        )

    def has_model(self) -> bool:
        """Return whether a model was logged to the run."""
        outputs = self._client.get_run(self.run_id).outputs
        return bool(outputs and outputs.model_outputs)

    @override
    def end(self, status: str) -> None:
        self._client.set_terminated(self.run_id, status)

    @override
    def url(self) -> str:
        if not tracking_uri().startswith("http"):
            return ""
        return run_url(self._client.get_run(self.run_id).info.experiment_id, self.run_id)


def run_url(experiment_id: str, run_id: str) -> str:
    """Return the address of a run's page on the server, without user and password."""
    scheme, _, rest = tracking_uri().partition("://")
    host = rest.rpartition("@")[2].rstrip("/")
    return f"{scheme}://{host}/#/experiments/{experiment_id}/runs/{run_id}"


def tracking_uri() -> str:
    """Return where runs are tracked, or ``""`` where they are not."""
    return os.environ.get("MLFLOW_TRACKING_URI", "")


def run_note(run: Run) -> str:
    """Return a line of Markdown that leads to a run, for the end of a step's summary; empty where it is untracked.

    A run without a server has no address: its id is given, and what opens it.
    """
    if not run.run_id:
        return ""
    if url := run.url():
        return f"\n[The run in MLflow]({url})\n"
    return f"\nThe run in MLflow: `{run.run_id}` (`make ui` opens it)\n"


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
