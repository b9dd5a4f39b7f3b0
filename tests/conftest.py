"""Shared by all tests: data, and a clean environment."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from affectflow.tracking import PARENT_RUN_ID


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test writes to a tracking server unless it sets one."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", PARENT_RUN_ID):
        monkeypatch.delenv(name, raising=False)
    yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real faces and weights; tests that need it skip where it is absent."""
    folder = os.environ.get("AFFECTFLOW_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real test data is absent: AFFECTFLOW_TEST_DATA names no folder")
    return Path(folder)
