"""Shared by the fault tests: a server of steps, and the outputs of all steps on a few drawn faces."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_pipeline import SmallPipeline, build
from step_server import StepServer


@pytest.fixture(scope="session")
def steps() -> Iterator[StepServer]:
    with StepServer() as server:
        yield server


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> SmallPipeline:
    """Built once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root = shared / "small_pipeline"
    with (shared / "small_pipeline.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "built").is_file():
            shutil.rmtree(root, ignore_errors=True)
            with StepServer() as server:
                build(root, server)
            (root / "built").touch()
    return SmallPipeline(root)


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: fault tests write very often."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    folder = memory / f"affectflow-faults-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
