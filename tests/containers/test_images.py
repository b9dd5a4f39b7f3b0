"""What the images hold and what they leave out."""

import json
import subprocess

import pytest
from conftest import parts

LIMIT_MB = 900
OUTSIDE_TORCH_LIMIT_MB = 1200
LOCKED = ["--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]


def in_image(image: str, *command: str, options: list[str] = LOCKED) -> str:
    done = subprocess.run(["docker", "run", *options, image, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def inspect(image: str) -> dict:
    return json.loads(subprocess.run(["docker", "inspect", image], check=True, capture_output=True).stdout)[0]


@pytest.mark.parametrize("target", ["data", "torch"])
def test_it_is_healthy_on_a_read_only_root_as_a_user_without_rights(images: dict[str, str], target: str) -> None:
    if target not in parts():
        pytest.skip("PART=data")
    command = inspect(images[target])["Config"]["Healthcheck"]["Test"][1:]
    said = in_image(images[target], *command)
    assert "user 10001" in said and (("torch " in said) == (target == "torch"))


def test_without_scratch_space_it_says_what_is_missing(images: dict[str, str]) -> None:
    options = [word for word in LOCKED if word not in ("--tmpfs", "/tmp")]
    done = subprocess.run(["docker", "run", *options, images["data"]], capture_output=True, text=True)
    assert done.returncode == 2 and "mount an emptyDir" in done.stderr, done.stderr


@pytest.mark.parametrize("target", ["data", "torch", "mlflow"])
def test_no_compiler_pip_or_cache_is_left_in_what_we_add(images: dict[str, str], target: str) -> None:
    if target not in parts():
        pytest.skip("PART=data")
    script = (
        "command -v gcc cc g++ make; ls -d /opt/venv/bin/pip* /opt/venv/lib/python3*/site-packages/pip;"
        "find /root/.cache /tmp /var/cache/apt /build -type f 2>/dev/null; echo searched"
    )
    assert in_image(images[target], "sh", "-c", f"{{ {script}; }} 2>/dev/null").split() == ["searched"]


def test_it_is_labelled_with_version_and_revision_and_runs_as_no_root(images: dict[str, str]) -> None:
    config = inspect(images["data"])["Config"]
    labels = config["Labels"]
    assert config["User"] == "10001:10001"
    assert labels["org.opencontainers.image.version"] == "0.1.0"
    assert labels["org.opencontainers.image.revision"]


def test_the_data_image_is_small_and_has_no_torch(images: dict[str, str]) -> None:
    size = inspect(images["data"])["Size"] / 1e6
    print(f"affectflow-data: {size:.0f} MB")
    assert size <= LIMIT_MB
    done = in_image(images["data"], "python3", "-c", "import importlib.util as u; print(u.find_spec('torch'))")
    assert done.strip() == "None"


def test_the_torch_image_is_small_outside_torch(images: dict[str, str]) -> None:
    if "torch" not in parts():
        pytest.skip("PART=data")
    size = inspect(images["torch"])["Size"] / 1e6
    script = "cd /opt/venv/lib/python3*/site-packages && du -scm torch torch-* nvidia* triton* | tail -1"
    torch = int(in_image(images["torch"], "sh", "-c", script).split()[0]) * 1.048576
    print(f"affectflow-torch: {size:.0f} MB, of which torch, nvidia-* and triton {torch:.0f} MB")
    assert size - torch <= OUTSIDE_TORCH_LIMIT_MB


@pytest.mark.parametrize("target", ["data", "torch", "mlflow"])
def test_no_planted_secret_is_in_any_layer(images: dict[str, str], planted: dict[str, str], target: str) -> None:
    """Secrets stood in the environment of the build and in a file of its folder."""
    if target not in parts():
        pytest.skip("PART=data")
    save = subprocess.Popen(["docker", "save", images[target]], stdout=subprocess.PIPE)
    patterns = "\n".join(planted.values())
    found = subprocess.run(["grep", "-c", "-a", "-F", "-e", patterns], stdin=save.stdout, capture_output=True)
    assert save.wait() == 0 and found.stdout.strip() == b"0"
    # The search finds what is there.
    save = subprocess.Popen(["docker", "save", images[target]], stdout=subprocess.PIPE)
    marker = subprocess.run(
        ["grep", "-q", "-a", "-F", "org.opencontainers.image.revision"], stdin=save.stdout, capture_output=True
    )
    save.kill()
    save.wait()
    assert marker.returncode == 0
