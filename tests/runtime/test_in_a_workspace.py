"""Jobs of the emulated workspace, whose environments have an MLflow and nothing of ours: the zip is all that there is."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.runtime import report
from mlflow_azure_backend.runtime.order import ORDER_VARIABLE, JobOrder
from mlflow_azure_backend.workspace.travelling import (
    RUNTIME_FILE,
    job_command,
    lock_files,
    locked_environment,
    runtime_zip,
)
from tests.emulator.test_jobs import Submitter
from tests.environment.conftest import MakeWheel, ReadProject

TRACK = """
import json, os
import mlflow
from sklearn.linear_model import LinearRegression
mlflow.log_param("alpha", "0.3; it's")
mlflow.log_metrics({"loss": 0.5, "rank": float(os.environ["MLFLOW_AZURE_RANK"])})
mlflow.set_tag("said", "\u2603")
mlflow.log_text("it's \u2603", "notes/a b.txt")
model = LinearRegression().fit([[0], [1]], [0, 1])
mlflow.sklearn.log_model(model, "model", pip_requirements=["scikit-learn"], serialization_format="cloudpickle")
loaded = mlflow.sklearn.load_model("runs:/" + os.environ["MLFLOW_AZURE_RUN_ID"] + "/model")
stores = [mlflow.tracking._tracking_service.utils._get_store()]
stores.append(mlflow.tracking.MlflowClient()._get_registry_client().store)
said = [mlflow.__version__, *(type(store).__module__ for store in stores), round(float(loaded.predict([[2]])[0]), 3)]
print(json.dumps(said))
"""


@pytest.fixture
def client(emulator: EmulatorServer, tmp_path: Path) -> Iterator[Submitter]:
    with Submitter(emulator) as made:
        yield made


def submit(
    client: Submitter, name: str, command: str, order: JobOrder, files: Mapping[str, bytes], tmp_path: Path, **more: Any
) -> dict[str, Any]:
    """A job as our client submits it, at its end."""
    variables = {ORDER_VARIABLE: order.to_json(), "MLFLOW_AZURE_CACHE": str(tmp_path / "node")}
    wanted = {
        "command": job_command(command),
        "codeId": client.code_of({RUNTIME_FILE: runtime_zip(), **files}),
        "environmentVariables": variables,
        **more,
    }
    assert client.submit(name, **wanted).status_code == 201
    return client.wait(name, "Completed", "Failed")


def artifact(client: Submitter, name: str, path: str) -> str:
    details = f"{client.history}/experiments/Default/runs/{name}/artifacts/contentinfo"
    told = client.get(details, params={"path": path}).json()
    return str(client.blob("GET", told["contentUri"]).content.decode())


def log_of(client: Submitter, name: str) -> str:
    details = client.get(f"{client.history}/runs/{name}/details").json()
    return str(client.blob("GET", details["logFiles"]["user_logs/std_log.txt"]).text)


@pytest.mark.package_index
@pytest.mark.parametrize(
    ("wanted", "version"), [("mlflow-skinny==2.22.*", "2.22."), ("mlflow-skinny", "3."), ("azureml-mlflow", "3.")]
)
def test_whatever_mlflow_the_project_pins_finds_its_run(
    client: Submitter, tmp_path: Path, wanted: str, version: str
) -> None:
    """Also beside azureml-mlflow, which fails to log a model with MLflow 3."""
    name = f"pinned_{len(wanted)}"
    environment = client.environment(f"[python, pip, {{pip: ['{wanted}', pandas, scikit-learn]}}]")
    job = submit(
        client, name, "python train.py", JobOrder(), {"train.py": TRACK.encode()}, tmp_path, environmentId=environment
    )
    log = log_of(client, name)
    assert job["properties"]["status"] == "Completed", log
    told = json.loads(next(line for line in log.splitlines() if line.startswith("[")))
    assert told[1:] == ["mlflow_azure_runtime.tracking", "mlflow_azure_runtime.registry", 2.0]
    assert told[0].startswith(version)
    run = client.get(f"{client.mlflow}/runs/get", params={"run_id": name}).json()["run"]
    assert run["data"]["params"] == [{"key": "alpha", "value": "0.3; it's"}]
    assert {one["key"]: one["value"] for one in run["data"]["metrics"]} == {"loss": 0.5, "rank": 0.0}
    assert artifact(client, name, "notes/a b.txt") == "it's \u2603"
    assert "sklearn" in artifact(client, name, "model/MLmodel")
    assert {"key": "said", "value": "\u2603"} in run["data"]["tags"]
    ended = report.from_json(artifact(client, name, report.report_name(0)))
    assert (ended.exit_code, ended.environment) == (0, "image")


def test_an_environment_of_one_job_is_unpacked_by_the_next(
    client: Submitter, make_wheel: MakeWheel, read: ReadProject, folder: Path, cache: Path, tmp_path: Path
) -> None:
    wheel = make_wheel("gamma", "1.0")
    lock = resolve(read("gamma"), cache=cache)
    order = JobOrder(locked_environment(lock, kept_in="kept"))
    files = {f"wheels/{wheel.name}": wheel.read_bytes(), **lock_files(lock, folder, None)}
    place = f"azureml://datastores/workspaceblobstore/paths/mlflow-azure/environments/{lock.key}/"
    more = {
        "outputs": {"kept": {"jobOutputType": "uri_folder", "mode": "ReadWriteMount", "uri": place}},
        "environmentId": client.environment(f"[python, pip, {{pip: ['uv=={importlib.metadata.version('uv')}']}}]"),
    }
    for number, source in enumerate(["installed", "kept"]):
        name = f"kept_{number}"
        job = submit(client, name, "gamma-say", order, files, tmp_path, **more)
        log = log_of(client, name)
        assert job["properties"]["status"] == "Completed", log
        assert log.splitlines()[-1] == "gamma 1.0"
        assert report.from_json(artifact(client, name, report.report_name(0))).environment == source, log
        shutil.rmtree(tmp_path / "node")  # the next one has another node
