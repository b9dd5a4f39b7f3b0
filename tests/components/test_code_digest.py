"""A step's digest covers the code that it reaches, and no other."""

import subprocess
import sys
from pathlib import Path

import pytest

from components.code_digest import code_digest, reachable_modules
from components.images import TARGETS, image

STEPS = sorted(TARGETS)


def reached(step: str) -> set[str]:
    return set(reachable_modules(f"components.{step}.step"))


def test_training_does_not_reach_the_report() -> None:
    assert "affectflow.losses.weighted_cluster" in reached("fine_tune")
    assert not [name for name in reached("fine_tune") if name.startswith("affectflow.report")]
    assert "affectflow.report.comparison" in reached("compare_runs")


@pytest.mark.parametrize("step", [step for step, target in TARGETS.items() if target == "data"])
def test_data_steps_reach_no_model_loss_or_training(step: str) -> None:
    torch_packages = ("affectflow.models", "affectflow.losses", "affectflow.training", "affectflow.serving")
    assert not [name for name in reached(step) if name.startswith(torch_packages)]


def test_steps_reach_no_pipeline_and_no_other_step() -> None:
    for step in STEPS:
        others = [f"components.{other}" for other in STEPS if other != step]
        assert not [name for name in reached(step) if name in others or name.startswith("pipelines")]


def test_every_module_that_python_loads_is_reached() -> None:
    """The reader of imports is checked against what the interpreter does."""
    program = (
        "import sys, components.split_dataset.step\n"
        "print(*(n for n in sys.modules if n.split('.')[0] in ('affectflow', 'components')))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert set(loaded.split()) <= reached("split_dataset")


def test_an_edit_changes_the_digest_of_the_steps_that_reach_it(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from components.code_digest import code_digest\n"
        "print(*(code_digest(step) for step in sys.argv[2:]))"
    )
    root = Path(__file__).parents[2]
    for package, source in (("affectflow", root / "src"), ("components", root)):
        for file in (source / package).rglob("*.py"):
            copy = tmp_path / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())

    def digests() -> list[str]:
        command = [sys.executable, "-c", program, str(tmp_path), *STEPS]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.split()

    before = digests()
    report = tmp_path / "affectflow" / "report" / "comparison.py"
    report.write_text(report.read_text() + "\n# an edit\n")
    changed = [step for step, old, new in zip(STEPS, before, digests(), strict=True) if old != new]
    # plan_models reads the published tables from the same package; it is never cached, and trains nothing.
    assert changed == ["compare_runs", "plan_models"]


def test_image_tags_hold_version_and_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert image("fine_tune").endswith(code_digest("fine_tune")[:16])
    assert "latest" not in image("fine_tune")
    monkeypatch.setenv("AFFECTFLOW_IMAGE_REGISTRY", "registry.example.com/team/")
    monkeypatch.setenv("AFFECTFLOW_IMAGE_TAG", "1.2")
    assert image("split_dataset") == "registry.example.com/team/affectflow-data:1.2"
