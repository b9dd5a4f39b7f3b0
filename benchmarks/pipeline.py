"""What a pipeline adds to its steps: all of them with next to no work, beside the bare commands; and a cached run.

The work: 300 drawn faces of 32 px and one epoch of the smallest network. The commands are what one would type in
place of the pipeline, one after the other, untracked; the pipeline also caches and writes to MLflow.

    python -m benchmarks.pipeline --json out.json [--quick]
"""

import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import Report, in_turns, main, wall
from benchmarks.pictures import run_step

STEPS = 6
DATA = {"synthetic-images": 300, "face-size": 32}
SPLIT = {"val-per-class": 1, "test-per-class": 1}
TRAIN = {"backbone": "test_resnet", "image-size": 32, "feature-dim": 16, "epochs": 1, "workers": 1}
EVALUATE = {"resamples": 100, "workers": 1}


def measure(report: Report) -> None:
    """Run pipeline and commands in turns, each from nothing, then the pipeline again."""
    with tempfile.TemporaryDirectory(prefix="benchmark-pipeline-") as folder:
        new = (Path(folder) / str(number) for number in itertools.count())
        last = next(new)

        def from_nothing() -> None:
            nonlocal last
            last = next(new)
            run_pipeline(last)

        sides = {
            "commands": wall(lambda: run_commands(next(new))),
            "pipeline": wall(from_nothing),
            "cached": wall(lambda: run_pipeline(last)),
        }
        # Reversed rounds would ask for a cached run before there is anything in the cache.
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(1 if report.quick else 3):
            for name, times in in_turns(sides, rounds=1, warm_up=False).items():
                seconds[name] += times
    for name, what in (
        ("pipeline", f"all {STEPS} steps with next to no work, as a pipeline"),
        ("commands", "the same steps as commands, one after the other"),
        ("cached", "the pipeline again, all of it cached"),
    ):
        times = seconds[name]
        report.add(name, what, np.median(times), low=min(times), high=max(times), unit="s")
    added = (np.asarray(seconds["pipeline"]) - np.asarray(seconds["commands"])) / STEPS
    report.add(
        "a_step", "added by the pipeline, a step", np.median(added), low=added.min(), high=added.max(), unit="s"
    )


def run_pipeline(work: Path) -> None:
    """Run ``train_one`` in a folder."""
    groups = {"data": {"source": "synthetic", **DATA}, "split": SPLIT, "train": TRAIN, "evaluate": EVALUATE}
    flags = [f"--{group}-{name}={value}" for group, settings in groups.items() for name, value in settings.items()]
    command = [sys.executable, "-m", "pipelines.local", "--work", str(work), "train_one", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def run_commands(root: Path) -> None:
    """Run the same steps by hand."""
    run_step("ingest_affectnet", root, "--source", "synthetic", *flags_of(DATA))
    faces, splits = ("--faces", root / "faces"), ("--splits", root / "splits")
    run_step("split_dataset", root, *faces, *flags_of(SPLIT))
    run_step("compute_class_weights", root, *splits)
    weights = ("--class-weights", root / "class_weights")
    run_step("fine_tune", root, *faces, *splits, *weights, *flags_of(TRAIN))
    run_step("evaluate", root, *faces, *splits, "--model", root / "model", *flags_of(EVALUATE))
    run_step("compare_runs", root, "--runs", root)


def flags_of(settings: dict[str, object]) -> list[str]:
    """Return settings as flags."""
    return [f"--{name}={value}" for name, value in settings.items()]


if __name__ == "__main__":
    sys.exit(main("pipeline", __doc__, measure))
