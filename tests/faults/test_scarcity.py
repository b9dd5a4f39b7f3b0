"""A full disk at any write, and too little memory: one line, exit code 2, and what was there is untouched."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kills import contents
from small_pipeline import SmallPipeline
from step_server import Ended, StepServer

from affectflow.artifacts import HEADERS, open_artifact

pytestmark = pytest.mark.nightly

STEPS: dict[str, dict[str, Any]] = {
    "ingest_affectnet": {"checkpoint_dir": ...},
    "split_dataset": {},
    "compute_class_weights": {},
    "fine_tune": {"checkpoint_dir": ..., "checkpoint_every": 2},
    "evaluate": {},
    "compare_runs": {},
}
DISK_BYTES = 24 << 20


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a small disk can only be mounted by root, and where mounting is allowed")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def is_one_line(ended: Ended, words: str) -> bool:
    errors = [line for line in ended.output.splitlines() if line.startswith("error:")]
    return len(errors) == 1 and words in errors[0] and "Traceback" not in ended.output


def fill(disk: Path, free: int) -> None:
    """Leave ``free`` bytes, in whole pages."""
    left = shutil.disk_usage(disk).free
    with (disk / "ballast").open("wb") as file:
        file.write(bytes(max(0, left - free)))


@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_at_any_write_is_one_line(
    step: str, steps: StepServer, pipeline: SmallPipeline, small_disk: Path, tmp_path: Path
) -> None:
    out, checkpoints = small_disk / "out", small_disk / "checkpoints"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(checkpoints, ignore_errors=True)
    (small_disk / "ballast").unlink(missing_ok=True)
    changes = {name: checkpoints if value is ... else value for name, value in STEPS[step].items()}
    flags = [*pipeline.flags(step, **changes), "--output-dir", str(out)]
    # Python's own temporary files go elsewhere: the disk that is full is that of the outputs.
    environment = {"TMPDIR": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    before_free = shutil.disk_usage(small_disk).free
    steps.run_well(step, flags, tmp_path / "log", environment=environment)
    used = before_free - shutil.disk_usage(small_disk).free
    before = contents(out)
    chance = random.Random(step)
    moments = [0, *(chance.randrange(used) for _ in range(int(os.environ.get("AFFECTFLOW_DISK_FAULTS", 2))))]
    full = 0
    for free in moments:
        fill(small_disk, free)
        ended = steps.run(step, flags, tmp_path / "log", environment=environment)
        (small_disk / "ballast").unlink()
        if ended.code == 0:  # it wrote less the second time than was free
            continue
        full += 1
        assert ended.code == 2, ended.output
        assert is_one_line(ended, "full disk"), ended.output
        after = contents(out)
        changed = [name for name in before if after.get(name) != before[name]]
        assert changed == [], f"with {free} bytes free"
        for kind in HEADERS:
            if (out / kind).exists():
                open_artifact(out / kind, kind)
    assert full
    steps.run_well(step, flags, tmp_path / "log", environment=environment)
    assert contents(out) == before
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("step", ["ingest_affectnet", "fine_tune", "evaluate"])
def test_too_little_memory_is_one_line(
    step: str, steps: StepServer, pipeline: SmallPipeline, tmp_path: Path
) -> None:
    """From the least with which the step's own code is reached up to what it needs."""
    out = tmp_path / "out"
    flags = [*pipeline.flags(step), "--output-dir", str(out)]
    steps.run_well(step, flags, tmp_path / "log")
    before = contents(out)
    base = steps.address_space()
    failures = 0
    for extra in (4, 128, 64, 16)[: int(os.environ.get("AFFECTFLOW_MEMORY_FAULTS", 2))]:
        ended = steps.run(step, flags, tmp_path / "log", address_space=base + (extra << 20))
        if ended.code == 0:
            break
        failures += 1
        assert ended.code == 2, f"{extra} MiB: {ended.code}: {ended.output[-3000:]}"
        assert is_one_line(ended, "too little"), f"{extra} MiB: {ended.output[-3000:]}"
        assert {name: value for name, value in contents(out).items() if name in before} == before
    assert failures


def test_files_are_synced_before_they_get_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of system calls, as a kill of the machine would find it."""
    from affectflow.artifacts import new_artifact, write_file

    calls: list[str] = []
    sync, rename = os.fsync, Path.rename

    def note_sync(descriptor: int) -> None:
        calls.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        calls.append(f"rename to {Path(target).name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    monkeypatch.setattr(Path, "replace", note_rename)
    with new_artifact(tmp_path / "splits", "splits", {}) as folder:
        (folder / "splits.parquet").write_bytes(b"x")
        temporary = folder.name
    assert calls.index("sync splits.parquet") < calls.index("rename to splits")
    assert calls.index("sync splits.json") < calls.index("rename to splits")
    assert calls.index(f"sync {temporary}") < calls.index("rename to splits")
    assert calls[-1] == f"sync {tmp_path.name}"
    calls.clear()
    write_file(tmp_path / "page.html", "x")
    assert [call.partition(" ")[0] for call in calls] == ["sync", "rename", "sync"]


def test_an_older_artifact_is_replaced_in_one_step(tmp_path: Path) -> None:
    """There is no moment without an artifact of this name: the folder is watched by another process."""
    from affectflow.artifacts import new_artifact

    def write(number: int) -> None:
        with new_artifact(tmp_path / "splits", "splits", {"number": number}) as folder:
            (folder / "x").write_bytes(bytes(1000))

    write(0)
    script = "import os, sys\nmissing = 0\nwhile sys.stdin.read(0) == '' and not os.path.exists(sys.argv[2]):\n"
    script += "    missing += not os.path.exists(sys.argv[1])\nprint(missing)"
    watcher = subprocess.Popen(
        ["python3", "-c", script, str(tmp_path / "splits" / "splits.json"), str(tmp_path / "end")],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for number in range(200):
        write(number)
    (tmp_path / "end").touch()
    assert watcher.communicate(timeout=60)[0].strip() == "0"


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    from affectflow.artifacts import new_artifact

    code = "import os, sys\nfrom affectflow.artifacts import new_artifact\n"
    code += "with new_artifact(sys.argv[1], 'splits', {}):\n    os.kill(os.getpid(), 9)"
    import sys

    subprocess.run([sys.executable, "-c", code, str(tmp_path / "splits")])
    assert len(list(tmp_path.glob(".splits.*.partial"))) == 1
    with (
        new_artifact(tmp_path / "splits", "splits", {}),
        new_artifact(tmp_path / "splits", "splits", {}),  # another writer that lives keeps its folder
    ):
        assert len(list(tmp_path.glob(".splits.*.partial"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["splits"]
