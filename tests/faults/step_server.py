"""Starts steps' commands in milliseconds: a process that has torch and all steps loaded forks for each of them.

A forked child is what ``python -m components.<step>`` is after its imports: a process (the leader of a session of
its own, so that a kill reaches what it started) that parses the flags and runs the component through KFP's
executor.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).parents[2]
STEPS = ("ingest_affectnet", "split_dataset", "compute_class_weights", "fine_tune", "evaluate", "compare_runs")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (minus the signal's number where one ended it), output, and seconds."""

    code: int
    output: str
    seconds: float


class StepServer:
    """Use as a context; one command at a time."""

    def __enter__(self) -> Self:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "src"), str(REPOSITORY)))}
        environment.update(OMP_NUM_THREADS="1", PYTHONHASHSEED="0")
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._read()["ready"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def start(self, step: str, flags: Sequence[str], **options: Any) -> "Started":
        """Start a command.

        Args:
            step: its name.
            flags: of the command.
            options: ``environment`` (names to set), ``address_space`` (RLIMIT_AS in bytes), ``log`` (a file).
        """
        log = Path(options.pop("log", "") or os.devnull)
        assert self._process.stdin
        self._process.stdin.write(
            json.dumps({"step": step, "flags": list(flags), "log": str(log), **options}) + "\n"
        )
        self._process.stdin.flush()
        return Started(self._read()["pid"], log, self._read)

    def run(self, step: str, flags: Sequence[str], log: Path, **options: Any) -> Ended:
        """Run a command to its end."""
        return self.start(step, flags, log=str(log), **options).wait()

    def run_well(self, step: str, flags: Sequence[str], log: Path, **options: Any) -> float:
        """Run a command that must succeed; return its seconds."""
        ended = self.run(step, flags, log, **options)
        assert ended.code == 0, f"{step} ended with {ended.code}:\n{ended.output}"
        return ended.seconds

    def address_space(self) -> int:
        """Return how many bytes of addresses a command has as it starts."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[0])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the step server has died"
        answer: dict[str, Any] = json.loads(line)
        return answer


class Started:
    """A command that runs; wait for it exactly once."""

    def __init__(self, pid: int, log: Path, read: Any) -> None:
        self.pid, self._log, self._read = pid, log, read
        self._began = time.monotonic()

    def signal(self, number: int, *, group: bool) -> bool:
        """Send a signal to the process, or to all that it started as well; return whether it still ran."""
        try:
            (os.killpg if group else os.kill)(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, at_most: float = 300.0) -> Ended:
        """Wait for the end, and end what it may have left; after ``at_most`` seconds it is killed."""
        watch = threading.Timer(at_most, self.signal, (signal.SIGKILL,), {"group": True})
        watch.start()
        code = self._read()["code"]
        watch.cancel()
        seconds = time.monotonic() - self._began
        self.signal(signal.SIGKILL, group=True)
        output = self._log.read_text(errors="replace") if self._log.is_file() else ""
        return Ended(code, output, seconds)


def flags_of(values: Mapping[str, Any]) -> list[str]:
    """Return ``--name value`` for each; a list gives several values, ``True`` none."""
    flags: list[str] = []
    for name, value in values.items():
        flags.append("--" + name.replace("_", "-"))
        if value is not True:
            flags += [str(item) for item in (value if isinstance(value, list) else [value])]
    return flags


def _serve() -> None:
    import importlib

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    components = {name: getattr(importlib.import_module(f"components.{name}.component"), name) for name in STEPS}
    for module in ("timm", "torch", "sklearn.metrics", "matplotlib.pyplot", "pandas", "safetensors.torch"):
        importlib.import_module(module)
    for name in STEPS:
        importlib.import_module(f"components.{name}.step")
    from components.cli import main

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    answer(ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_command(main, components[request["step"]], request)
        answer(pid=pid)
        _, status = os.waitpid(pid, 0)
        answer(code=os.waitstatus_to_exitcode(status))


def _fork_processes_that_train_together() -> None:
    """Let them be forked, and load their images themselves: a new interpreter takes 10 s to load torch."""
    from multiprocessing import forkserver

    from affectflow.training import distributed, loading

    def start(function: Any, *arguments: Any, **options: Any) -> Any:
        return begin(function, *arguments, **{**options, "start_method": "fork"})

    def load(dataset: Any, **options: Any) -> Any:
        return load_batches(
            dataset, **{**options, "num_workers": 0, "timeout": 0, "multiprocessing_context": None}
        )

    begin, load_batches = distributed.start_processes, loading._Loader
    distributed.start_processes, loading._Loader = start, load
    forkserver.ensure_running = lambda: None  # type: ignore[assignment]


def _become_command(main: Any, component: Any, request: dict[str, Any]) -> None:
    import resource
    import traceback

    os.setsid()
    with open(request["log"], "w") as log, open(os.devnull) as nothing:  # noqa: PTH123
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source.fileno(), target)
    for name, value in request.get("environment", {}).items():
        os.environ[name] = value
    if "--processes" in request["flags"]:
        _fork_processes_that_train_together()
    code = 1
    try:
        if request.get("address_space"):
            resource.setrlimit(resource.RLIMIT_AS, (request["address_space"],) * 2)
        main(component, request["flags"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
