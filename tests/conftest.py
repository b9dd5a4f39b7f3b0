"""Shared by all tests: data, and a clean environment."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import S3Server, run_s3_server

from affectflow.progress import VERBOSITY
from affectflow.storage import open_storage
from affectflow.tracking import PARENT_RUN_ID


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test writes to a tracking server unless it sets one."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", PARENT_RUN_ID):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(VERBOSITY, "normal")  # --quiet would stay set for the tests that follow
    yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real faces and weights; tests that need it skip where it is absent."""
    folder = os.environ.get("AFFECTFLOW_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real test data is absent: AFFECTFLOW_TEST_DATA names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with the buckets ``open`` and ``closed``."""
    with run_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The S3 server, with its owner's keys in the environment."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    open_storage.cache_clear()  # clients keep the address and keys with which they were made
    yield s3_server
    open_storage.cache_clear()
