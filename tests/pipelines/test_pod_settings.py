"""What compiled pipelines ask of a cluster for every task, and that no secret stands in them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.images import TARGETS
from pipelines.pod_settings import PODS
from pipelines.registry import PIPELINES

GOLDEN = Path(__file__).parents[1] / "golden"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text()))


def test_every_step_has_a_pod() -> None:
    assert PODS.keys() | {"fine_tune_distributed"} == TARGETS.keys()


@pytest.mark.parametrize("name", PIPELINES)
def test_every_task_says_what_its_pod_needs(name: str) -> None:
    specification, platform = documents(name)
    executors = specification["deploymentSpec"]["executors"]
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors.keys() == pods.keys()
    for executor, pod in pods.items():
        container = executors[executor]["container"]
        trains = executor in ("exec-fine-tune", "exec-evaluate")
        assert pod["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
        assert int(pod["activeDeadlineSeconds"]) >= 3600
        assert [mount["mountPath"] for mount in pod["pvcMount"]] == ["/mnt/affectflow"]
        assert {"name": "AFFECTFLOW_TRACKING", "value": "required"} in container["env"]
        assert {"resourceCpuRequest", "resourceMemoryRequest", "resourceMemoryLimit"} <= container[
            "resources"
        ].keys()
        assert {each["secretName"] for each in pod["secretAsEnv"]} == {"kfp-mlflow-credentials", "affectflow-s3"}
        assert all(each["optional"] for each in [*pod["secretAsEnv"], *pod["configMapAsEnv"]])
        paths = {mount["mountPath"]: mount for mount in pod["emptyDirMounts"]}
        assert "/tmp" in paths and ("/dev/shm" in paths) == trains
        assert ("accelerator" in container["resources"]) == trains == ("tolerations" in pod)
        assert not trains or paths["/dev/shm"]["medium"] == "Memory"
    text = str(executors["exec-fine-tune"]["container"]["resources"])
    assert "pod_accelerator_type" in text and "pod_accelerator_count" in text and "pod_train_memory" in text
    parameters = specification["root"]["inputDefinitions"]["parameters"]
    assert parameters["pod_accelerator_count"]["defaultValue"] == 0


def test_no_planted_secret_gets_into_a_compiled_pipeline(tmp_path: Path) -> None:
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "MLFLOW_TRACKING_PASSWORD", "KFP_TOKEN", "PGPASSWORD")
    planted = {name: f"planted-{number}-9c4e" for number, name in enumerate(names)}
    command = [sys.executable, "-m", "pipelines.compile", "--output-dir", str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **planted})
    texts = [file.read_text() for file in tmp_path.iterdir()] + [done.stdout, done.stderr]
    assert len(texts) > 2 and "MLFLOW_TRACKING_PASSWORD" in texts[0]
    assert not any(value in text for value in planted.values() for text in texts)


def test_without_a_volume_none_is_mounted(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "AFFECTFLOW_VOLUME"}
    command = [sys.executable, "-m", "pipelines.compile", "--output-dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert "pvcMount" not in (tmp_path / "train_one.yaml").read_text()
