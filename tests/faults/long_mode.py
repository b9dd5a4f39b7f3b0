"""The long mode of the fault tests (``make test-faults``): 20 kills of each step, 100,000 damaged files, and more.

The last lines are a table: promise, faults injected, survived, lost. Exit code 1 where anything was lost.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from kills import KILLED, Killer
from small_pipeline import SmallPipeline, build
from step_server import REPOSITORY, StepServer

#: How the rows of pytest's runs are called, what they run, and with which numbers.
SUITES = {
    "MLflow away, slow, 403, 500, stopped: all there, once": ("test_outages.py", {}),
    "S3 resets, 500, SlowDown, broken bodies, stalls, lost rights: the same bytes, or one line": (
        "../data/test_s3_source.py",
        {},
    ),
    "full disk or too little memory: one line": (
        "test_scarcity.py",
        {"AFFECTFLOW_DISK_FAULTS": "5", "AFFECTFLOW_MEMORY_FAULTS": "4"},
    ),
    "planted code, paths, markup, secrets: refused or masked": ("test_security.py", {}),
    "found by fuzzing before: refused in one line": ("test_found_by_fuzzing.py", {}),
    "same bytes from a second run": ("test_reproducible.py", {}),
}


@dataclass
class Row:
    """A line of the table; ``notes`` are printed above it."""

    promise: str
    injected: int
    survived: int
    lost: int
    notes: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each step")
    parser.add_argument("--cases", type=int, default=100_000, help="damaged files, over all readers")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="affectflow-faults-") as folder, StepServer() as server:
        root = Path(folder)
        pipeline = build(root / "pipeline", server)
        with ThreadPoolExecutor(1) as beside:  # one core kills, the other fuzzes
            fuzzing = beside.submit(lambda: list(fuzz(pipeline, chosen.cases)))
            rows = [kill(server, pipeline, name, root, chosen.kills, chosen.seed) for name in KILLED]
            rows.append(stop(server, pipeline, root, chosen.kills, chosen.seed))
            rows += [run_suite(promise) for promise in SUITES]
            rows += fuzzing.result()
    print(f"\n{(time.monotonic() - began) / 60:.0f} minutes on {os.cpu_count()} cores\n")
    for row in rows:
        for note in row.notes:
            print(f"{row.promise}: {note}")
    print_table(rows)
    raise SystemExit(1 if any(row.lost for row in rows) else 0)


def kill(server: StepServer, pipeline: SmallPipeline, name: str, root: Path, kills: int, seed: int) -> Row:
    folder = root / name.replace(" ", "-")
    folder.mkdir()
    killer = Killer(server, pipeline, name, folder, seed=seed)
    while killer.tally.kills < kills and not killer.tally.lost:
        killer.kill(1 if kills - killer.tally.kills == 1 else 2)
    tally = killer.tally
    say(f"{name}: {tally.kills} kills, {tally.survived} survived, {tally.early} before anything was written")
    return Row(f"SIGKILL, then again: the bytes of an unbroken {name}", tally.kills, tally.survived,
               len(tally.lost), tally.lost)  # fmt: skip


def stop(server: StepServer, pipeline: SmallPipeline, root: Path, kills: int, seed: int) -> Row:
    folder = root / "stopped"
    folder.mkdir()
    killer = Killer(server, pipeline, "fine_tune, one process", folder, seed=seed + 1)
    while killer.tally.kills < kills and not killer.tally.lost:
        killer.kill(1, signal.SIGTERM)
    tally = killer.tally
    say(f"SIGTERM: {tally.kills}, of which {tally.stopped} during training kept a checkpoint")
    return Row("SIGTERM: a checkpoint within the grace, and the same bytes", tally.kills, tally.survived,
               len(tally.lost), tally.lost)  # fmt: skip


def fuzz(pipeline: SmallPipeline, cases: int) -> Iterator[Row]:
    from test_fuzz import NAMES

    each = -(-cases // len(NAMES))
    command = [
        sys.executable,
        str(Path(__file__).with_name("fuzz_run.py")),
        str(pipeline.root),
        str(each + each % 2),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert process.stdout
    done, faults = 0, []
    for line in process.stdout:
        if not line.startswith("{"):
            continue
        told = json.loads(line)
        done += told["cases"]
        faults += told["faults"]
        say(
            f"{told['name']}: {told['cases']:,} damaged files in {told['seconds']} s, {len(told['faults'])} faults"
        )
    if process.wait():
        faults.append("the fuzzer itself failed")
    yield Row(
        "damaged files: accepted, quarantined or refused in one line",
        done,
        done - len(faults),
        len(faults),
        faults,
    )


def run_suite(promise: str) -> Row:
    name, numbers = SUITES[promise]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).parent / name)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **numbers}, cwd=REPOSITORY)
    last = (done.stdout.strip().splitlines() or [done.stderr[-300:]])[-1]
    count = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", last)}
    bad = count.get("failed", 0) + count.get("error", 0) or int(done.returncode != 0)
    say(f"{name}: {last}")
    notes = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "SKIPPED"))]
    return Row(promise, count.get("passed", 0) + bad, count.get("passed", 0), bad, notes)


def say(text: str) -> None:
    print(text, flush=True)


def print_table(rows: list[Row]) -> None:
    width = max(len(row.promise) for row in rows)
    print(f"\n{'promise':<{width}}  {'faults':>8}  {'survived':>8}  {'lost':>5}")
    for row in rows:
        print(f"{row.promise:<{width}}  {row.injected:>8,}  {row.survived:>8,}  {row.lost:>5,}")


if __name__ == "__main__":
    main()
