"""What pipelines.local --containers does around the steps, without Docker."""

import re
from pathlib import Path

import pytest

from affectflow.errors import AffectflowError
from pipelines.containers import _MOUNTED, absolute_paths, container_runner
from pipelines.local import _check_outputs
from pipelines.registry import PIPELINES
from pipelines.step_output import StepOutput


def test_all_that_steps_read_from_this_machine_is_mounted_and_cannot_be_written(tmp_path: Path) -> None:
    names = ("data_source", "train_weights", "plan_weights_vggface2", "plan_weights_imagenet")
    parameters = {name: str(tmp_path / name) for name in names}
    for file in parameters.values():
        Path(file).touch()
    mounts = container_runner(parameters).__dict__["container_run_args"]["mounts"]
    assert {mount["Target"]: mount["ReadOnly"] for mount in mounts} == dict.fromkeys(parameters.values(), True)


@pytest.mark.parametrize("name", PIPELINES)
def test_every_parameter_that_is_a_path_is_mounted(name: str) -> None:
    parameters = PIPELINES[name].component_spec.inputs
    paths = [one for one in parameters if re.search(r"(_dir|_source|weights(_vggface2|_imagenet)?)$", one)]
    assert {"data_source", "data_checkpoint_dir", "train_checkpoint_dir"} <= set(paths) <= set(_MOUNTED)


def test_a_path_means_in_a_container_what_it_means_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces").mkdir()
    assert absolute_paths({"data_source": "faces", "train_checkpoint_dir": "kept", "split_policy": "faces"}) == {
        "data_source": str(tmp_path / "faces"),
        "train_checkpoint_dir": str(tmp_path / "kept"),
        "split_policy": "faces",
    }
    elsewhere = {"data_source": "synthetic", "train_checkpoint_dir": "s3://bucket/kept", "train_weights": ""}
    assert absolute_paths(elsewhere) == elsewhere


def test_a_failure_that_kfp_takes_for_an_end_is_named_with_its_models(tmp_path: Path) -> None:
    output = StepOutput(tmp_path / "log")
    output.error_lines.append("weights: got nothing, wanted a file; pass one")
    output.failed_models.append("16 · resnet50")
    with pytest.raises(AffectflowError, match=r"^weights: got nothing.*\(failed: 16 · resnet50\)$"):
        _check_outputs(PIPELINES["paper_tables"], tmp_path, output)
