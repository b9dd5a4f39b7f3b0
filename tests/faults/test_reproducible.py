"""Same inputs, seed and version give the same artifacts, for any number of workers; a run tells what made it."""

import json
from pathlib import Path
from typing import Any

import pytest
from kills import contents
from small_pipeline import SmallPipeline
from step_server import StepServer

from affectflow import reproduce

pytestmark = pytest.mark.nightly


@pytest.mark.parametrize(
    ("step", "changes"),
    [
        ("ingest_affectnet", {"workers": 3}),
        ("split_dataset", {}),
        ("compute_class_weights", {}),
        ("fine_tune", {"workers": 3, "checkpoint_every": 2}),
        ("evaluate", {"workers": 2, "batch_size": 64}),
        ("compare_runs", {}),
    ],
)
def test_a_second_run_writes_the_same_bytes(
    step: str, changes: dict[str, Any], steps: StepServer, pipeline: SmallPipeline, tmp_path: Path
) -> None:
    flags = [*pipeline.flags(step, **changes), "--output-dir", str(tmp_path / "out")]
    steps.run_well(step, flags, tmp_path / "log")
    assert contents(tmp_path / "out") == contents(pipeline.root / step)


def test_model_json_says_what_made_the_model(pipeline: SmallPipeline) -> None:
    header = json.loads((pipeline.artifact("model") / "model.json").read_text())
    assert {"torch", "torchvision", "timm", "affectflow", "python", "code"} <= header["versions"].keys()
    assert {"faces", "splits", "class_weights", "weights"} == header["inputs"].keys()
    assert header["settings"]["seed"] == header["seed"] == 0


def test_the_command_of_a_model_is_printed(pipeline: SmallPipeline, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce.main([str(pipeline.artifact("model"))])
    said = capsys.readouterr().out
    assert "python -m components.fine_tune --faces FACES_FOLDER" in said
    assert "--learning-rate 0.01" in said
    assert "--deterministic" in said


@pytest.mark.slow
def test_a_model_is_made_again_byte_for_byte(
    pipeline: SmallPipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [
        f"--{kind.replace('_', '-')}={pipeline.artifact(kind)}" for kind in ("faces", "splits", "class_weights")
    ]
    model = str(pipeline.artifact("model"))
    reproduce.main([model, "--run", *inputs, "--output-dir", str(tmp_path / "again")])
    assert "the same model, byte for byte" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        reproduce.main([model, "--run", "--faces", str(pipeline.artifact("splits"))])
    assert end.value.code == 2


def test_a_run_in_mlflow_tells_its_command(
    pipeline: SmallPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from affectflow.tracking import model_run

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    with model_run(name="m", row_key="k", tags={}) as run:
        run.log_file(pipeline.artifact("model") / "model.json", folder="training")
    reproduce.main([run.run_id])
    assert "python -m components.fine_tune" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        reproduce.main(["0123456789abcdef0123456789abcdef"])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
