"""Models in MLflow, read back: their evaluations, the registered one that is the champion, and their loading."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectflow.errors import TrackingError, what_got_wanted
from affectflow.tracked_run import readable_errors, tracking_uri
from affectflow.tracking import ERROR, EVALUATION, evaluation_folder, planned_tag

#: The alias of the registered model's best version.
CHAMPION = "champion"

_PARTS = ("metrics", "predictions")


@dataclass(frozen=True)
class TrackedModel:
    """What a model's run says of it.

    Attributes:
        run_id: of its run.
        name: of the run.
        tags: of the run.
        status: of the run, e.g. ``"FINISHED"``.
        reference: the address of its evaluation; empty where it was not evaluated.
        evaluation: folder with ``metrics/`` and ``predictions/``; None where it was not evaluated.
        history: folder of the training's history; None where there is none.
        artifacts: where the run's files are: a local folder, or the server's address of them.
    """

    run_id: str
    name: str
    tags: Mapping[str, str]
    status: str
    reference: str
    evaluation: Path | None
    history: Path | None
    artifacts: str


def find_planned(plan_key: str) -> str:
    """Return the address of the evaluation that was planned under a key, the newest of several, or ``""``.

    It is looked for in all experiments, since a cached one may be from another.
    """
    _require_server(f"the evaluation planned as {plan_key}")
    tag = planned_tag(plan_key)
    with readable_errors():
        found = _search_everywhere(f"tags.`{tag}` LIKE '%'")
    return f"runs:/{found[0].info.run_id}/{evaluation_folder(found[0].data.tags[tag])}" if found else ""


def find_failed(tags: Mapping[str, str]) -> tuple[str, str]:
    """Return the id of the newest run with these tags if it failed, and its error; else twice ``""``."""
    _require_server("a failed run")
    with readable_errors():
        found = _search_everywhere(" AND ".join(f"tags.{name} = '{value}'" for name, value in tags.items()))
    if not found or found[0].info.status not in {"FAILED", "KILLED"}:
        return "", ""
    return str(found[0].info.run_id), str(found[0].data.tags.get(ERROR, ""))


def download_model(reference: str, destination: Path) -> TrackedModel:
    """Copy one evaluation of a model, and its training's history, to ``destination``.

    Args:
        reference: the id of a run, for its newest evaluation, or ``runs:/ID/evaluation/KEY``.
        destination: an existing folder.

    Raises:
        TrackingError: there is no such run or evaluation, or no server is set.
    """
    _require_server(f"run {reference!r}")
    run_id, _, folder = reference.removeprefix("runs:/").partition("/")
    with readable_errors():
        from mlflow import MlflowClient

        client = MlflowClient()
        run = client.get_run(run_id)
        tags = dict(run.data.tags)
        if not folder and EVALUATION in tags:
            folder = f"{EVALUATION}/{tags[EVALUATION]}"
        evaluation, history = destination / "evaluation", destination / "history"
        complete = folder and all(_copy(client, run_id, f"{folder}/{name}", evaluation / name) for name in _PARTS)
        trained = _copy(client, run_id, "training/history", history)
    if folder and not complete:
        raise TrackingError(
            what_got_wanted(
                f"run {run_id}",
                got=f"no evaluation {folder}",
                wanted="one with metrics and predictions",
                do="evaluate it again",
            )
        )
    return TrackedModel(
        run_id=run_id,
        name=str(run.info.run_name),
        tags=tags,
        status=str(run.info.status),
        reference=f"runs:/{run_id}/{folder}" if folder else "",
        evaluation=evaluation if folder else None,
        history=history if trained else None,
        artifacts=str(run.info.artifact_uri).removeprefix("file://"),
    )


def download_file(run_id: str, path: str, destination: Path) -> None:
    """Copy one file of a run's artifacts into a folder.

    Raises:
        TrackingError: there is no such run or file, or no server is set.
    """
    _require_server(f"run {run_id!r}")
    with readable_errors():
        from mlflow import MlflowClient

        client = MlflowClient()
        client.get_run(run_id)
        found = {file.path for file in client.list_artifacts(run_id, path.rpartition("/")[0] or None)}
        if path not in found:
            line = what_got_wanted(
                f"run {run_id}", got=f"no {path}", wanted="a model's run", do="pass the id of a fine_tune run"
            )
            raise TrackingError(line)
        with tempfile.TemporaryDirectory(dir=destination) as temporary:
            shutil.move(client.download_artifacts(run_id, path, temporary), destination)


@dataclass(frozen=True)
class Champion:
    """The registered model's version that has the alias ``champion``.

    Attributes:
        version: its number.
        reference: the address of the evaluation by which it was chosen; of a version that was made by hand, its
            run's id, which stands for that run's newest evaluation.
    """

    version: str
    reference: str


def current_champion(name: str) -> Champion | None:
    """Return the champion of a registered model; None where there is no such model, or no champion.

    Raises:
        TrackingError: it was made by hand of a model without a run, or the server refuses.
    """
    with readable_errors():
        from mlflow import MlflowClient

        client = MlflowClient()
        # A look-up by alias raises the same for a server that is away as for a model without one.
        found = client.search_registered_models(f"name = '{name}'")
        version = found[0].aliases.get(CHAMPION) if found else None
        if version is None:
            return None
        model = client.get_model_version(name, version)
    reference = model.tags.get(EVALUATION) or model.run_id
    if not reference:
        raise TrackingError(
            what_got_wanted(
                f"models:/{name}@{CHAMPION}",
                got=f"version {version}, of no run",
                wanted="the model of a run that evaluate scored",
                do="give the alias to another version",
            )
        )
    return Champion(str(version), str(reference))


def register_champion(name: str, reference: str, *, tags: Mapping[str, str], why: str) -> str:
    """Register a run's model as a new version and give it the alias ``champion``.

    Args:
        name: of the registered model, made where it is missing.
        reference: the address of the evaluation by which it was chosen.
        tags: further tags of the version.
        why: the version's description.

    Returns:
        The version.

    Raises:
        TrackingError: the run has logged no model, or the server refuses.
    """
    run_id = reference.removeprefix("runs:/").partition("/")[0]
    with readable_errors():
        from mlflow import MlflowClient

        client = MlflowClient()
        outputs = client.get_run(run_id).outputs
        models = outputs.model_outputs if outputs else []
        if not models:
            line = what_got_wanted(f"run {run_id}", got="no model", wanted="one", do="train it again")
            raise TrackingError(line)
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name, description="Facial expressions; made by affectflow.")
        model_id = models[-1].model_id
        version = client.create_model_version(
            name,
            source=f"models:/{model_id}",
            run_id=run_id,
            model_id=model_id,
            tags={EVALUATION: reference, **tags},
            description=why,
        )
        client.set_registered_model_alias(name, CHAMPION, version.version)
        return str(version.version)


def load_predictor(uri: str) -> Any:
    """Load a model that was logged to MLflow, e.g. ``models:/affectflow@champion`` or ``runs:/ID/model``.

    Returns:
        An object with ``predict``; see :mod:`affectflow.serving`.

    Raises:
        TrackingError: there is no such model, or no server is set.
    """
    _require_server(f"model {uri!r}")
    with readable_errors():
        import mlflow.pyfunc

        try:
            return mlflow.pyfunc.load_model(uri)
        except OSError as error:
            line = what_got_wanted(uri, got=str(error), wanted="a model that MLflow can load", do="check the URI")
            raise TrackingError(line) from None


def _copy(client: Any, run_id: str, path: str, target: Path) -> bool:
    """Copy a folder of a run's artifacts, where there is one, and say whether there was."""
    if not client.list_artifacts(run_id, path):
        return False
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        # Where in it the copy ends up differs between stores.
        shutil.move(client.download_artifacts(run_id, path, temporary), target)
    return True


def _require_server(what: str) -> None:
    if not tracking_uri():
        raise TrackingError(
            what_got_wanted(
                "MLFLOW_TRACKING_URI",
                got="nothing",
                wanted="the server that holds the runs",
                do=f"set it to read {what}, or pass a folder that a step wrote",
            )
        )


def _search_everywhere(condition: str) -> list[Any]:
    """Return the runs of all experiments that meet a condition, newest first."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, condition, order_by=["attributes.start_time DESC"]))
