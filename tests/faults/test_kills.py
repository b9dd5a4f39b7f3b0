"""Steps killed at random moments: run again, they end with the bytes of an unbroken run.

A few kills each; ``make test-faults`` does 20.
"""

import signal
from pathlib import Path

import pytest
from kills import KILLED, Killer
from small_pipeline import SmallPipeline
from step_server import StepServer

pytestmark = pytest.mark.nightly

#: Two processes start afresh, which takes long.
FAST = [name for name in KILLED if "two processes" not in name]


@pytest.mark.parametrize("name", FAST)
def test_a_killed_step_ends_as_an_unbroken_one(
    name: str, steps: StepServer, pipeline: SmallPipeline, tmp_path: Path
) -> None:
    killer = Killer(steps, pipeline, name, tmp_path)
    killer.kill(2)
    assert killer.tally.lost == []


@pytest.mark.slow
def test_two_processes_killed_end_as_unbroken_ones(
    steps: StepServer, pipeline: SmallPipeline, tmp_path: Path
) -> None:
    killer = Killer(steps, pipeline, "fine_tune, two processes", tmp_path)
    killer.kill(1)
    assert killer.tally.lost == []


def test_sigterm_makes_training_keep_a_checkpoint(
    steps: StepServer, pipeline: SmallPipeline, tmp_path: Path
) -> None:
    """Whenever it comes: the moments are drawn until one of them falls into training."""
    killer = Killer(steps, pipeline, "fine_tune, one process", tmp_path)
    for _ in range(8):
        killer.kill(1, signal.SIGTERM)
        if killer.tally.stopped:
            break
    assert killer.tally.lost == []
    assert killer.tally.stopped
