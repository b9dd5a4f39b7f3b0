"""The manifests of both overlays: valid for Kubernetes 1.30 to 1.37, locked down, what the pipelines count on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import pod_settings

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = ("dev", "prod")
VERSIONS = [f"1.{minor}" for minor in range(30, 38)]


def program(name: str) -> str:
    """A program of the environment; tests skip where it is absent."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def kustomize(overlay: str) -> str:
    command = [program("kubectl"), "kustomize", str(MANIFESTS / "overlays" / overlay)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def objects(overlay: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(kustomize(overlay)))


def named(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    [it] = [each for each in found if each["kind"] == kind and each["metadata"]["name"] == name]
    return it


def pod_specs(node: Any) -> Iterator[dict[str, Any]]:
    """Every pod's spec in an object, those of templates in templates too."""
    if isinstance(node, dict):
        if isinstance(node.get("containers"), list):
            yield node
        for value in node.values():
            yield from pod_specs(value)
    elif isinstance(node, list):
        for value in node:
            yield from pod_specs(value)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_overlays_are_valid(overlay: str, version: str, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(kustomize(overlay))
    command = [program("kubernetes-validate"), "--strict", "--kubernetes-version", version, str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_validation_can_fail(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(kustomize("dev").replace("containerPort:", "containerPorts:"))
    command = [program("kubernetes-validate"), "--strict", "--kubernetes-version", "1.34", str(file)]
    assert subprocess.run(command, capture_output=True).returncode != 0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_meets_pod_security_restricted(overlay: str) -> None:
    """The rules of the standard, and a read-only root beside them."""
    specs = [spec for each in objects(overlay) for spec in pod_specs(each)]
    assert len(specs) >= 2
    for spec in specs:
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True and pod["runAsUser"] > 0
        assert pod["seccompProfile"]["type"] == "RuntimeDefault"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert spec["automountServiceAccountToken"] is False
        kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True
            assert not container["image"].endswith(":latest")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_value_stands_in_them(overlay: str) -> None:
    """Secrets come by reference alone; the example names every one of them, empty."""
    text = kustomize(overlay)
    assert "kind: Secret\n" not in text
    example = list(yaml.safe_load_all((MANIFESTS / "base" / "secrets.example.yaml").read_text()))
    keys = {(each["metadata"]["name"], key) for each in example for key in each["stringData"]}
    wanted = {(ref["name"], ref["key"]) for each in objects(overlay) for ref in references(each, "secretKeyRef")}
    assert wanted and wanted <= keys
    values = [value for each in example for key, value in each["stringData"].items() if key != "s3.json"]
    assert set(values) <= {"", "affectflow", "mlflow"}


def references(node: Any, kind: str) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if kind in node:
            yield node[kind]
        for value in node.values():
            yield from references(value, kind)
    elif isinstance(node, list):
        for value in node:
            yield from references(value, kind)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_pipelines_and_pods_refer_to_is_there(overlay: str) -> None:
    found = objects(overlay)
    maps = {each["metadata"]["name"]: each["data"] for each in found if each["kind"] == "ConfigMap"}
    assert {"mlflow-tracking-uri", "s3-endpoint", "s3-region"} == maps[pod_settings.CONFIG_MAP].keys()
    for each in found:
        for reference in references(each, "configMapKeyRef"):
            assert reference["key"] in maps[reference["name"]]
    example = (MANIFESTS / "base" / "secrets.example.yaml").read_text()
    for secret in (pod_settings.MLFLOW_SECRET, pod_settings.S3_SECRET):
        assert f"name: {secret}\n" in example
    named(found, "PersistentVolumeClaim", "affectflow-data")
    host = maps["affectflow"]["mlflow-tracking-uri"].partition("://")[2]
    assert host in maps["affectflow-mlflow"]["allowed-hosts"].split(",")


def test_production_has_two_servers_that_are_never_both_taken_away() -> None:
    found = objects("prod")
    assert named(found, "Deployment", "affectflow-mlflow")["spec"]["replicas"] == 2
    assert named(found, "PodDisruptionBudget", "affectflow-mlflow")["spec"]["minAvailable"] == 1
    assert named(found, "Ingress", "affectflow-mlflow")["spec"]["tls"]
    assert named(found, "ConfigMap", "affectflow-mlflow")["data"]["pgsslmode"] == "verify-full"
    [runtime] = pod_specs(named(found, "TrainingRuntime", "affectflow-torch"))
    assert runtime["nodeSelector"] == {"nvidia.com/gpu.present": "true"}


def test_the_plugin_of_kfp_reads_the_secret_that_steps_read() -> None:
    config = json.loads((MANIFESTS / "kfp-mlflow-plugin" / "api-server-config.json").read_text())
    settings = config["plugins"]["mlflow"]["settings"]
    assert settings["injectUserEnvVars"] is True and settings["authType"] == "basic-auth"
    assert settings["credentialSecretRef"] == {"usernameKey": "username", "passwordKey": "password"}
    maps = named(objects("dev"), "ConfigMap", "affectflow-mlflow")["data"]
    assert config["plugins"]["mlflow"]["endpoint"].partition("://")[2] in maps["allowed-hosts"].split(",")


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_checkov_finds_nothing_that_is_not_answered(overlay: str, tmp_path: Path) -> None:
    checkov = os.environ.get("AFFECTFLOW_CHECKOV", "")
    if not checkov:
        pytest.skip("AFFECTFLOW_CHECKOV names no checkov; make test-manifests sets it")
    file = tmp_path / "all.yaml"
    file.write_text(kustomize(overlay))
    command = [checkov, "--skip-download", "--quiet", "--framework", "kubernetes", "--output", "json", "--file"]
    done = subprocess.run(
        [*command, str(file)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}
    )
    summary = json.loads(done.stdout)["summary"]
    assert summary["failed"] == 0 and summary["passed"] > 50, done.stdout[:4000]


def test_hadolint_finds_nothing_that_is_not_answered() -> None:
    done = subprocess.run(
        [program("hadolint"), str(ROOT / "docker" / "Dockerfile")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
