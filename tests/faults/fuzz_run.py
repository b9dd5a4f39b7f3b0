"""Fuzzes readers: ``python tests/faults/fuzz_run.py PIPELINE CASES [NAME …]``; prints a line of JSON for each.

Half of the cases come from ``fuzz_edits``, half from atheris where it is installed: coverage-guided, mutated
further from what reached new code. Every reader is fuzzed in a process that is forked for it, so that a crash of
the process is seen, and the file that it was reading is kept.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

if find_spec("atheris"):
    import atheris

    with atheris.instrument_imports(include=["affectflow"], enable_loader_override=False):
        import fuzz_targets
    HOWS = ("edits", "atheris")
else:
    import fuzz_targets

    HOWS = ("edits",)

from fuzz_limits import SECONDS, limits
from small_pipeline import SmallPipeline


def fuzz(pipeline: Path, cases: int, names: list[str], kept: Path) -> Iterator[dict[str, Any]]:
    """Yield for every reader how many cases it had, in how many seconds, and the faults."""
    targets = fuzz_targets.targets(SmallPipeline(pipeline))
    for name in names or targets:
        began, done, faults = time.monotonic(), 0, []
        for how in HOWS:
            scratch = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
            pid = os.fork()
            if pid == 0:
                _work(targets[name], cases // len(HOWS), how, scratch)
            _, status = os.waitpid(pid, 0)
            told = scratch / "cases"
            done += int(told.read_text()) if told.is_file() else 0
            if code := os.waitstatus_to_exitcode(status):
                kept.mkdir(parents=True, exist_ok=True)
                place = kept / f"{name.replace(' ', '_').replace(',', '')}-{how}"
                shutil.copy(scratch / "current", place)
                said = (scratch / "said").read_text(errors="replace").strip()
                faults.append(f"{how} ended with {code}, reading {place}: {said[-600:]}")
            shutil.rmtree(scratch, ignore_errors=True)
        yield {"name": name, "cases": done, "seconds": round(time.monotonic() - began, 1), "faults": faults}


def _work(target: fuzz_targets.Target, cases: int, how: str, scratch: Path) -> None:
    """Read damaged files, and end this process: with 0 after all of them, with 1 after a fault."""
    folder, current, told = scratch / "read", scratch / "current", scratch / "cases"
    folder.mkdir()
    said = os.open(scratch / "said", os.O_CREAT | os.O_WRONLY)
    os.dup2(said, 1), os.dup2(said, 2)
    count = 0

    def read(data: bytes) -> None:
        nonlocal count
        current.write_bytes(data)
        try:
            with limits(SECONDS):
                fuzz_targets.run_case(target, data, folder)
        except BaseException:
            told.write_text(str(count))
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        count += 1
        if count >= cases:
            told.write_text(str(count))
            os._exit(0)

    try:
        if how == "atheris":
            _fuzz_by_coverage(target, scratch, cases, read)
        for number in range(cases):
            read(target.case(random.Random(f"{target.name} {number}")))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(2)


def _fuzz_by_coverage(target: fuzz_targets.Target, scratch: Path, cases: int, read: Any) -> None:
    corpus = scratch / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
    chance = random.Random(target.name)
    takes_any_bytes = not target.name.endswith(("cells", "entries", ".json", "record"))

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        if takes_any_bytes and chance.random() < 0.5:
            return bytes(atheris.Mutate(data, longest))
        try:
            return target.change(data if chance.random() < 0.5 else chance.choice(target.seeds), chance)[:longest]
        except Exception:  # what was changed before cannot be parsed to be changed again
            return target.case(chance)[:longest]

    options = [
        "-runs=-1",
        f"-max_len={2 * max(map(len, target.seeds)) + 4096}",
        "-rss_limit_mb=0",
        "-timeout=0",
        "-verbosity=0",
        f"-artifact_prefix={scratch}/",
        "-len_control=0",
        "-seed=1",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *options], read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    for result in fuzz(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:], Path("faults-found")):
        print(json.dumps(result), flush=True)
