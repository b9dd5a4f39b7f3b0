"""Kills steps at random moments, runs them again, and compares what they wrote with that of an unbroken run."""

import hashlib
import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from small_pipeline import SmallPipeline
from step_server import Ended, StepServer

from affectflow.artifacts import HEADERS, open_artifact
from affectflow.errors import STOPPED

#: Seconds that a step has between SIGTERM and its end.
GRACE = 30.0
#: How often an attempt is killed before it may end.
KILLS_IN_A_ROW = 2

#: Step → what its command is told beside its usual flags. Those with a checkpoint folder go on from it.
KILLED: dict[str, tuple[str, dict[str, Any]]] = {
    "ingest_affectnet": ("ingest_affectnet", {"checkpoint_dir": ...}),
    "split_dataset": ("split_dataset", {}),
    "fine_tune, one process": ("fine_tune", {"checkpoint_dir": ..., "checkpoint_every": 1}),
    "fine_tune, two processes": ("fine_tune", {"checkpoint_dir": ..., "checkpoint_every": 1, "processes": 2}),
    "evaluate": ("evaluate", {}),
    "compare_runs": ("compare_runs", {}),
}


@dataclass
class Tally:
    """What came of the kills.

    Attributes:
        kills: that hit a running process.
        early: kills that hit it before it had written anything.
        stopped: SIGTERMs after which a checkpoint was kept.
        survived: kills after which the step ended with the bytes of an unbroken run.
        lost: what was not as promised.
    """

    kills: int = 0
    early: int = 0
    stopped: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)


class Killer:
    """Kills one step again and again.

    Args:
        server: that starts commands.
        pipeline: that gives the inputs.
        name: in :data:`KILLED`.
        folder: for outputs; empty.
        seed: of the moments.
    """

    def __init__(
        self, server: StepServer, pipeline: SmallPipeline, name: str, folder: Path, *, seed: int = 0
    ) -> None:
        self._server, self._pipeline, self._folder = server, pipeline, folder
        self._step, self._changes = KILLED[name]
        self._chance = random.Random(f"{seed} {name}")
        self.tally = Tally()
        unbroken = folder / "unbroken"
        self._seconds = server.run_well(self._step, self._flags(unbroken), folder / "log")
        self._wanted = contents(unbroken)
        assert self._wanted

    def kill(self, kills: int, number: int = signal.SIGKILL) -> None:
        """Kill so often, some kills one after another, and let the step end after each row of them."""
        while kills > 0:
            row = min(kills, KILLS_IN_A_ROW)
            kills -= row
            self._break_and_go_on(row, number)

    def _break_and_go_on(self, row: int, number: int) -> None:
        attempt = self._folder / "attempt"
        shutil.rmtree(attempt, ignore_errors=True)
        hits, was_stopped = 0, False
        for _ in range(row):
            started = self._server.start(self._step, self._flags(attempt), log=str(self._folder / "log"))
            time.sleep(self._chance.uniform(0, 1.02 * self._seconds))
            hit = started.signal(number, group=number == signal.SIGKILL)
            ended = self._wait(started, hit)
            hits += hit and ended.code != 0
            if ended.code == STOPPED:
                was_stopped = True
                self.tally.stopped += 1
            elif hit and ended.code not in (0, -number):
                self.tally.lost.append(f"{self._step}: ended with {ended.code}: {ended.output[-500:]}")
            self._check_what_is_there(attempt)
            if ended.code == 0:
                break
        self.tally.kills += hits
        self.tally.early += hits and not any((attempt / kind).exists() for kind in HEADERS)
        ended = self._server.run(self._step, self._flags(attempt), self._folder / "log")
        faults = self._faults(attempt, ended, was_stopped)
        self.tally.lost += faults
        if not faults:
            self.tally.survived += hits

    def _wait(self, started: Any, hit: bool) -> Ended:
        began = time.monotonic()
        ended: Ended = started.wait()
        if hit and time.monotonic() - began > GRACE:
            self.tally.lost.append(f"{self._step}: took {time.monotonic() - began:.0f} s to end")
        return ended

    def _check_what_is_there(self, attempt: Path) -> None:
        """What stands under an artifact's name is whole."""
        for kind in HEADERS:
            if (attempt / kind).exists():
                open_artifact(attempt / kind, kind)

    def _faults(self, attempt: Path, ended: Ended, was_stopped: bool) -> list[str]:
        if ended.code != 0:
            return [f"{self._step}: the rerun ended with {ended.code}: {ended.output[-1000:]}"]
        got = contents(attempt)
        faults = [f"{self._step}: {name} differs" for name in got.keys() | self._wanted.keys()
                  if got.get(name) != self._wanted.get(name)]  # fmt: skip
        faults += [f"{self._step}: {path.name} was left" for path in attempt.rglob("*.partial")]
        if was_stopped and "going on after step" not in ended.output:
            faults.append(f"{self._step}: began anew after SIGTERM")
        return faults

    def _flags(self, output: Path) -> list[str]:
        checkpoints = output.with_name(output.name + "-checkpoints")
        if not output.exists():
            shutil.rmtree(checkpoints, ignore_errors=True)
        changes = {name: checkpoints if value is ... else value for name, value in self._changes.items()}
        return [*self._pipeline.flags(self._step, **changes), "--output-dir", str(output)]


def contents(output: Path) -> dict[str, str]:
    """Return the digest of every file that a step wrote, KFP's own record of it left out."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name != "executor_output.json"
    }
