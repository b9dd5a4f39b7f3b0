"""What all benchmarks share: sides timed in turns, medians of pairs, the machine, the JSON and the table.

A benchmark is a function from a :class:`Report` to nothing, given to :func:`main`. Sides that are compared run in
one process or in children of it, one turn each a round, in an order that is reversed every other round; a ratio
is the median over the rounds of one side's time over the other's, so that what else the machine does at the time
falls on both.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: A turn of a side: does its work and returns the seconds that count.
Turn = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        key: short name, unique in its benchmark.
        what: what was measured, for people.
        value: the figure; of a ratio the median over pairs.
        low: smallest of the pairs, None where there was one measurement.
        high: largest of the pairs, likewise.
        unit: e.g. ``"×"``, ``"s"`` or ``"images/s"``.
        at_least: the bar, None for none.
        at_most: the bar, None for none.
        note: e.g. what both sides came to.
    """

    key: str
    what: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = "×"
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without one."""
        if self.at_least is None and self.at_most is None:
            return None
        low_enough = self.at_most is None or self.value <= self.at_most
        return low_enough and (self.at_least is None or self.value >= self.at_least)

    def line(self) -> str:
        """Return the row of a Markdown table."""
        spread = "" if self.low is None or self.high is None else f" ({_short(self.low)}–{_short(self.high)})"
        bars = [(self.at_least, "≥"), (self.at_most, "≤")]
        bar = ", ".join(f"{sign} {_short(value)}" for value, sign in bars if value is not None)
        met = {None: "", True: "yes", False: "**no**"}[self.met]
        return f"| {self.what} | {_short(self.value)} {self.unit}{spread} | {bar} | {met} | {self.note} |"


class Report:
    """Collects the rows of a benchmark.

    Args:
        quick: whether it shall take less than a minute.

    Attributes:
        rows: of the table.
        figures: anything else that shall stand in the JSON.
    """

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.rows: list[Row] = []
        self.figures: dict[str, Any] = {}

    def add(self, key: str, what: str, value: float, **more: Any) -> None:
        """Add a figure; ``more`` are fields of :class:`Row`."""
        self.rows.append(Row(key, what, float(value), **more))

    def add_ratio(self, key: str, what: str, above: Sequence[float], below: Sequence[float], **more: Any) -> None:
        """Add the median over pairs of ``above / below``, with the smallest and the largest."""
        pairs = np.asarray(above) / np.asarray(below)
        self.add(key, what, float(np.median(pairs)), low=float(pairs.min()), high=float(pairs.max()), **more)


def in_turns(sides: Mapping[str, Turn], *, rounds: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Run every side once a round, in an order that is reversed every other round.

    Args:
        sides: by name.
        rounds: how many count.
        warm_up: whether one more round comes first and does not count: it fills caches and imports modules.

    Returns:
        name → the seconds of its turns.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    if warm_up:
        for turn in sides.values():
            turn()
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            seconds[name].append(sides[name]())
    return seconds


def wall(work: Callable[[], Any]) -> Turn:
    """Return a turn that does ``work`` and counts the time by the clock."""
    return _timed(work, time.perf_counter)


def cpu(work: Callable[[], Any]) -> Turn:
    """Return a turn that does ``work`` and counts this process's time on cores, whatever else the machine does."""
    return _timed(work, time.process_time)


def _timed(work: Callable[[], Any], clock: Callable[[], float]) -> Turn:
    def turn() -> float:
        begun = clock()
        work()
        return clock() - begun

    return turn


def fitted_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return k of the line ``log cost = k · log size + b`` with the least squares: 1 where cost is linear."""
    slope, _ = np.polyfit(np.log(np.asarray(sizes, float)), np.log(np.asarray(costs, float)), 1)
    return float(slope)


def peak_bytes() -> int:
    """Return the most memory that this process has held so far."""
    if sys.platform == "linux":  # getrusage would count the process that started this one as well
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, memory, GPUs, versions."""
    described: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        described["torch"] = torch.__version__
        described["gpus"] = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return described


def own_process(module: str, case: str, *arguments: object) -> dict[str, Any]:
    """Run a case of a benchmark in a fresh process, so that its peak memory and its imports are its own.

    Args:
        module: the benchmark's, e.g. ``"benchmarks.ingest"``.
        case: one of the names that it gives to :func:`main`.
        arguments: of the case.
    """
    command = [sys.executable, "-m", module, "--case", case, *map(str, arguments)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return figures


@contextlib.contextmanager
def side_in_own_process(module: str, side: str, *arguments: object) -> Iterator[Turn]:
    """Keep a side in a process of its own, which sleeps between its turns.

    For sides that change their process, e.g. how it takes memory, which must not fall to the other side's good.

    Args:
        module: the benchmark's.
        side: one of the names that it gives to :func:`main`.
        arguments: of the side.

    Yields:
        the turn.
    """
    command = [sys.executable, "-m", module, "--side", side, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101 (pipes, as asked above)
        requests, answers = process.stdin, process.stdout

        def turn() -> float:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and so has nothing to answer
                requests.write("turn\n")
                requests.flush()
            answer = answers.readline()
            if not answer:
                raise SystemExit(f"side {side} of {module} ended before its turn did: see above")
            return float(answer)

        try:
            yield turn
        finally:
            process.kill()


def main(
    name: str,
    description: str | None,
    measure: Callable[[Report], None],
    cases: Mapping[str, Callable[..., dict[str, Any]]] | None = None,
    sides: Mapping[str, Callable[..., Turn]] | None = None,
) -> int:
    """Read the flags of a benchmark, run it, print its table and write its JSON.

    Args:
        name: of the benchmark.
        description: for ``--help``.
        measure: fills the report.
        cases: what :func:`own_process` may run, by name; they take strings and return what JSON can hold.
        sides: what :func:`side_in_own_process` may keep, by name; they take strings and return a turn.

    Returns:
        the exit code: 1 when a bar is missed, but for a quick run, which is too short to say.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--quick", action="store_true", help="less work, to see that it runs: under a minute")
    parser.add_argument("--case", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--side", nargs="+", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.case:
        case, *arguments = flags.case
        print(json.dumps((cases or {})[case](*arguments)))
        return 0
    if flags.side:
        side, *arguments = flags.side
        turn = (sides or {})[side](*arguments)
        for _ in sys.stdin:
            print(turn(), flush=True)
        return 0
    begun = time.perf_counter()
    report = Report(quick=flags.quick)
    measure(report)
    document = {
        "benchmark": name,
        "quick": flags.quick,
        "seconds": round(time.perf_counter() - begun, 1),
        "machine": machine(),
        "rows": [asdict(row) for row in report.rows],
        "figures": report.figures,
    }
    print(table([document]))
    if flags.json:
        with _new_file(flags.json) as file:
            file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    missed = [row.key for row in report.rows if row.met is False]
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return int(bool(missed) and not flags.quick)


def table(documents: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown table of what benchmarks wrote."""
    lines = []
    for document in documents:
        quick = ", quick" if document["quick"] else ""
        lines += [
            f"### {document['benchmark']}",
            "",
            f"{_on(document['machine'])}; {document['seconds']:.0f} s{quick}.",
            "",
            "| | measured (smallest–largest) | bar | met | |",
            "|---|---|---|---|---|",
            *(Row(**row).line() for row in document["rows"]),
            "",
        ]
    return "\n".join(lines)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    partial.replace(path)


def _on(described: dict[str, Any]) -> str:
    gpus = "".join(f", {gpu}" for gpu in described.get("gpus", []))
    torch = f", torch {described['torch']}" if "torch" in described else ""
    return f"{described['processor']}, {described['cores']} cores{gpus}, Python {described['python']}{torch}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if sys.platform == "linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _short(value: float) -> str:
    """Return a number with three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"
