"""Fine-tune a model: settings → inputs → network, loss, trainer → training → model, history, MLflow run."""

import contextlib
import functools
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from affectflow import __version__
from affectflow.artifacts import artifact_digest, canonical_digest, new_artifact
from affectflow.data.class_weights import read_class_weights
from affectflow.models import write_weights
from affectflow.steps import check_settings
from affectflow.storage import local_file
from affectflow.tracked_run import Run
from affectflow.tracking import model_run, write_sidecar
from affectflow.training.determinism import use_deterministic_algorithms
from affectflow.training.distributed import count_processes, in_processes, rank, training_device
from affectflow.training.inputs import open_inputs
from affectflow.training.loop import Row
from affectflow.training.memory import keep_freed_memory
from components.code_digest import code_digest
from components.fine_tune import reporting
from components.fine_tune.build import (
    Network,
    build_joint_loss,
    build_network,
    build_trainer,
    check_inputs,
    checked_weights_digest,
)
from components.fine_tune.settings import Paths, Settings


def run(**arguments: Any) -> None:
    """Train one model and write it; see ``component.py`` for the paths and settings."""
    paths = Paths(**{name: arguments.pop(name) for name in Paths.__annotations__})
    chosen = check_settings(Settings, **arguments)
    count = count_processes(chosen.processes, batch_size=chosen.batch_size)
    with local_file(chosen.weights) as weights:
        if chosen.weights:
            chosen = chosen.model_copy(update={"weights": str(weights)})
        in_processes(count, functools.partial(_train, chosen, paths))


def _train(chosen: Settings, paths: Paths) -> None:
    """What each process does; rank 0 alone tracks and writes."""
    inputs = open_inputs(paths.faces, paths.splits)
    class_weights, weights_header = read_class_weights(paths.class_weights)
    check_inputs(chosen, inputs, weights_header)
    digests = {
        "faces": inputs.faces_digest,
        "splits": inputs.splits_digest,
        "class_weights": artifact_digest(weights_header),
        "weights": checked_weights_digest(chosen),
    }
    code = code_digest("fine_tune")
    row_key = canonical_digest({"inputs": digests, "settings": chosen.deciding(), "code": code})

    if chosen.deterministic:
        use_deterministic_algorithms()
    device = training_device()
    if device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(chosen.seed)
    network = build_network(chosen)
    loss = build_joint_loss(chosen, class_weights)
    reporting.say_start(chosen, inputs, network.model, device)

    with _tracked(chosen, paths, row_key, reporting.tags(chosen, inputs, code)) as tracked:
        tracked.log_params(chosen.deciding(), prefix="train")
        tracked.log_dataset(
            name="faces",
            digest=inputs.splits_digest,
            source=paths.faces,
            context="training",
            counts=inputs.splits["train"].counts,
        )
        trainer = build_trainer(
            chosen,
            inputs,
            network,
            loss,
            device=device,
            run_key=row_key,
            on_epoch=functools.partial(reporting.report_epoch, chosen, tracked),
        )
        rows = trainer.fit()
        if rank() > 0:
            return
        reporting.warn_of_cluster_state(chosen, rows[-1])
        _write_history(paths, rows)
        _write_model(
            chosen,
            paths,
            network,
            tracked,
            best=trainer.best_row,
            precision=trainer.recipe.precision,
            inputs=digests,
            code=code,
        )
        reporting.write_pages(chosen, paths, tracked, rows, trainer.best_row)
    reporting.say_end(paths, trainer.best_row)
    if trainer.checkpoints:
        trainer.checkpoints.clear()


def _tracked(
    chosen: Settings, paths: Paths, row_key: str, tags: dict[str, str]
) -> contextlib.AbstractContextManager[Run]:
    """Return the model's run, or an untracked one where another process has it."""
    if rank() > 0:
        return contextlib.nullcontext(Run())
    journal = chosen.checkpoint_dir or str(Path(paths.model).absolute().parent)
    return model_run(name=reporting.run_name(chosen), row_key=row_key, tags=tags, journal=journal)


def _write_history(paths: Paths, rows: list[Row]) -> None:
    with new_artifact(paths.history, "history", {"epochs": len(rows)}) as folder:
        pq.write_table(pa.Table.from_pylist(rows), folder / "history.parquet")


def _write_model(
    chosen: Settings,
    paths: Paths,
    network: Network,
    tracked: Run,
    *,
    best: Row,
    precision: str,
    inputs: dict[str, str],
    code: str,
) -> None:
    """Write the weights of the kept epoch and all that is needed to build, feed and tell the network."""
    header = {
        **network.spec,
        "image_size": chosen.image_size,
        "input_norm": network.input_norm.to_json(),
        "loss": chosen.loss,
        "pretrained": chosen.source,
        "row": chosen.row,
        "seed": chosen.seed,
        "settings": chosen.deciding(),
        "precision": precision,
        "cpu_threads": torch.get_num_threads(),
        "selected_epoch": int(best["epoch"]),
        "inputs": inputs,
        "versions": {name: version(name) for name in ("torch", "torchvision", "timm")}
        | {"affectflow": __version__, "python": platform.python_version(), "code": code},
    }
    with new_artifact(paths.model, "model", header) as folder:
        write_weights(folder, network.model)
        write_sidecar(folder, tracked)
