"""What is uploaded to the KFP UI: six steps with descriptions, parameters and images, as in the golden file."""

from pathlib import Path
from typing import Any

import pytest
import yaml

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("dist")
    flags = ["--registry", "registry.example.com", "--tag", "golden", "--volume", "affectflow-data"]
    flags += ["--output-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pipelines.compile", *flags], check=True, capture_output=True)
    return folder


@pytest.fixture
def train_one(compiled: Path) -> dict[str, Any]:
    return documents(compiled / "train_one.yaml")[0]


def documents(file: Path) -> list[dict[str, Any]]:
    """Return the pipeline's spec and what it asks of Kubernetes."""
    return list(yaml.safe_load_all(file.read_text()))


def test_pipelines_are_as_in_the_golden_files(compiled: Path) -> None:
    """After a wanted change: make golden, and read the difference."""
    names = sorted(file.name for file in compiled.iterdir())
    assert names == sorted(file.name for file in GOLDEN.glob("*.yaml"))
    for name in names:
        got, wanted = (documents(folder / name) for folder in (compiled, GOLDEN))
        got[0].pop("sdkVersion"), wanted[0].pop("sdkVersion")
        assert got == wanted, f"{name} differs from tests/golden/{name}"


def test_train_one_holds_the_six_steps_in_order(train_one: dict[str, Any]) -> None:
    tasks = train_one["root"]["dag"]["tasks"]
    depends = {name: set(task.get("dependentTasks", [])) for name, task in tasks.items()}
    assert depends == {
        "ingest-affectnet": set(),
        "split-dataset": {"ingest-affectnet"},
        "compute-class-weights": {"split-dataset"},
        "fine-tune": {"ingest-affectnet", "split-dataset", "compute-class-weights"},
        "evaluate": {"ingest-affectnet", "split-dataset", "fine-tune"},
        "compare-runs": {"evaluate"},
    }


def test_every_parameter_and_output_is_described(train_one: dict[str, Any]) -> None:
    for name, component in train_one["components"].items():
        for group in ("inputDefinitions", "outputDefinitions"):
            for kind in ("parameters", "artifacts"):
                for parameter, definition in component.get(group, {}).get(kind, {}).items():
                    assert definition.get("description"), f"{name}: {parameter}"
    root = train_one["root"]["inputDefinitions"]["parameters"]
    assert root["train_epochs"]["defaultValue"] == 20
    assert root["train_learning_rate"]["defaultValue"] == 0.001
    assert all(definition.get("description") for definition in root.values())


def test_images_come_from_the_flags_and_are_never_latest(train_one: dict[str, Any]) -> None:
    images = {
        name: executor["container"]["image"] for name, executor in train_one["deploymentSpec"]["executors"].items()
    }
    assert images["exec-fine-tune"] == "registry.example.com/affectflow-torch:golden"
    assert images["exec-ingest-affectnet"] == "registry.example.com/affectflow-data:golden"


def test_steps_install_nothing_at_run_time(train_one: dict[str, Any]) -> None:
    for executor in train_one["deploymentSpec"]["executors"].values():
        assert "pip install" not in " ".join(executor["container"]["command"])


@pytest.mark.parametrize("name", ["train_one", "paper_tables"])
def test_every_parameter_that_a_step_asks_for_is_handed_to_its_loop(compiled: Path, name: str) -> None:
    """KFP compiles a step that asks its loop for what the loop was never given; running it fails."""
    pipeline = documents(compiled / f"{name}.yaml")[0]
    for part in [pipeline["root"], *pipeline["components"].values()]:
        given = set(part.get("inputDefinitions", {}).get("parameters", {}))
        for task in part.get("dag", {}).get("tasks", {}).values():
            inputs = task.get("inputs", {}).get("parameters", {}).values()
            asked = {value["componentInputParameter"] for value in inputs if "componentInputParameter" in value}
            assert asked <= given, task["taskInfo"]["name"]
