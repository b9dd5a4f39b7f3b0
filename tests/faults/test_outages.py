"""A real MLflow server that goes away, is slow, or answers 403 or 500: nothing is lost, nothing is there twice."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy, faulty_proxy
from local_servers import free_port, mlflow_server
from mlflow import MlflowClient
from small_pipeline import TINY, SmallPipeline
from step_server import StepServer

from affectflow.errors import TrackingError
from affectflow.tracking import model_run
from affectflow.tracking_journal import deliver_all

pytestmark = pytest.mark.nightly

EPOCHS = TINY["epochs"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with faulty_proxy(server) as found:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", found.url)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("AFFECTFLOW_RETRY_SECONDS", "20")
        yield found


def log_everything(proxy: FaultyProxy, place: Path, fault: dict[str, object]) -> tuple[str, float]:
    """Train three "epochs", the fault after the first; return the run and the seconds that logging held it up."""
    place.mkdir(exist_ok=True)
    (place / "curve.txt").write_text("1 2 3")
    with model_run(name="m", row_key=f"key {place}", tags={"loss": "softmax"}, journal=str(place / "j")) as run:
        run.log_params({"epochs": 3}, prefix="train")
        run.log_metrics({"uar": 0.1, "nan": float("nan")}, step=1)
        time.sleep(0.2)
        vars(proxy).update(fault)
        began = time.monotonic()
        run.log_metrics({"uar": 0.2}, step=2)
        run.log_metrics({"uar": 0.3}, step=3)
        run.log_metrics({"uar": 0.3}, step=3)  # as training says again when it goes on
        run.log_file(place / "curve.txt", folder="training")
        held_up = time.monotonic() - began
        time.sleep(0.8)
        if "delay" not in fault:
            proxy.heal()
    return run.run_id, held_up


@pytest.mark.parametrize(
    "fault",
    [{"down": True}, {"status": 403}, {"status": 500}, {"status": 503}, {"cut_answers": True}, {"delay": 0.7}],
    ids=str,
)
def test_what_is_logged_in_an_outage_arrives_once(
    proxy: FaultyProxy, server: str, tmp_path: Path, fault: dict[str, object]
) -> None:
    run_id, held_up = log_everything(proxy, tmp_path, fault)
    client = MlflowClient(server)
    run = client.get_run(run_id)
    assert proxy.faults
    assert held_up < 0.5  # training waits for no server
    assert [(point.step, point.value) for point in client.get_metric_history(run_id, "uar")] == [
        (1, 0.1), (2, 0.2), (3, 0.3),
    ]  # fmt: skip
    assert run.data.params == {"train.epochs": "3"}
    assert run.data.tags["loss"] == "softmax"
    assert run.info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(run_id, "training")] == ["training/curve.txt"]
    assert not [path for path in (tmp_path / "j").rglob("*") if path.is_file()]


def test_what_is_left_at_the_end_is_sent_later(
    proxy: FaultyProxy,
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AFFECTFLOW_RETRY_SECONDS", "0.3")
    with model_run(name="m", row_key="left", tags={}, journal=str(tmp_path)) as run:
        proxy.down = True
        for step in (1, 2):
            run.log_metrics({"uar": step / 10}, step=step)
    said = capsys.readouterr().err
    assert "they wait in" in said
    assert "python -m affectflow.tracking_journal" in said
    proxy.heal()
    monkeypatch.setenv("AFFECTFLOW_RETRY_SECONDS", "20")
    sent, left = deliver_all(str(tmp_path))
    assert sent > 0
    assert left == 0
    assert deliver_all(str(tmp_path)) == (0, 0)
    history = MlflowClient(server).get_metric_history(run.run_id, "uar")
    assert [point.value for point in history] == [0.1, 0.2]
    assert MlflowClient(server).get_run(run.run_id).info.status == "FINISHED"


def test_a_killed_run_is_gone_on_with_while_the_server_is_away(
    proxy: FaultyProxy, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFFECTFLOW_RETRY_SECONDS", "0.3")
    with pytest.raises(KeyError), model_run(name="m", row_key="killed", tags={}, journal=str(tmp_path)) as run:
        proxy.down = True
        run.log_metrics({"uar": 0.1}, step=1)
        raise KeyError
    with model_run(name="m", row_key="killed", tags={}, journal=str(tmp_path)) as again:
        again.log_metrics({"uar": 0.1}, step=1)
        again.log_metrics({"uar": 0.2}, step=2)
        proxy.heal()
        monkeypatch.setenv("AFFECTFLOW_RETRY_SECONDS", "20")
    assert again.run_id == run.run_id
    history = MlflowClient(server).get_metric_history(run.run_id, "uar")
    assert [point.value for point in history] == [0.1, 0.2]
    assert MlflowClient(server).get_run(run.run_id).info.status == "FINISHED"


def test_strict_tracking_makes_an_outage_an_error(
    proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("AFFECTFLOW_TRACKING", "strict")
    with (
        pytest.raises((TrackingError, MlflowException)),
        model_run(name="m", row_key="strict", tags={}, journal=str(tmp_path)) as run,
    ):
        proxy.status = 500
        run.log_metrics({"uar": 0.1}, step=1)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_real_server_that_is_stopped_and_started_again_has_all_of_a_training(
    steps: StepServer, pipeline: SmallPipeline, tmp_path: Path
) -> None:
    folder, port = tmp_path / "mlflow", free_port()
    folder.mkdir()
    log = tmp_path / "log"
    environment = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}", "AFFECTFLOW_RETRY_SECONDS": "60"}
    out = tmp_path / "out"
    flags = [*pipeline.flags("fine_tune", epochs=6), "--output-dir", str(out)]
    with mlflow_server(folder, port=port):
        training = steps.start("fine_tune", flags, environment=environment, log=str(log))
        while not log.is_file() or "epoch 1/" not in log.read_text():
            time.sleep(0.02)
    with mlflow_server(folder, port=port) as url:
        ended = training.wait()
        client = MlflowClient(url)
        run = client.search_runs([client.get_experiment_by_name("affectflow").experiment_id])[0]
        history = client.get_metric_history(run.info.run_id, "val_uar")
        files = {file.path for file in client.list_artifacts(run.info.run_id, "training")}
    assert ended.code == 0, ended.output
    assert [point.step for point in history] == list(range(1, 7))
    assert run.info.status == "FINISHED"
    assert len(run.outputs.model_outputs) == 1
    assert {"training/history", "training/learning_curves.png", "training/model.json"} <= files
