"""Models in a workspace, which has no logged models of MLflow 3: logged, registered, loaded, found, served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import mlflow
import mlflow.sklearn
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LinearRegression

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.runtime import run_models

matplotlib.use("Agg")
DATA = np.array([[0.0], [1.0], [2.0]])
MODEL = LinearRegression().fit(DATA, [1.0, 3.0, 5.0])


def predicts(uri: str) -> bool:
    model = mlflow.pyfunc.load_model(uri)
    return bool(np.allclose(model.predict(DATA), [1, 3, 5]))


@pytest.fixture(autouse=True)
def told_anew() -> Iterator[None]:
    """The line about the fallback is said once in a process; here once in a test."""
    run_models._told.clear()
    yield


@pytest.fixture
def name() -> str:
    return f"a-model-{uuid.uuid4().hex}"


def test_a_model_is_logged_registered_and_loaded_by_every_uri(
    client: MlflowClient, experiment: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_param("alpha", 0.3)
        logged = mlflow.sklearn.log_model(
            MODEL, name="model", registered_model_name=name, input_example=DATA, tags={"colour": "blue"}, step=3
        )
        mlflow.log_metric("loss", 0.5, step=3)
        again = mlflow.sklearn.log_model(MODEL, name="second", params={"depth": 3})
    told = [one.getMessage() for one in caplog.records if "logged models" in one.getMessage()]
    assert len(told) == 1 and "search_logged_models finds none" in told[0] and "\n" not in told[0]
    seen = client.get_run(run.info.run_id)
    assert (seen.data.metrics, seen.data.params) == ({"loss": 0.5}, {"alpha": "0.3", "depth": "3"})
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {"model", "second"}
    assert "model/MLmodel" in {one.path for one in client.list_artifacts(run.info.run_id, "model")}
    for uri in (
        logged.model_uri,
        again.model_uri,
        f"runs:/{run.info.run_id}/model",
        f"{run.info.artifact_uri}/model",
        f"models:/{name}/1",
        f"models:/{name}/latest",
    ):
        assert predicts(uri), uri
    version = client.get_model_version(name, "1")
    assert (version.run_id, version.source) == (run.info.run_id, f"{run.info.artifact_uri}/model")
    assert mlflow.models.get_model_info(logged.model_uri).signature is not None
    assert client.search_logged_models([experiment]) == []


def test_a_model_s_own_record_is_its_run_s(client: MlflowClient, experiment: str) -> None:
    mlflow.set_experiment(experiment_id=experiment)
    logged = mlflow.sklearn.log_model(MODEL, name="a name with ü # @ ?", model_type="tree", tags={"colour": "blue"})
    model = mlflow.get_logged_model(logged.model_id)
    assert (model.name, model.model_type, model.tags["colour"]) == ("a name with ü # @ ?", "tree", "blue")
    assert client.get_run(model.source_run_id).info.status == "FINISHED"
    client.set_logged_model_tags(model.model_id, {"checked": "yes"})
    client.log_model_params(model.model_id, {"late": "1"})
    client.delete_logged_model_tag(model.model_id, "colour")
    model = client.get_logged_model(model.model_id)
    assert (model.tags.get("checked"), "colour" in model.tags, model.params["late"]) == ("yes", False, "1")
    mlflow.log_metric("of the model", 1.0, model_id=model.model_id, run_id=model.source_run_id)
    assert client.get_run(model.source_run_id).data.metrics == {"of the model": 1.0}
    assert predicts(logged.model_uri)
    with pytest.raises(MlflowException, match="delete the run instead"):
        client.delete_logged_model(model.model_id)


def test_versions_have_aliases_stages_and_tags(client: MlflowClient, experiment: str, name: str) -> None:
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.sklearn.log_model(MODEL, name="model")
    for _ in range(2):
        mlflow.register_model(f"runs:/{run.info.run_id}/model", name)
    client.set_registered_model_alias(name, "champion", "2")
    assert client.get_model_version_by_alias(name, "champion").version == "2"
    assert predicts(f"models:/{name}@champion")
    client.delete_registered_model_alias(name, "champion")
    client.set_model_version_tag(name, "1", "checked", "yes")
    client.set_registered_model_tag(name, "team", "x")
    client.update_model_version(name, "1", "first")
    client.update_registered_model(name, "a description")
    first = client.get_model_version(name, "1")
    assert (first.tags["checked"], first.description) == ("yes", "first")
    assert client.get_registered_model(name).tags["team"] == "x"
    with pytest.warns(FutureWarning):
        client.transition_model_version_stage(name, "1", "Production")
        assert [one.version for one in client.get_latest_versions(name, ["Production"])] == ["1"]
    assert predicts(f"models:/{name}/Production")
    assert [one.name for one in client.search_registered_models(f"name = '{name}'")] == [name]
    client.delete_model_version(name, "1")
    assert [one.version for one in client.search_model_versions(f"name = '{name}'")] == ["2"]
    with pytest.raises(MlflowException, match=r"NOT_IMPLEMENTED.*does not rename") as refused:
        client.rename_registered_model(name, "other")
    assert "\n" not in str(refused.value)


def test_a_model_of_this_machine_is_uploaded_and_registered(client: MlflowClient, name: str, tmp_path: Path) -> None:
    mlflow.sklearn.save_model(MODEL, str(tmp_path / "a model"))
    version = mlflow.register_model((tmp_path / "a model").as_uri(), name)
    assert version.source.startswith("azureml://artifacts/LocalUpload/")
    assert predicts(f"models:/{name}/1")
    with pytest.raises(MlflowException, match="has no MLmodel"):
        client.create_model_version(name, tmp_path.as_uri())


def test_scikit_learn_logs_by_itself(client: MlflowClient, experiment: str, tmp_path: Path) -> None:
    mlflow.set_experiment(experiment_id=experiment)
    mlflow.sklearn.autolog(log_post_training_metrics=True)
    try:
        with mlflow.start_run() as run:
            LinearRegression().fit(DATA, np.array([1.0, 3.0, 5.0]))
    finally:
        mlflow.sklearn.autolog(disable=True)
    seen = client.get_run(run.info.run_id)
    assert seen.data.params["fit_intercept"] == "True"
    assert "training_score" in seen.data.metrics
    assert predicts(f"runs:/{run.info.run_id}/model")


def test_figures_dictionaries_and_texts_are_artifacts(client: MlflowClient, experiment: str, tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.plot([0, 1], [0, 1])
    mlflow.set_experiment(experiment_id=experiment)
    with mlflow.start_run() as run:
        mlflow.log_figure(figure, "figures/one.png")
        mlflow.log_dict({"ü": 1}, "d.json")
        mlflow.log_text("text", "t.txt")
        mlflow.log_table({"a": [1, 2]}, "table.json")
    plt.close(figure)
    assert mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/d.json") == {"ü": 1}
    assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/t.txt") == "text"
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {"figures", "d.json", "t.txt", "table.json"}
    assert list(mlflow.load_table("table.json", [run.info.run_id])["a"]) == [1, 2]


def test_where_the_service_has_logged_models_they_are_its_own(tmp_path: Path) -> None:
    program = """
import json, mlflow, mlflow.sklearn
from sklearn.linear_model import LinearRegression
with mlflow.start_run() as run:
    logged = mlflow.sklearn.log_model(LinearRegression().fit([[0.0], [1.0]], [0, 1]), name="model")
found = mlflow.MlflowClient().search_logged_models([run.info.experiment_id])
print(json.dumps([logged.model_id, [one.model_id for one in found], float(mlflow.pyfunc.load_model(logged.model_uri).predict([[2.0]])[0])]))
"""
    with EmulatorServer(outside=False, logged_models=True) as other:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("AZURE")}
        variables.pop("MLFLOW_TRACKING_URI", None)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            env=other.environment(variables),
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    model_id, found, predicted = json.loads(done.stdout.splitlines()[-1])
    assert found == [model_id] and "." not in model_id
    assert round(predicted) == 2
    assert "no logged models" not in done.stderr
