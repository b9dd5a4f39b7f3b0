"""Run a local pipeline's steps in their images, as locked down as a cluster runs them.

KFP's runner can take a failed container for a finished one (it removes containers at once, and reads "gone" as
success), so what counts here is that a step has written all of its outputs: see :func:`missing_outputs`.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp import local
from kfp.dsl.base_component import BaseComponent

from affectflow.errors import SettingsError, what_got_wanted
from affectflow.tracked_run import tracking_uri
from affectflow.tracking import PARENT_RUN_ID
from pipelines.pod_settings import IMAGE_USER

#: Pipeline parameters that name what lies on this machine → whether steps write there.
_MOUNTED = {
    "data_source": False,
    "data_checkpoint_dir": True,
    "train_weights": False,
    "plan_weights_vggface2": False,
    "plan_weights_imagenet": False,
    "train_checkpoint_dir": True,
}

#: What steps may know of this process's environment.
_PASSED = ("MLFLOW_", "AWS_", PARENT_RUN_ID)

_SHARED_MEMORY = "1g"


def absolute_paths(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pipeline's parameters with absolute paths: a container works in another folder than we do."""
    absolute = dict(parameters)
    for name, written in _MOUNTED.items():
        value = str(parameters.get(name, ""))
        if value and "://" not in value and (written or Path(value).exists()):
            absolute[name] = str(Path(value).absolute())
    return absolute


def container_runner(parameters: Mapping[str, Any]) -> local.DockerRunner:
    """Return a runner with a read-only root, no capabilities and no root user.

    Args:
        parameters: of the pipeline, as :func:`absolute_paths` gives them; folders and files among them are mounted
            where they are.
    """
    from docker.types import Mount

    mounts = []
    for name, written in _MOUNTED.items():
        path = Path(str(parameters.get(name, "")))
        if not path.is_absolute():
            continue
        if written:
            _make_for_steps(path)
        if path.exists():
            mounts.append(Mount(str(path), str(path), type="bind", read_only=not written))
    # A user other than root runs steps as themselves, so that what they write is theirs.
    user = IMAGE_USER if os.getuid() == 0 else os.getuid()
    group = IMAGE_USER if os.getuid() == 0 else os.getgid()
    return local.DockerRunner(
        network="host",  # the servers of `make stack` listen on loopback
        read_only=True,
        tmpfs={"/tmp": "exec"},  # noqa: S108 - torch.compile loads what it builds there
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        user=f"{user}:{group}",
        shm_size=_SHARED_MEMORY,
        mounts=mounts,
        environment={name: value for name, value in os.environ.items() if name.startswith(_PASSED)},
    )


def prepare_folders(*folders: Path) -> None:
    """Let the images' user write to folders that are root's."""
    for folder in folders:
        _make_for_steps(folder)


def check_server() -> None:
    """Check that runs are tracked on a server: a database file of this machine is no part of a container.

    Raises:
        SettingsError: they are not.
    """
    if not tracking_uri().startswith("http"):
        raise SettingsError(
            what_got_wanted(
                "MLFLOW_TRACKING_URI",
                got=tracking_uri() or "nothing",
                wanted="the address of an MLflow server, with --containers",
                do="run make stack and pass --stack, or set it",
            )
        )


def check_images(pipeline: BaseComponent) -> None:
    """Check that every image of a pipeline is here, or can be had.

    Raises:
        SettingsError: Docker does not answer, or an image is unknown.
    """
    from docker.errors import APIError, DockerException, ImageNotFound

    import docker

    executors = pipeline.pipeline_spec.deployment_spec["executors"]
    names = sorted({executors[name]["container"]["image"] for name in executors})
    try:
        client = docker.from_env()
        for name in names:
            try:
                client.images.get(name)
            except ImageNotFound:
                client.images.pull(name)
    except APIError as error:
        raise SettingsError(
            what_got_wanted(
                f"image {name}",
                got=str(error.explanation or error)[:200],
                wanted="an image that is here or can be pulled",
                do="run make images, or check --registry and --tag",
            )
        ) from None
    except DockerException as error:
        raise SettingsError(
            what_got_wanted(
                "Docker", got=str(error)[:200], wanted="an engine that answers", do="start it, or set DOCKER_HOST"
            )
        ) from None


def missing_outputs(pipeline: BaseComponent, artifacts: Path, started: list[str]) -> list[str]:
    """Return the started tasks of the newest run that have not written all of their outputs.

    KFP's executor writes ``executor_output.json`` at the end of a task that succeeded, with all of its artifacts.

    Args:
        pipeline: what was run.
        artifacts: where KFP keeps runs, a folder each.
        started: names of the tasks that were started, in order; of a loop's tasks one for each pass.
    """
    newest = max(artifacts.glob(f"{pipeline.name}-*"), key=lambda path: path.stat().st_mtime, default=artifacts)
    finished = Counter(
        file.parent.name for file in newest.rglob("executor_output.json") if _artifacts_are_there(file)
    )
    return sorted(name for name, times in Counter(started).items() if finished[name] < times)


def _artifacts_are_there(executor_output: Path) -> bool:
    outputs = json.loads(executor_output.read_text(encoding="utf-8")).get("artifacts", {}).values()
    return all(Path(artifact["uri"]).exists() for output in outputs for artifact in output["artifacts"])


def _make_for_steps(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        folder.chmod(0o777)
