"""The commands: flags from the component, errors of one line, exit code 2, nothing left behind."""

import importlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


def test_help_of_a_data_step_is_quick_and_imports_no_torch() -> None:
    program = (
        "import sys, runpy\nsys.argv = ['split_dataset', '--help']\n"
        "try: runpy.run_module('components.split_dataset', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'mlflow' in sys.modules)"
    )
    durations = []
    for _ in range(3):
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        durations.append(time.monotonic() - start)
    assert done.stdout.splitlines()[-1] == "False False"
    assert min(durations) < 3  # 0.8 s alone; other tests share the cores


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
