"""How long a command takes to say what it can do, and how long fine_tune takes until its first step.

python -m benchmarks.startup --json out.json [--quick]
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Report, in_turns, main, own_process, wall
from benchmarks.pictures import make_dataset

HELP = [sys.executable, "-m", "components.split_dataset", "--help"]


def measure(report: Report) -> None:
    """Time the starts of processes, from nothing."""
    rounds = 3 if report.quick else 9
    core_seconds: list[float] = []
    seconds = in_turns(
        {"python": wall(lambda: run([sys.executable, "-c", ""])), "help": wall(help_)}, rounds=rounds
    )
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        help_()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        core_seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    for key, what, times, bar in (
        ("help", "split_dataset --help, by the clock", seconds["help"], 1.0),
        ("help_on_a_core", "split_dataset --help, a core's time", core_seconds, None),
        ("python", "Python itself, by the clock", seconds["python"], None),
    ):
        report.add(key, what, np.median(times), low=min(times), high=max(times), unit="s", at_most=bar)
    report.add("torch_imported", "modules of torch that it imports", torch_modules(), unit="", at_most=0)
    with tempfile.TemporaryDirectory(prefix="benchmark-startup-") as folder:
        make_dataset(Path(folder), 64 + 16, held_out=1)
        times = [
            own_process("benchmarks.startup", "first_step", folder, time.time())["seconds"]
            for _ in range(1 if report.quick else 3)
        ]
    report.add(
        "first_step",
        "fine_tune (SE-ResNet-50) from its start to its first step",
        np.median(times),
        low=min(times),
        high=max(times),
        unit="s",
        at_most=15.0,
    )


def run(command: list[str]) -> None:
    """Run a command and drop what it says."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def help_() -> None:
    """Ask a data step for its help."""
    run(HELP)


def torch_modules() -> int:
    """Return how many modules of torch a data step imports to give its help."""
    command = [sys.executable, "-X", "importtime", *HELP[1:]]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    names = [line.rpartition("|")[2].strip() for line in said.splitlines()]
    return sum(name.partition(".")[0] == "torch" for name in names)


def first_step(root: str, begun: str) -> dict[str, Any]:
    """Run fine_tune up to its first step; return the seconds since ``begun`` (seconds since 1970)."""
    from affectflow.training.loop import Trainer
    from components.cli import main as command
    from components.fine_tune.component import fine_tune

    def stop(*_: object) -> None:
        print(json.dumps({"seconds": time.time() - float(begun)}), flush=True)
        os._exit(0)

    Trainer._train_step = stop  # type: ignore[assignment, method-assign]
    artifacts = [f"--{name.replace('_', '-')}={root}/{name}" for name in ("faces", "splits", "class_weights")]
    command(fine_tune, [*artifacts, "--freeze-stages", "3", "--quiet", "--output-dir", f"{root}/train"])
    raise SystemExit("fine_tune ended without a step")


if __name__ == "__main__":
    sys.exit(main("startup", __doc__, measure, {"first_step": first_step}))
