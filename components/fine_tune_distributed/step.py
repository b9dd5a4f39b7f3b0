"""Train over several nodes: inputs to the shared folder → TrainJob → its outputs from the shared folder."""

import os
import shutil
import uuid
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from affectflow.artifacts import artifact_digest, canonical_digest, open_artifact
from affectflow.errors import SettingsError, what_got_wanted
from affectflow.progress import say
from affectflow.steps import StepSettings, check_settings
from affectflow.tracking import PARENT_RUN_ID
from components.code_digest import code_digest
from components.fine_tune_distributed.train_job import JobSpec, run_job

#: What the worker is told of this step's environment beside what its runtime gives it: KFP's own run in MLflow.
_PASSED = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", PARENT_RUN_ID)

#: Settings of fine_tune that follow from the nodes.
_SET_HERE = ("processes",)


class Settings(StepSettings):
    """What the step can be told; see ``component.py`` for meanings and defaults."""

    job_image: Annotated[str, Field(min_length=1)]
    settings: dict[str, Any]
    nodes: Annotated[int, Field(ge=1, le=64)]
    gpus_per_node: Annotated[int, Field(ge=0, le=16)]
    cpus_per_node: str
    memory_per_node: str
    shared_dir: Annotated[str, Field(min_length=1)]
    runtime: Annotated[str, Field(min_length=1)]
    namespace: str
    hours: Annotated[int, Field(ge=1, le=24 * 365)]


def run(
    *,
    faces: str,
    splits: str,
    class_weights: str,
    model: str,
    history: str,
    learning_curves: str,
    summary: str,
    **settings: Any,
) -> None:
    """Train one model in a TrainJob and copy what it wrote; see ``component.py`` for what each path holds."""
    chosen = check_settings(Settings, **settings)
    inputs = {"faces": faces, "splits": splits, "class_weights": class_weights}
    outputs = {
        "model": model,
        "history": history,
        "learning_curves.html": learning_curves,
        "summary.md": summary,
    }
    digests = {name: artifact_digest(open_artifact(path, name)) for name, path in inputs.items()}
    key = canonical_digest(
        {"inputs": digests, "settings": chosen.model_dump(), "code": code_digest("fine_tune_distributed")}
    )[:16]
    shared = Path(chosen.shared_dir)
    written = shared / f"run-{key}"
    flags = worker_flags(chosen.settings)
    for name, path in inputs.items():
        place = shared / f"{name}-{digests[name][:16]}"
        _share(Path(path), place)
        flags += [f"--{name.replace('_', '-')}", str(place)]

    resources = {"cpu": chosen.cpus_per_node, "memory": chosen.memory_per_node}
    if chosen.gpus_per_node:
        resources["nvidia.com/gpu"] = str(chosen.gpus_per_node)
    run_job(
        JobSpec(
            name=f"affectflow-{key}",
            namespace=chosen.namespace,
            runtime=chosen.runtime,
            image=chosen.job_image,
            # Trainer tells torchrun through its environment how many nodes there are and where the first is.
            command=[
                *("torchrun", f"--nproc-per-node={chosen.gpus_per_node or 1}", "-m", "components.fine_tune"),
                *(*flags, "--output-dir", str(written)),
            ],
            nodes=chosen.nodes,
            resources=resources,
            environment={name: os.environ[name] for name in _PASSED if os.environ.get(name)},
            seconds=chosen.hours * 3600,
        )
    )
    for name, path in outputs.items():
        _copy(written / name, Path(path))
    shutil.rmtree(written, ignore_errors=True)
    say(f"trained on {chosen.nodes} nodes; model in {model}")


def worker_flags(settings: dict[str, Any]) -> list[str]:
    """Return ``fine_tune``'s settings as the flags of its command, which checks names and values."""
    flags = []
    for name, value in settings.items():
        if name in _SET_HERE:
            raise SettingsError(
                what_got_wanted(
                    f"settings: {name}", got=str(value), wanted="none", do="set nodes and gpus_per_node"
                )
            )
        flag = name.rstrip("_").replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            # KFP hands whole numbers in a dictionary over as floats.
            whole = isinstance(value, float) and value.is_integer()
            flags.append(f"--{flag}={int(value) if whole else value}")
    return flags


def _share(source: Path, place: Path) -> None:
    """Copy an artifact to the shared folder, unless an earlier run did: its name holds its digest."""
    if not place.exists():
        say(f"copying {source.name} to {place}")
        _copy(source, place)


def _copy(source: Path, place: Path) -> None:
    """Copy a file or folder so that it is whole or not there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        if source.is_dir():
            shutil.copytree(source, temporary)
        else:
            shutil.copyfile(source, temporary)
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
