"""MLflow's API, run history and artifacts of the emulated workspace, as plain requests see them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from mlflow_azure_backend.emulator import EmulatorServer
from tests.emulator.workspaces import emulated_token

RECORDED_RUN_KEYS = {
    "computeDuration", "createdUtc", "dataContainerId", "displayName", "duration", "endTimeUtc", "error", "experimentId",
    "hidden", "parentRunId", "properties", "rootRunId", "runId", "runNumber", "runType", "startTimeUtc", "status", "tags",
    "target", "userId",
}  # fmt: skip
"""Of the run document in the recording test_pipeline_job_child_run_download."""


class Client(requests.Session):
    """Requests to the data plane of one emulator, with a token of the identity service."""

    def __init__(self, emulator: EmulatorServer) -> None:
        super().__init__()
        self.trust_env = False
        self.proxies = {"https": emulator.proxy}
        self.verify = self.bundle = str(emulator.bundle)
        token = emulated_token(emulator.proxy, emulator.bundle, emulator.settings)
        self.headers["Authorization"] = f"Bearer {token}"
        host, _, self.workspace = emulator.tracking_uri.removeprefix("azureml://").partition("/mlflow/v1.0")
        self.host = f"https://{host}"
        self.mlflow = f"{self.host}/mlflow/v2.0{self.workspace}/api/2.0/mlflow"
        self.history = f"{self.host}/history/v1.0{self.workspace}"

    def experiment(self, name: str) -> str:
        """The id of a new experiment."""
        return str(self.post(f"{self.mlflow}/experiments/create", json={"name": name}).json()["experiment_id"])

    def run(self, experiment_id: str, **fields: Any) -> str:
        """The id of a new run."""
        made = self.post(f"{self.mlflow}/runs/create", json={"experiment_id": experiment_id, **fields})
        return str(made.json()["run"]["info"]["run_id"])

    def put_artifact(self, run: str, path: str, data: bytes) -> None:
        """Write an artifact as clients do: ask for an address, then write the blob."""
        asked = {"paths": [{"path": path}]}
        info = self.get(f"{self.mlflow}/runs/get", params={"run_id": run}).json()["run"]["info"]
        artifacts = f"{self.history}/experimentids/{info['experiment_id']}/runs/{run}/artifacts"
        told = self.post(f"{artifacts}/batch/metadata", json=asked).json()
        assert self.blob("PUT", told["artifactContentInformation"][path]["contentUri"], data).status_code == 201

    def blob(self, method: str, uri: str, data: bytes = b"") -> requests.Response:
        """A request to the storage account with nothing but the address's own signature."""
        headers = {"x-ms-blob-type": "BlockBlob"}
        return requests.request(
            method, uri, data=data, headers=headers, proxies=self.proxies, verify=self.bundle, timeout=60
        )


@pytest.fixture(scope="module")
def client(emulator: EmulatorServer) -> Iterator[Client]:
    with Client(emulator) as made:
        yield made


@pytest.fixture
def run(client: Client) -> str:
    """A run in the experiment that every workspace has."""
    return client.run("0", start_time=1_700_000_000_000, run_name="a run")


def test_a_run_has_its_artifacts_in_the_workspaces_storage(client: Client) -> None:
    experiment = client.experiment("wh\u00e9re artifacts are")
    run = client.run(experiment)
    info = client.get(f"{client.mlflow}/runs/get", params={"run_id": run}).json()["run"]["info"]
    root = f"azureml://{client.host.removeprefix('https://')}/mlflow/v2.0{client.workspace}"
    assert info["artifact_uri"] == f"{root}/experiments/{experiment}/runs/{run}/artifacts"


def test_an_experiment_with_a_slash_is_made_but_not_found_by_name(client: Client) -> None:
    experiment = client.experiment("team/experiment")
    by_id = client.get(f"{client.mlflow}/experiments/get", params={"experiment_id": experiment})
    assert by_id.json()["experiment"]["name"] == "team/experiment"
    by_name = client.get(f"{client.mlflow}/experiments/get-by-name", params={"experiment_name": "team/experiment"})
    assert (by_name.status_code, by_name.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_logged_models_are_not_there(client: Client) -> None:
    for path in ("logged-models", "logged-models/search"):
        answer = client.post(f"{client.mlflow}/{path}", json={})
        assert (answer.status_code, answer.content) == (404, b"")


def test_what_azure_does_not_do_with_models_is_refused(client: Client) -> None:
    answer = client.post(f"{client.mlflow}/registered-models/rename", json={"name": "a", "new_name": "b"})
    assert (answer.status_code, answer.json()["error_code"]) == (501, "NOT_IMPLEMENTED")
    answer = client.post(f"{client.mlflow}/traces/search", json={})
    assert answer.status_code == 501
    assert "traces/search is not emulated" in answer.json()["error"]["message"]


def test_nobody_gets_in_without_a_token(client: Client) -> None:
    for url in (f"{client.mlflow}/experiments/search", f"{client.history}/runs/x"):
        assert requests.get(url, proxies=client.proxies, verify=client.bundle, timeout=60).status_code == 401


def test_another_workspace_is_not_here(client: Client) -> None:
    answer = client.get(f"{client.mlflow}/runs/get".replace(client.workspace, f"{client.workspace}-other"))
    assert answer.status_code == 404


def test_run_history_tells_of_a_run_by_every_path(client: Client) -> None:
    experiment = client.experiment("history")
    run = client.run(experiment, start_time=1_700_000_000_000, run_name="shown")
    ended: dict[str, Any] = {"run_id": run, "status": "FINISHED", "end_time": 1_700_000_100_500}
    client.post(f"{client.mlflow}/runs/update", json=ended)
    paths = (f"/runs/{run}", f"/experiments/history/runs/{run}", f"/experiments/{experiment}/runs/{run}", f"/experimentids/{experiment}/runs/{run}")  # fmt: skip
    for path in paths:
        told = client.get(client.history + path).json()
        assert (told["runId"], told["status"], told["displayName"]) == (run, "Completed", "shown")
        assert (told["experimentId"], told["dataContainerId"]) == (experiment, f"dcid.{run}")
        assert (told["startTimeUtc"], told["duration"]) == ("2023-11-14T22:13:20+00:00", "00:01:40.5000000")
        assert set(told) >= RECORDED_RUN_KEYS
    metadata = client.post(f"{client.history}/rundata", json={"runId": run}).json()["runMetadata"]
    assert metadata["runId"] == run


def test_a_run_that_is_not_there_is_named(client: Client, run: str) -> None:
    for path in (
        "/runs/none",
        "/runs/none/details",
        f"/experiments/other/runs/{run}",
        "/experiments/Default/runs/none/artifacts",
    ):
        answer = client.get(client.history + path)
        name = run if run in path else "none"
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (404, "UserError")
        assert error["message"] == f"Run {name} was not found"


def test_details_give_each_log_an_address_that_only_reads_it(client: Client, run: str) -> None:
    client.put_artifact(run, "user_logs/std_log.txt", b"line\n")
    client.put_artifact(run, "outputs/model.bin", b"model")
    details = client.get(f"{client.history}/runs/{run}/details").json()
    assert set(details["logFiles"]) == {"user_logs/std_log.txt"}
    address = details["logFiles"]["user_logs/std_log.txt"]
    assert client.blob("GET", address).content == b"line\n"
    assert client.blob("PUT", address, b"forged").status_code == 403
    assert client.blob("GET", address.replace("user_logs/std_log.txt", "outputs/model.bin")).status_code == 403


def test_children_are_the_runs_that_name_their_parent(client: Client, run: str) -> None:
    child = client.run("0", tags=[{"key": "mlflow.parentRunId", "value": run}])
    told = client.get(f"{client.history}/runs/{run}/children").json()["value"]
    assert [(one["runId"], one["parentRunId"]) for one in told] == [(child, run)]


def test_experiments_are_shown(client: Client) -> None:
    experiment = client.experiment("shown in history")
    for path in ("/experiments/shown%20in%20history", f"/experimentids/{experiment}"):
        told = client.get(client.history + path).json()
        assert (told["experimentId"], told["name"]) == (experiment, "shown in history")
    assert client.get(f"{client.history}/experiments/none").status_code == 404


def test_a_runs_token_opens_the_data_plane_and_not_resource_manager(client: Client, run: str) -> None:
    told = client.get(f"{client.history}/experiments/Default/runs/{run}/token").json()
    headers = {"Authorization": f"Bearer {told['token']}"}
    assert client.get(f"{client.history}/runs/{run}", headers=headers).status_code == 200
    arm = f"https://management.azure.com{client.workspace}?api-version=2024-10-01"
    assert client.get(arm, headers=headers).status_code == 401


def test_an_address_to_write_makes_no_blob_and_cannot_delete(client: Client, run: str) -> None:
    artifacts = f"{client.history}/experiments/Default/runs/{run}/artifacts"
    nasty = "a folder/\u00fc #1 100% 'x' \"y\"?.txt"
    told = client.post(f"{artifacts}/batch/metadata", json={"paths": [{"path": nasty}]}).json()
    assert client.get(artifacts).json()["value"] == []
    address = told["artifactContentInformation"][nasty]["contentUri"]
    assert client.blob("PUT", address, b"data").status_code == 201
    assert client.blob("DELETE", address).status_code == 403
    assert [one["path"] for one in client.get(artifacts).json()["value"]] == [nasty]
    read = client.get(f"{artifacts}/contentinfo", params={"path": nasty}).json()["contentUri"]
    assert client.blob("GET", read).content == b"data"
    assert client.blob("PUT", read, b"forged").status_code == 403


def test_an_artifact_that_is_not_there_is_named(client: Client, emulator: EmulatorServer, run: str) -> None:
    client.put_artifact(run, "model/MLmodel", b"x")
    for path in ("model", "none"):
        answer = client.get(
            f"{client.history}/experiments/Default/runs/{run}/artifacts/contentinfo", params={"path": path}
        )
        where = f"ExperimentRun/dcid.{run}/{path} in Partition {emulator.settings['workspace_id']}"
        assert (answer.status_code, answer.json()["error"]["message"]) == (
            404,
            f"Cannot find Artifact with ID {where}.",
        )


def test_artifacts_are_listed_below_a_path_and_as_addresses(client: Client, run: str) -> None:
    for path in ("a/1", "a/b/2", "ab/3"):
        client.put_artifact(run, path, path.encode())
    artifacts = f"{client.history}/experimentids/0/runs/{run}/artifacts"
    below = client.get(f"{artifacts}/path", params={"path": "a"}).json()["value"]
    assert [one["path"] for one in below] == ["a/1", "a/b/2"]
    told = client.get(f"{artifacts}/prefix/contentinfo", params={"path": "a/"}).json()["value"]
    assert [client.blob("GET", one["contentUri"]).content for one in told] == [b"a/1", b"a/b/2"]


def test_what_was_uploaded_without_a_run_has_a_place_of_its_own(client: Client) -> None:
    folder = f"{client.host}/artifact/v2.0{client.workspace}/artifacts/LocalUpload/{uuid.uuid4()}"
    told = client.post(f"{folder}/batch/metadata", json={"paths": [{"path": "model/MLmodel"}]}).json()
    client.blob("PUT", told["artifactContentInformation"]["model/MLmodel"]["contentUri"], b"flavors: {}")
    assert [one["path"] for one in client.get(folder).json()["value"]] == ["model/MLmodel"]
    read = client.get(f"{folder}/contentinfo", params={"path": "model/MLmodel"}).json()["contentUri"]
    assert client.blob("GET", read).content == b"flavors: {}"


def test_a_restarted_workspace_goes_on_and_a_switch_brings_logged_models(nasty_path: Path) -> None:
    with EmulatorServer(state=nasty_path, outside=False) as first, Client(first) as client:
        run = client.run(client.experiment("kept"), run_name="kept")
        client.put_artifact(run, "kept.txt", b"kept")
    with EmulatorServer(state=nasty_path, outside=False, logged_models=True) as again, Client(again) as client:
        assert client.get(f"{client.history}/experiments/kept/runs/{run}").json()["displayName"] == "kept"
        artifacts = f"{client.history}/experiments/kept/runs/{run}/artifacts"
        read = client.get(f"{artifacts}/contentinfo", params={"path": "kept.txt"}).json()["contentUri"]
        assert client.blob("GET", read).content == b"kept"
        assert client.post(f"{client.mlflow}/logged-models/search", json={"experiment_ids": ["0"]}).json() == {}
