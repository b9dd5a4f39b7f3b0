"""Submission to KFP, against a server that speaks its API as the SDK calls it."""

import hashlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp_server import KfpServer
from s3_server import S3Server

from affectflow import __version__
from affectflow.artifacts import sha256_file
from pipelines import submit

TOKEN = "planted-token-7f3a"  # noqa: S105
PARAMETERS = ["--data-source", "/nowhere/faces", "--epochs", "3", "--learning-rate", "0.01", "--stop-on-collapse"]
ARGV = ["train_one", *PARAMETERS]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    for name in (submit.TOKEN_VARIABLE, submit.CA_VARIABLE, "KF_PIPELINES_UI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(submit, "POLL_SECONDS", 0.01)
    monkeypatch.setattr("kfp.client.Client._LOCAL_KFP_CONTEXT", "/nowhere/context.json")
    with KfpServer() as server:
        yield server
        server.shutdown()


def one_line(err: str) -> str:
    lines = err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    return lines[0]


def test_first_submission_uploads_and_the_second_of_the_same_spec_uploads_nothing(server, capsys) -> None:
    for _ in range(2):
        assert submit.main(["--endpoint", server.url, *ARGV]) == 0
    assert [pipeline["display_name"] for pipeline in server.pipelines] == ["train-one"]
    assert len(server.versions) == 1 and len(server.experiments) == 1 and len(server.runs) == 2
    version = server.versions[0]
    assert re.fullmatch(re.escape(__version__) + "-[0-9a-f]{12}", version["display_name"])
    assert version["pipeline_spec"]["pipelineInfo"]["name"] == "train-one"
    assert server.experiments[0]["display_name"] == "affectflow"
    for run in server.runs:
        reference = {"pipeline_id": "pipeline_id-0", "pipeline_version_id": "pipeline_version_id-0"}
        assert run["pipeline_version_reference"] == reference
        assert run["experiment_id"] == "experiment_id-0"
    out = capsys.readouterr().out
    assert f"{server.url}/#/runs/details/run_id-0" in out and f"{server.url}/#/runs/details/run_id-1" in out


def test_another_spec_becomes_another_version_with_the_images_asked_for(server) -> None:
    command = [sys.executable, "-m", "pipelines.submit", "--endpoint", server.url]
    images = ["--registry", "registry.example.com/team", "--tag", "t1"]
    env = {**os.environ, "HOME": "/nowhere"}
    for flags in ([], images):
        subprocess.run([*command, *flags, *ARGV], check=True, capture_output=True, env=env)
    assert len(server.pipelines) == 1 and len(server.versions) == 2
    executors = server.versions[1]["pipeline_spec"]["deploymentSpec"]["executors"]
    assert executors["exec-fine-tune"]["container"]["image"] == "registry.example.com/team/affectflow-torch:t1"
    assert server.runs[1]["pipeline_version_reference"]["pipeline_version_id"] == "pipeline_version_id-1"


def test_parameters_arrive_with_their_types(server) -> None:
    assert submit.main(["--endpoint", server.url, *ARGV]) == 0
    parameters = server.runs[0]["runtime_config"]["parameters"]
    wanted = {
        "data_source": "/nowhere/faces",
        "train_epochs": 3,
        "train_learning_rate": 0.01,
        "train_stop_on_collapse": True,
    }
    assert parameters == wanted
    assert {name: type(value) for name, value in parameters.items()} == {
        name: type(value) for name, value in wanted.items()
    }


def test_experiment_and_namespace_are_those_asked_for(server) -> None:
    flags = ["--endpoint", server.url, "--experiment", "mine", "--namespace", "team-a"]
    assert submit.main([*flags, *ARGV]) == 0
    assert [(e["display_name"], e["namespace"]) for e in server.experiments] == [("mine", "team-a")]
    assert server.pipelines[0]["namespace"] == "team-a"


def test_the_token_is_in_every_request_and_printed_nowhere(server, capsys, monkeypatch) -> None:
    server.token = TOKEN
    monkeypatch.setenv(submit.TOKEN_VARIABLE, TOKEN + "\n")
    assert submit.main(["--endpoint", server.url, "--wait", *ARGV]) == 0
    assert len(server.requests) > 6
    assert {headers.get("authorization") for _, _, headers in server.requests} == {f"Bearer {TOKEN}"}
    server.refuse_runs_with = f"will not run this for {TOKEN}"
    assert submit.main(["--endpoint", server.url, *ARGV]) == 2
    server.token = TOKEN[::-1]
    assert submit.main(["--endpoint", server.url, *ARGV]) == 2
    out, err = capsys.readouterr()
    assert "will not run this for [token]" in err and "status 401" in err
    assert TOKEN not in out + err


def test_a_token_that_cannot_be_one_is_refused_without_showing_it(server, capsys, monkeypatch) -> None:
    monkeypatch.setenv(submit.TOKEN_VARIABLE, f"{TOKEN}\r\nX: y")
    assert submit.main(["--endpoint", server.url, *ARGV]) == 2
    out, err = capsys.readouterr()
    assert one_line(err).startswith("error: KFP_TOKEN: got ") and TOKEN not in out + err
    assert server.requests == []


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["PENDING", "RUNNING", "SUCCEEDED"], 0),
        (["RUNNING", "FAILED"], 1),
        (["RUNNING", "CANCELING", "CANCELED"], 1),
    ],
)
def test_wait_follows_the_run_to_its_end(server, capsys, states: list[str], code: int) -> None:
    server.states = list(states)
    assert submit.main(["--endpoint", server.url, "--wait", *ARGV]) == code
    out, err = capsys.readouterr()
    assert re.findall(r"run run_id-0: (\w+)", out) == states
    if states[-1] == "FAILED":
        assert one_line(err).endswith("steps that failed: fine-tune")


def test_wait_outlives_an_endpoint_that_is_away_for_a_moment(server, capsys) -> None:
    server.break_next_looks = 3
    assert submit.main(["--endpoint", server.url, "--wait", *ARGV]) == 0
    server.break_next_looks = 1000
    assert submit.main(["--endpoint", server.url, "--wait", *ARGV]) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert warning == "warning: run run_id-1 goes on without being followed"
    assert "status 503: away" in one_line(error)


def test_a_refused_login_is_one_line_that_names_the_variable(server, capsys) -> None:
    server.token = TOKEN
    assert submit.main(["--endpoint", server.url, *ARGV]) == 2
    line = one_line(capsys.readouterr().err)
    assert "status 401 to no token" in line and "KFP_TOKEN" in line
    assert len(server.requests) == 1 and not server.runs


def test_an_endpoint_that_is_away_is_one_line_and_quick(server, capsys) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        start = time.monotonic()
        assert submit.main(["--endpoint", f"http://127.0.0.1:{free.getsockname()[1]}", *ARGV]) == 2
    assert time.monotonic() - start < 5
    assert "got no answer" in one_line(capsys.readouterr().err)


def test_an_endpoint_that_never_answers_is_given_up(server, capsys, monkeypatch) -> None:
    monkeypatch.setattr(submit, "PROBE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert submit.main(["--endpoint", f"http://127.0.0.1:{silent.getsockname()[1]}", *ARGV]) == 2
    assert "got no answer (ReadTimeoutError)" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("endpoint", "ca_file", "said"),
    [
        ("kfp.example.com", "", "--endpoint: got kfp.example.com"),
        ("https://127.0.0.1:1", "/nowhere/ca.pem", "KFP_SSL_CA_CERT: got /nowhere/ca.pem"),
    ],
)
def test_bad_settings_are_one_line(server, capsys, monkeypatch, endpoint: str, ca_file: str, said: str) -> None:
    monkeypatch.setenv(submit.CA_VARIABLE, ca_file)
    assert submit.main(["--endpoint", endpoint, *ARGV]) == 2
    assert said in one_line(capsys.readouterr().err)


def test_a_server_that_is_not_kfp_is_named_as_such(server, capsys) -> None:
    assert submit.main(["--endpoint", f"{server.url}/elsewhere", *ARGV]) == 2
    assert "got status 404" in one_line(capsys.readouterr().err)


def test_an_unknown_parameter_is_one_line_before_anything_is_asked(server, capsys) -> None:
    with pytest.raises(SystemExit) as leaving:
        submit.main(["--endpoint", server.url, "train_one", "--data-source", "synthetic", "--epoch", "3"])
    assert leaving.value.code == 2
    assert "wanted --epochs perhaps" in one_line(capsys.readouterr().err)
    assert server.requests == []


def test_digests_follow_weights_in_s3_and_a_line_says_why_one_cannot_be_read(s3: S3Server, capsys) -> None:
    s3.client().put_object(Bucket="open", Key="submit/w.safetensors", Body=b"weights")
    given = {"plan_weights_imagenet": "s3://open/submit/w.safetensors"}
    digest = hashlib.sha256(b"weights").hexdigest()
    assert submit.add_known_digests(given) == {**given, "plan_weights_imagenet_digest": digest}
    assert capsys.readouterr().out == ""
    lacking = {"plan_weights_imagenet": "s3://open/submit/none"}
    assert submit.add_known_digests(lacking) == lacking
    [line] = capsys.readouterr().out.splitlines()
    assert "no such object" in line and "--plan-weights-imagenet-digest" in line


def test_digests_follow_what_lies_here_and_a_line_says_what_does_not(tmp_path: Path, capsys) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"weights")
    given = {"data_source": "/nowhere/faces", "train_weights": str(weights)}
    assert submit.add_known_digests(given) == {**given, "train_weights_digest": sha256_file(weights)}
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "/nowhere/faces" in line and "--data-source-digest" in line
    given["data_source_digest"] = "mine"
    assert submit.add_known_digests(given)["data_source_digest"] == "mine"
    assert capsys.readouterr().out == ""
