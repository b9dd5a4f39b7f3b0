"""The doctor: each check finds what is wrong with a real thing, and says how to mend it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from local_servers import answering_server, free_port, mlflow_server
from s3_server import S3Server

from affectflow.data.synthetic import write_synthetic_affectnet
from affectflow.doctor.__main__ import main
from affectflow.doctor.servers import without_password


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_synthetic_affectnet(folder, images=120, seed=0)
    return folder


def diagnose(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, dict[str, dict[str, str]]]:
    code = main([*flags, "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["healthy"] is (code == 0)
    return code, {finding["name"]: finding for finding in answer["findings"]}


def test_a_machine_that_runs_these_tests_is_healthy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, found = diagnose(capsys, "--work", str(tmp_path))
    assert code == 0
    assert found["Python"]["found"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert found["torch"]["status"] == found["packages"]["status"] == "ok"
    assert found["dataset"]["status"] == "skipped"


def test_the_table_names_what_is_to_mend_and_the_exit_code_is_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "affectflow.doctor", "--source", str(tmp_path), "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == "to mend: dataset"
    assert "pass the folder of the dataset itself" in done.stdout
    assert done.stderr == ""


def test_a_missing_or_wrong_package_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    monkeypatch.setattr(metadata, "requires", lambda _: ["numpy>=99", "no-such-package>=1", "kfp; extra == 'dev'"])
    code, found = diagnose(capsys)
    assert code == 2
    assert "missing: no-such-package; wrong: numpy " in found["packages"]["found"]


def test_a_dataset_is_counted_and_opened(capsys: pytest.CaptureFixture[str], faces: Path) -> None:
    code, found = diagnose(capsys, "--source", str(faces))
    assert code == 0
    assert found["dataset"]["found"].startswith("layout manual, ")
    assert found["rarest expression"]["status"] == "note"
    assert found["pictures"]["status"] == "ok"


def test_pictures_that_are_not_there_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = "".join(f"face{i}.png,{i % 8}\n" for i in range(64))
    (tmp_path / "labels.csv").write_text("path,label\n" + rows)
    code, found = diagnose(capsys, "--source", str(tmp_path))
    assert code == 2
    assert "64 of 64 looked for are missing" in found["pictures"]["found"]


def test_weights_are_loaded_into_the_backbone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from affectflow.models import create_backbone

    save_file(create_backbone("test_resnet").state_dict(), tmp_path / "weights.safetensors")
    flags = ["--weights", str(tmp_path / "weights.safetensors"), "--backbone"]
    code, found = diagnose(capsys, *flags, "test_resnet")
    assert (code, found["weights"]["status"]) == (0, "ok")
    code, found = diagnose(capsys, *flags, "resnet10t")
    assert (code, found["weights"]["status"]) == (2, "bad")
    code, found = diagnose(capsys, *flags, "resnet11t")
    assert "did you mean" in found["weights"]["mend"]


def test_a_database_of_mlflow_is_not_made_by_looking(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, found = diagnose(capsys, "--mlflow", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (code, found["MLflow"]["status"]) == (0, "note")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mlflow.db").write_text("no database" * 1000)
    code, found = diagnose(capsys, "--mlflow", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (code, found["MLflow"]["status"]) == (2, "bad")


@pytest.mark.slow
def test_an_mlflow_server_answers_and_one_that_does_not_know_its_host_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # set by the check; put back afterwards
    with mlflow_server(tmp_path, allowed_hosts="127.0.0.1:*") as uri:
        code, found = diagnose(capsys, "--mlflow", uri)
        assert (code, found["MLflow"]["found"]) == (0, f"{uri} answers: 1 experiment")
        code, found = diagnose(capsys, "--mlflow", uri.replace("127.0.0.1", "localhost"))
        assert code == 2
        assert "--allowed-hosts" in found["MLflow"]["mend"]


def test_servers_that_are_away_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", away)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    code, found = diagnose(capsys, "--mlflow", away, "--kfp", away, "--s3", "s3://bucket/faces")
    assert code == 2
    for name in ("MLflow", "KFP", "S3"):
        assert found[name]["status"] == "bad"
        assert found[name]["mend"].startswith("check ")


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [(200, "{}", "ok"), (200, "<html>login</html>", "bad"), (403, "{}", "bad"), (404, "{}", "bad")],
)
def test_a_kfp_endpoint_is_told_from_a_login_page(
    capsys: pytest.CaptureFixture[str], status: int, body: str, outcome: str
) -> None:
    with answering_server(status, body) as url:
        code, found = diagnose(capsys, "--kfp", url)
    assert found["KFP"]["status"] == outcome
    assert code == (0 if outcome == "ok" else 2)


def test_s3_without_credentials_or_with_a_wrong_url_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    _, found = diagnose(capsys, "--s3", "s3://bucket/faces")
    assert found["S3"]["found"] == "s3://bucket/faces: no credentials"
    _, found = diagnose(capsys, "--s3", "bucket/faces")
    assert "wanted s3://bucket/prefix" in found["S3"]["found"]


@pytest.mark.slow
def test_a_bucket_is_listed_and_what_is_wrong_with_it_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, s3_server: S3Server, faces: Path
) -> None:
    s3_server.client().create_bucket(Bucket="doctor")
    s3_server.upload_folder(faces, "doctor", "faces")
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    code, found = diagnose(capsys, "--s3", "s3://doctor/faces", "--source", "s3://doctor/faces")
    assert (code, found["S3"]["status"], found["pictures"]["status"]) == (0, "ok", "ok")
    code, found = diagnose(capsys, "--s3", "s3://doctor/none")
    assert (code, found["S3"]["mend"]) == (0, "check the prefix")
    code, found = diagnose(capsys, "--s3", "s3://no-such-bucket")
    assert (code, found["S3"]["mend"]) == (2, "make the bucket, or check its name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    code, found = diagnose(capsys, "--s3", "s3://doctor/faces")
    assert (code, found["S3"]["mend"]) == (2, "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")


def test_a_password_in_a_uri_is_not_shown() -> None:
    assert without_password("postgresql://user:secret@db/mlflow") == "postgresql://user:***@db/mlflow"
    assert without_password("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
