"""Images, servers and planted secrets for the tests that run containers; `make test-containers` starts them."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import stack as stack_module

ROOT = Path(__file__).parents[2]


def parts() -> set[str]:
    """What is tested: nothing without `make test-containers`, the data image alone with PART=data."""
    return {"": set(), "data": {"data"}, "all": {"data", "torch", "mlflow"}}[
        os.environ.get("AFFECTFLOW_CONTAINERS", "")
    ]


@pytest.fixture(scope="session")
def planted() -> dict[str, str]:
    """Secrets in this process's environment, under names of the kind that people use."""
    names = ("AWS_SECRET_ACCESS_KEY", "KFP_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PIP_PASSWORD", "PGPASSWORD")
    return {name: f"planted{secrets.token_hex(12)}" for name in names}


@pytest.fixture(scope="session")
def images(planted: dict[str, str]) -> dict[str, str]:
    """Build the images with secrets all around, and return target → name."""
    if not parts():
        pytest.skip("containers are tested by make test-containers")
    file = ROOT / "runs" / "planted.env"
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{name}={value}\n" for name, value in planted.items()))
    targets = [word for target in sorted(parts()) for word in ("--target", target)]
    command = [sys.executable, str(ROOT / "docker" / "build.py"), *targets, "--network", "host", "--tag", "tested"]
    try:
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, **planted})
    finally:
        file.unlink()
    return {target: f"affectflow-{target}:tested" for target in parts()}


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A folder that other users may enter: PostgreSQL's, and the images'."""
    folder = Path(tempfile.mkdtemp(prefix="affectflow-containers-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stack(place: Path) -> Iterator[Path]:
    """PostgreSQL, S3 and MLflow."""
    folder = place / "stack"
    stack_module.start(folder)
    yield folder
    stack_module.stop(folder)
