"""Runs in a real MLflow on SQLite: one a model, whoever has started it, and none where tracking is off."""

import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from affectflow.errors import TrackingError
from affectflow.tracked_run import MlflowRun, Run, run_note
from affectflow.tracking import (
    DEFAULT_EXPERIMENT,
    PARENT_RUN_ID,
    existing_run,
    model_run,
    start_pipeline_run,
    step_run,
    surrounding_run,
    write_sidecar,
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def client(database: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    return MlflowClient(database)


@pytest.fixture
def plugin_run(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> str:
    """Do what KFP's MLflow plugin does before a task starts.

    It makes a run in an experiment of its own, logs the task's inputs as JSON under their bare names, and names
    the run in the task's environment.
    """
    experiment = client.create_experiment(f"the plugin's, {os.urandom(4).hex()}")
    run_id = str(client.create_run(experiment, run_name="fine-tune").info.run_id)
    client.log_param(run_id, "epochs", "20")
    client.log_param(run_id, "backbone", '"se_resnet50"')
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    return run_id


def test_without_a_tracking_uri_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with model_run(name="a model", row_key="k", tags={}) as run:
        run.log_params({"epochs": 3}, prefix="train")
        run.log_metrics({"val_uar": 0.5})
    assert (run.run_id, list(tmp_path.iterdir())) == ("", [])


def test_a_model_is_found_again_by_its_row_key_until_it_has_finished(client: MlflowClient) -> None:
    with (
        pytest.raises(RuntimeError),
        model_run(name="killed", row_key="k", tags={}) as first,
    ):
        raise RuntimeError
    assert client.get_run(first.run_id).info.status == "FAILED"
    with model_run(name="gone on with", row_key="k", tags={}) as second:
        pass
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "FINISHED"
    with model_run(name="another", row_key="k", tags={}) as third:
        pass
    assert third.run_id != first.run_id


def test_a_model_goes_into_the_run_that_kfps_plugin_has_made(client: MlflowClient, plugin_run: str) -> None:
    with model_run(name="10 · se_resnet50", row_key="k", tags={"loss": "softmax"}) as run:
        run.log_params({"epochs": 3, "backbone": "resnet50"}, prefix="train")
        run.log_metrics({"val_uar": 0.5}, step=1)
    found = client.get_run(plugin_run)
    assert run.run_id == plugin_run
    assert found.data.params == {
        "epochs": "20", "backbone": '"se_resnet50"', "train.epochs": "3", "train.backbone": "resnet50",
    }  # fmt: skip
    assert (found.data.tags["row_key"], found.data.tags["loss"]) == ("k", "softmax")
    assert found.data.metrics["val_uar"] == 0.5
    assert client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"]) is None


def test_an_evaluation_goes_to_the_models_run_whatever_run_the_plugin_names(
    client: MlflowClient, plugin_run: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with model_run(name="a model", row_key="k", tags={}) as trained:
        write_sidecar(tmp_path, trained)
    experiment = client.get_run(plugin_run).info.experiment_id
    other = str(client.create_run(experiment, run_name="evaluate").info.run_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", other)
    existing_run(tmp_path).log_metrics({"test.uar": 0.6})
    assert client.get_run(plugin_run).data.metrics == {"test.uar": 0.6}
    assert client.get_run(other).data.metrics == {}


def test_a_step_without_a_model_writes_to_the_plugins_run_rather_than_the_parents(
    client: MlflowClient, plugin_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PARENT_RUN_ID, "not this one")
    with step_run("ingest") as run:
        run.set_tags({"faces": "3"})
    assert client.get_run(plugin_run).data.tags["faces"] == "3"


def test_a_local_pipelines_run_is_the_parent_of_its_models(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parent = start_pipeline_run(name="train-one", artifact_root=tmp_path, params={"train_epochs": 3})
    monkeypatch.setenv(PARENT_RUN_ID, parent)
    with model_run(name="a model", row_key="k", tags={}) as run:
        pass
    assert client.get_run(run.run_id).data.tags["mlflow.parentRunId"] == parent
    assert client.get_run(parent).data.params == {"pipeline.train_epochs": "3"}


def test_a_sidecar_of_a_run_that_is_gone_is_one_line(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "tracking.json").write_text('{"run_id": "0123456789abcdef0123456789abcdef"}')
    with pytest.raises(TrackingError, match="wanted a run or model that it has") as error:
        existing_run(tmp_path)
    assert "\n" not in str(error.value)


def test_the_experiment_has_a_name_of_ours_unless_one_is_set(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    with model_run(name="a model", row_key="k", tags={}) as run:
        pass
    experiment = client.get_run(run.run_id).info.experiment_id
    assert client.get_experiment(experiment).name == DEFAULT_EXPERIMENT


def test_a_summary_leads_to_its_run_by_address_or_by_id(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_note(Run()) == ""
    assert run_note(surrounding_run()) == ""
    run_id = start_pipeline_run(name="p", artifact_root=None, params={})
    monkeypatch.setenv(PARENT_RUN_ID, run_id)
    assert surrounding_run().run_id == run_id
    assert f"`{run_id}`" in run_note(surrounding_run())
    monkeypatch.setattr(MlflowRun, "url", lambda self: f"http://server/#/runs/{self.run_id}")
    assert run_note(surrounding_run()) == f"\n[The run in MLflow](http://server/#/runs/{run_id})\n"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert run_note(surrounding_run()) == ""
