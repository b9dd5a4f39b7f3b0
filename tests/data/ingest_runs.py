"""Runs of the ingest step for tests: in this process, or in one of its own that can be killed."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from face_trees import encoded, line, pixels, put, write_manual

from components.ingest_affectnet import step

PROGRAM = """
import sys, json
from affectflow.data import shards
from components.ingest_affectnet import step
from affectflow.steps import run_step
if __name__ == "__main__":
    shards.BATCH_ROWS, shards.SHARD_BYTES = 16, 1
    run_step(step.run, **json.loads(sys.argv[1]))
"""


def arguments(source: str | Path, out: Path, **changes: Any) -> dict[str, Any]:
    outputs = {
        "faces": "faces", "class_distribution": "class_distribution.html", "contact_sheet": "contact_sheet.html",
        "quarantine_sheet": "quarantine_sheet.html", "summary": "summary.md",
    }  # fmt: skip
    settings = {
        "source": str(source), "layout": "auto", "synthetic_images": 120, "face_size": 64, "margin": 0.1,
        "image_format": "auto", "jpeg_quality": 92, "max_quarantined": 0.5, "conflicting_labels": "keep",
        "near_duplicate_distance": -1, "seed": 0, "workers": 1, "checkpoint_dir": "", "source_digest": "",
    }  # fmt: skip
    return {**settings, **{name: str(out / file) for name, file in outputs.items()}, **changes}


def ingest_step(source: str | Path, out: Path, **changes: Any) -> dict[str, Any]:
    return step.run(**arguments(source, out, **changes))


def start(source: str | Path, out: Path, **changes: Any) -> "subprocess.Popen[str]":
    """Start the step in its own process, with 16 faces a shard."""
    out.mkdir(exist_ok=True)
    program = out / "program.py"
    program.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, str(program), json.dumps(arguments(source, out, **changes))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_when(process: "subprocess.Popen[str]", is_time: Callable[[], bool], seconds: float = 60) -> None:
    """Kill a process without warning as soon as ``is_time``; fail when it ends before."""
    end = time.monotonic() + seconds
    while not is_time():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise AssertionError(f"it ended, or did not get so far:\n{process.communicate()[0]}")
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def write_many(root: Path, number: int, *, side: int = 300) -> Path:
    """Write ``number`` rows over a few pictures, each tenth of them without a file."""
    for index in range(9):
        put(root, f"1/{index}.jpg", encoded(pixels(index, side, side)))
    rows = [
        line(f"1/{index % 10}.jpg", index % 8, box=f"{index % 97},10,150,150.{index}") for index in range(number)
    ]
    return write_manual(root, rows, [line("1/1.jpg", 2)])


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def run_on_small_disk(
    source: str | Path, out: Path, disk: Path, kilobytes: int, **changes: Any
) -> "subprocess.CompletedProcess[str]":
    """Run the step with a disk of its own mounted at ``disk``, which only this process sees."""
    disk.mkdir()
    out.mkdir(exist_ok=True)
    (out / "program.py").write_text(PROGRAM)
    mount = f"mount -t tmpfs -o size={kilobytes}k none '{disk}'"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    command = [sys.executable, str(out / "program.py"), json.dumps(arguments(source, out, **changes))]
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        timeout=120,
    )
