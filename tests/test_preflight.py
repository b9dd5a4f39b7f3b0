"""What a step checks at its start: every fault is one line that names the setting to mend."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from affectflow.errors import SettingsError, TrackingError
from affectflow.preflight import check_surroundings
from affectflow.steps import run_step

SECRET = "planted-5d1c"  # noqa: S105 - planted to be looked for


class Server(ThreadingHTTPServer):
    """Answers like MLflow; ``answers`` holds those that come first, ``files`` the status of the list of files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, str]] = []
        self.files = 200
        self.asked: list[tuple[str, str]] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization", "")))
        if self.server.answers:
            status, body = self.server.answers.pop(0)
        else:
            status, body = (self.server.files if "mlflow-artifacts" in self.path else 200), "{}"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AFFECTFLOW_RETRY_SECONDS", "1.5")
        yield server
        server.shutdown()


def test_a_server_that_is_well_is_asked_twice_with_the_login(server: Server, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    check_surroundings({})
    assert [path.partition("?")[0] for path, _ in server.asked] == [
        "/api/2.0/mlflow/experiments/search", "/api/2.0/mlflow-artifacts/artifacts",
    ]  # fmt: skip
    assert all(login.startswith("Basic ") for _, login in server.asked)


def test_a_server_that_is_away_for_a_moment_is_asked_again(server: Server, capsys) -> None:
    server.answers = [(503, ""), (502, "")]
    check_surroundings({})
    assert capsys.readouterr().err.count("is away") == 2


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, "", "Secret kfp-mlflow-credentials"),
        (403, "Invalid Host header - possible DNS rebinding attack detected", "--allowed-hosts"),
        (404, "<html>", "check that MLFLOW_TRACKING_URI is a server of MLflow"),
    ],
)
def test_a_refusal_is_final_and_names_what_to_mend(server: Server, status: int, body: str, said: str) -> None:
    server.answers = [(status, body)]
    with pytest.raises(TrackingError, match=said) as raised:
        check_surroundings({})
    assert len(server.asked) == 1 and "\n" not in str(raised.value)


def test_a_server_whose_own_s3_fails_is_told_apart(server: Server, monkeypatch) -> None:
    monkeypatch.setenv("AFFECTFLOW_TRACKING", "required")
    server.files = 500
    with pytest.raises(TrackingError, match="S3 address, bucket and keys of the MLflow server"):
        check_surroundings({})


def test_a_server_that_leaves_files_to_its_clients_is_well(server: Server) -> None:
    server.answers = [(200, "{}"), (503, "Endpoint disabled: the server runs with `--no-serve-artifacts`")]
    check_surroundings({})


def test_away_from_a_cluster_a_server_that_stays_away_is_a_warning(server: Server, monkeypatch, capsys) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    check_surroundings({})
    assert "goes on without it" in capsys.readouterr().err


def test_a_server_that_stays_away_is_given_up_in_time(server: Server, monkeypatch) -> None:
    monkeypatch.setenv("AFFECTFLOW_TRACKING", "required")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    start = time.monotonic()
    with pytest.raises(TrackingError, match=r"no answer .*check MLFLOW_TRACKING_URI"):
        check_surroundings({})
    assert time.monotonic() - start < 10


def test_on_a_cluster_a_missing_address_is_an_error_and_elsewhere_it_is_not(monkeypatch) -> None:
    check_surroundings({})
    monkeypatch.setenv("AFFECTFLOW_TRACKING", "required")
    with pytest.raises(TrackingError, match="ConfigMap affectflow"):
        check_surroundings({})


def test_a_folder_that_cannot_be_written_is_named_with_its_flag(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"--checkpoint-dir: .*writable for user \d+"):
        check_surroundings({"checkpoint_dir": str(tmp_path / "file" / "checkpoints")})
    check_surroundings({"checkpoint_dir": str(tmp_path / "new")})
    assert not list((tmp_path / "new").iterdir()), "nothing is left behind"


def test_a_gpu_that_torch_cannot_use_is_not_passed_over(monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "GPU-1")
    with pytest.raises(SettingsError, match="pod_accelerator_count"):
        check_surroundings({})
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "void")
    check_surroundings({})


def test_a_step_does_nothing_before_all_of_it_is_checked(server: Server, capsys, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    server.answers = [(401, f"no {SECRET}")]
    ran: list[str] = []
    with pytest.raises(SystemExit) as leaving:
        run_step(lambda **_: ran.append("ran"), source="synthetic")
    assert leaving.value.code == 2 and not ran
    out, err = capsys.readouterr()
    assert err.startswith("error: MLflow at ") and SECRET not in out + err
