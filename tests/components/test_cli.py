"""The commands: flags from the component, errors of one line, exit code 2, nothing left behind."""

import importlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from affectflow.artifacts import new_artifact
from components.cli import flag_groups, next_command
from components.images import TARGETS

STEPS = sorted(TARGETS)


def run_step(step: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", f"components.{step}", *flags], capture_output=True, text=True)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("step", STEPS)
def test_help_describes_every_flag(step: str) -> None:
    done = run_step(step, "--help")
    assert done.returncode == 0
    component = getattr(importlib.import_module(f"components.{step}.component"), step)
    for name, spec in component.component_spec.inputs.items():
        assert "--" + name.replace("_", "-") in done.stdout
        assert spec.description, f"{step}.{name} has no description"
    for name, spec in component.component_spec.outputs.items():
        assert spec.description, f"{step}'s output {name} has no description"


def test_help_of_a_data_step_is_quick_and_imports_neither_torch_nor_kubernetes() -> None:
    program = (
        "import sys, runpy\nsys.argv = ['split_dataset', '--help']\n"
        "try: runpy.run_module('components.split_dataset', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'mlflow' in sys.modules, 'kubernetes' in sys.modules)"
    )
    durations = []
    for _ in range(3):
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        durations.append(time.monotonic() - start)
    assert done.stdout.splitlines()[-1] == "False False False"
    assert min(durations) < 3  # 0.3 s alone; other tests share the cores


def test_an_unknown_flag_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    line = one_line(run_step("split_dataset", "--val-per-clas", "3", "--output-dir", str(tmp_path)))
    assert "--val-per-clas" in line
    assert "--val-per-class" in line


def test_a_missing_flag_is_named(tmp_path: Path) -> None:
    assert "--faces" in one_line(run_step("split_dataset", "--output-dir", str(tmp_path)))


def test_a_value_of_another_type_is_named(tmp_path: Path) -> None:
    flags = ["--faces", "x", "--seed", "many", "--output-dir", str(tmp_path)]
    assert "--seed" in one_line(run_step("split_dataset", *flags))


def test_a_value_out_of_range_says_got_and_wanted(tmp_path: Path) -> None:
    flags = ["--faces", "x", "--val-per-class", "0", "--output-dir", str(tmp_path)]
    line = one_line(run_step("split_dataset", *flags))
    assert "--val-per-class: got 0, wanted greater than or equal to 1" in line


def test_a_missing_input_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    flags = ["--faces", str(tmp_path / "none"), "--output-dir", str(tmp_path / "out")]
    assert str(tmp_path / "none") in one_line(run_step("split_dataset", *flags))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    flags = ["--source", str(tmp_path / "none"), "--output-dir", str(tmp_path / "out")]
    assert str(tmp_path / "none") in one_line(run_step("ingest_affectnet", *flags))
    assert list((tmp_path / "out").iterdir()) == []


def test_an_output_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = one_line(run_step("split_dataset", "--faces", "x", "--output-dir", str(tmp_path / "file")))
    assert "--output-dir" in line


def load(step: str):
    return getattr(importlib.import_module(f"components.{step}.component"), step)


def test_the_next_command_takes_what_was_made_and_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    given = {"faces": "out/ingest/faces", "splits": "out/split/splits", "epochs": 3}
    command = next_command(load("fine_tune"), given, Path("/out/train"))
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "components.evaluate"]
    assert words[words.index("--faces") + 1] == "out/ingest/faces"
    assert words[words.index("--model") + 1] == "out/train/model"
    assert "--epochs" not in words
    assert "--faces PATH" in next_command(load("compute_class_weights"), {}, Path("/out/weights"))
    assert next_command(load("evaluate"), given, Path("/out/eval")).split()[-4:] == [
        "--runs", "out/eval", "--output-dir", "DIR",
    ]  # fmt: skip
    assert next_command(load("compare_runs"), {}, Path("/out")) == ""


@pytest.mark.parametrize("step", STEPS)
def test_groups_of_flags_begin_with_settings_of_the_step(step: str) -> None:
    component = load(step)
    assert set(flag_groups(component).values()) <= set(component.component_spec.inputs)


def test_the_end_says_what_was_made_and_quiet_says_nothing(tmp_path: Path) -> None:
    counts = dict.fromkeys(range(8), 3)
    write_splits(tmp_path / "splits", counts)
    flags = ["--splits", str(tmp_path / "splits"), "--output-dir", str(tmp_path / "out")]
    normal = run_step("compute_class_weights", *flags)
    assert f"{tmp_path}/out/class_weights" in normal.stdout
    assert "next: python -m components.fine_tune" in normal.stdout
    quiet = run_step("compute_class_weights", *flags, "--quiet")
    assert (quiet.stdout, quiet.stderr, quiet.returncode) == ("", "", 0)
    verbose = run_step("compute_class_weights", *flags, "--verbose")
    assert len(verbose.stdout) > len(normal.stdout)
    assert "\ndone in " in verbose.stdout


def write_splits(path: Path, counts: dict[int, int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    codes = [code for code, count in counts.items() for _ in range(count)]
    names = [f"face-{i}" for i in range(len(codes))]
    table = {"image_id": names, "group": names, "expression": pa.array(codes, pa.int8())}
    table["split"] = ["train"] * len(codes)
    with new_artifact(path, "splits", {"faces": len(codes)}) as folder:
        pq.write_table(pa.table(table), folder / "splits.parquet")


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colours_respect_no_color(variables: dict[str, str], coloured: bool, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "components.split_dataset", "--output-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=clean | variables)
    assert ("\x1b[" in done.stderr) is coloured
