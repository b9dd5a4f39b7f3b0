"""Run a pipeline on this machine: ``python -m pipelines.local train_one --data-source DIR``.

Each step is a process; finished steps are not run again unless their settings, inputs or code changed. Runs are
tracked in ``<work>/mlflow.db`` unless MLFLOW_TRACKING_URI names another place.
"""

import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp.dsl.base_component import BaseComponent

from affectflow.command_line import OneLineParser
from affectflow.errors import USER_ERROR, AffectflowError
from affectflow.progress import say
from pipelines.digests import add_digests
from pipelines.flags import add_pipeline_flags, parse_parameters
from pipelines.step_output import StepOutput


def main(argv: Sequence[str] | None = None) -> int:
    """Run the pipeline that ``argv`` names and return the exit code: 0, or 2 where the user can mend it."""
    from pipelines.registry import PIPELINES

    parser = OneLineParser(prog="python -m pipelines.local", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("runs"), help="folder for all that is made [default: runs]"
    )
    parser.add_argument("--no-cache", action="store_true", help="run every step, whatever was done before")
    add_pipeline_flags(parser, PIPELINES)
    flags, parameters = parse_parameters(parser, PIPELINES, argv)
    try:
        parameters = add_digests(parameters)
        model_run = run_local(PIPELINES[flags.pipeline], parameters, work=flags.work, cache=not flags.no_cache)
        show_result(model_run)
    except AffectflowError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return USER_ERROR
    return 0


def run_local(pipeline: BaseComponent, parameters: dict[str, Any], *, work: Path, cache: bool) -> str:
    """Run a pipeline with one process a step, and return what it returns: the id of its model's MLflow run.

    Raises:
        AffectflowError: a step failed at something to mend; the line is the step's own.
    """
    from kfp import local

    from affectflow import tracking

    work = work.absolute()
    (work / "artifacts").mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{work / 'mlflow.db'}")
    run_id = tracking.start_pipeline_run(
        name=f"{pipeline.name} {time.strftime('%Y-%m-%d %H:%M')}",
        artifact_root=work / "mlflow-artifacts",
        params=parameters,
    )
    os.environ[tracking.PARENT_RUN_ID] = run_id
    # KFP warns of images without "python" in their names, and of settings that only a cluster heeds.
    for message in (".*custom or non-Python base image.*", ".*have no effect in the current local runner.*"):
        warnings.filterwarnings("ignore", message=message)
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
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
        succeeded = True
    except RuntimeError:  # what KFP raises where a step failed
        if output.error_line:
            raise AffectflowError(output.error_line) from None
        raise SystemExit(
            f"error: a step failed through a fault of ours; its traceback is in {output.log}"
        ) from None
    finally:
        tracking.end_pipeline_run(run_id, succeeded=succeeded)
    tasks = pipeline.pipeline_spec.root.dag.tasks
    if unchanged := [name for name in tasks if name not in output.started]:
        say(f"unchanged since an earlier run, so not run again: {', '.join(unchanged)}")
    return str(finished.output)


def show_result(run_id: str) -> None:
    """Print a model's test metrics, where its figures are, and how to open MLflow on it."""
    from affectflow.metrics import METRICS
    from affectflow.tracking import describe_run

    model = describe_run(run_id)
    say(f"\n{model.name}\n{'test metric':<30}{'value':>8}   95 % interval")
    for name in METRICS:
        value, low, high = (model.metrics.get(f"test.{name}{end}") for end in ("", ".low", ".high"))
        if value is not None:
            interval = "" if low is None else f"{low:.4f} to {high:.4f}"
            say(f"{name:<30}{value:>8.4f}   {interval}")
    say(f"\nfigures: {model.artifact_folder}/evaluation, {model.artifact_folder}/training")
    say(f"open MLflow: {sys.executable} -m mlflow ui --backend-store-uri {os.environ['MLFLOW_TRACKING_URI']}")


if __name__ == "__main__":
    raise SystemExit(main())
