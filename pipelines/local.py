"""Run a pipeline on this machine: ``python -m pipelines.local train_one --data-source DIR``.

Each step is a process, or with --containers a container; finished steps are not run again unless their settings,
inputs or code changed. Runs are tracked in ``<work>/mlflow.db`` unless MLFLOW_TRACKING_URI or --stack names
another place.
"""

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp.dsl.base_component import BaseComponent

from affectflow.command_line import OneLineParser, add_message_flags
from affectflow.errors import USER_ERROR, AffectflowError, what_got_wanted
from affectflow.progress import report_error, say
from pipelines import stack
from pipelines.containers import (
    absolute_paths,
    check_images,
    check_server,
    container_runner,
    missing_outputs,
    prepare_folders,
)
from pipelines.digests import add_digests
from pipelines.flags import add_pipeline_flags, parse_parameters
from pipelines.parameters import PARALLEL_VARIABLE
from pipelines.step_output import StepOutput


def main(argv: Sequence[str] | None = None) -> int:
    """Run the pipeline that ``argv`` names and return the exit code: 0, or 2 where the user can mend it."""
    os.environ.setdefault(PARALLEL_VARIABLE, "1")
    from pipelines.registry import PIPELINES

    parser = OneLineParser(prog="python -m pipelines.local", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("runs"), help="folder for all that is made [default: runs]"
    )
    parser.add_argument("--no-cache", action="store_true", help="run every step, whatever was done before")
    parser.add_argument("--stack", action="store_true", help="track runs on the servers that make stack started")
    parser.add_argument(
        "--stack-dir", type=Path, default=stack.DEFAULT_FOLDER, help="where they are [default: runs/stack]"
    )
    parser.add_argument("--dry-run", action="store_true", help="check the parameters, say them, and run nothing")
    parser.add_argument("--containers", action="store_true", help="run each step in its image, with Docker")
    add_message_flags(parser)
    add_pipeline_flags(parser, PIPELINES)
    flags, parameters = parse_parameters(parser, PIPELINES, argv)
    try:
        parameters = add_digests(parameters)
        if flags.dry_run:
            for name, value in sorted(parameters.items()):
                say(f"{name}: {value}")
            return 0
        if flags.stack:
            os.environ.update(stack.step_environment(flags.stack_dir))
            stack.check(flags.stack_dir)
        result = run_local(
            PIPELINES[flags.pipeline],
            parameters,
            work=flags.work,
            cache=not flags.no_cache,
            containers=flags.containers,
        )
        show_result(result)
    except AffectflowError as error:
        report_error(str(error))
        return USER_ERROR
    return 0


def run_local(
    pipeline: BaseComponent, parameters: dict[str, Any], *, work: Path, cache: bool, containers: bool = False
) -> str:
    """Run a pipeline and return what it returns: an evaluation's address, or a folder.

    Args:
        pipeline: the compiled pipeline.
        parameters: its parameters by full name.
        work: folder for all that is made.
        cache: whether steps that were done before are not run again.
        containers: run each step in its image instead of in a process of this environment.

    Raises:
        AffectflowError: a step failed at something to mend; the line is the step's own.
    """
    from kfp import local

    from affectflow import tracking
    from affectflow.tracked_run import tracking_uri

    work = work.absolute()
    (work / "artifacts").mkdir(parents=True, exist_ok=True)
    if containers:
        check_server()
        check_images(pipeline)
        parameters = absolute_paths(parameters)
        prepare_folders(work / "artifacts", work / "workspace")
    elif "MLFLOW_TRACKING_URI" not in os.environ:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{work / 'mlflow.db'}"
    run_id = tracking.start_pipeline_run(
        name=f"{pipeline.name} {time.strftime('%Y-%m-%d %H:%M')}",
        artifact_root=None if tracking_uri().startswith("http") else work / "mlflow-artifacts",
        params=parameters,
    )
    os.environ[tracking.PARENT_RUN_ID] = run_id
    # KFP warns of images without "python" in their names, and of settings that only a cluster heeds.
    for message in (".*custom or non-Python base image.*", ".*have no effect in the current local runner.*"):
        warnings.filterwarnings("ignore", message=message)
    local.init(
        runner=container_runner(parameters) if containers else local.SubprocessRunner(use_venv=False),
        pipeline_root=str(work / "artifacts"),
        workspace_root=str(work / "workspace"),
        enable_caching=cache,
        cache_root=str(work / "cache"),
    )
    output = StepOutput(work / "last-run.log")
    succeeded = False
    try:
        with output:
            finished = pipeline(**parameters)
        if containers:
            _check_outputs(pipeline, work / "artifacts", output)
        succeeded = True
    # What KFP raises where a step failed, and where one that runs all the same lacks what that step gives.
    except (RuntimeError, ValueError) as error:
        if output.error_lines:
            raise AffectflowError(_name_failures(output)) from None
        if isinstance(error, ValueError):
            raise
        raise SystemExit(
            f"error: a step failed through a fault of ours; its traceback is in {output.log}"
        ) from None
    finally:
        tracking.end_pipeline_run(run_id, succeeded=succeeded)
    if unchanged := [name for name in _step_names(pipeline) if name not in output.started]:
        say(f"unchanged since an earlier run, so not run again: {', '.join(unchanged)}")
    return str(finished.output)


def _name_failures(output: StepOutput) -> str:
    """Return the first failure, which may have caused others, and the models that failed where several train."""
    models = f" (failed: {'; '.join(output.failed_models)})" if output.failed_models else ""
    return output.error_lines[0] + models


def _check_outputs(pipeline: BaseComponent, artifacts: Path, output: StepOutput) -> None:
    """Refuse a run that KFP holds for finished although a step failed."""
    if output.error_lines:
        raise AffectflowError(_name_failures(output))
    if missing := missing_outputs(pipeline, artifacts, output.started):
        raise AffectflowError(
            what_got_wanted(
                f"step {missing[0]}",
                got="an end without all of its outputs",
                wanted="all of them",
                do=f"read {output.log}; if it was killed, give Docker more memory",
            )
        )


def _step_names(pipeline: BaseComponent) -> list[str]:
    """Return a pipeline's steps, those inside loops included, each once."""
    specification = pipeline.pipeline_spec
    graphs = [specification.root.dag, *(part.dag for part in specification.components.values())]
    return [name for graph in graphs for name, task in graph.tasks.items() if _is_step(specification, task)]


def _is_step(specification: Any, task: Any) -> bool:
    return bool(specification.components[task.component_ref.name].executor_label)


def show_result(result: str) -> None:
    """Print what a pipeline came to, and how to open MLflow on it.

    Args:
        result: the address of an evaluation, whose test metrics are shown, or the folder of a comparison.
    """
    if result.startswith("runs:/"):
        _show_evaluation(result)
    else:
        say(f"\nreport: {result}/report.html")
    uri = os.environ["MLFLOW_TRACKING_URI"]
    served = uri.startswith("http")
    say("open MLflow: " + (uri if served else f"{sys.executable} -m mlflow ui --backend-store-uri {uri}"))


def _show_evaluation(reference: str) -> None:
    from affectflow.artifacts import open_artifact
    from affectflow.metrics import METRICS
    from affectflow.tracked_models import download_model

    with tempfile.TemporaryDirectory() as temporary:
        model = download_model(reference, Path(temporary))
        assert model.evaluation  # noqa: S101 (the reference names one)
        scores = open_artifact(model.evaluation / "metrics", "metrics")["test"]
    say(f"\n{model.name}\n{'test metric':<30}{'value':>8}   95 % interval")
    for name in METRICS:
        value, low, high = (scores[name][key] for key in ("value", "low", "high"))
        if value is not None:
            interval = "" if low is None else f"{low:.4f} to {high:.4f}"
            say(f"{name:<30}{value:>8.4f}   {interval}")
    say(f"\nfigures: {model.artifacts}/{reference.split('/', 2)[2]}, {model.artifacts}/training")


if __name__ == "__main__":
    raise SystemExit(main())
