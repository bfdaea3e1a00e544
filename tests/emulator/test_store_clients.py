"""What an ``azureml://`` store does to the workspace: MLflow's newest REST clients, artifacts in batches, blobs in blocks."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from azure.storage.blob import BlobClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    Run,
    RunStatus,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.rest_store import RestStore as RegistryStore
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.rest_utils import MlflowHostCreds

from mlflow_azure_backend.emulator import EmulatorServer
from tests.emulator.test_data_plane import Client


@pytest.fixture
def client(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with Client(emulator) as made:
        yield made


def credentials(client: Client) -> MlflowHostCreds:
    token = str(client.headers["Authorization"]).partition(" ")[2]
    return MlflowHostCreds(host=f"{client.host}/mlflow/v2.0{client.workspace}", token=token)


@pytest.fixture
def store(client: Client) -> RestStore:
    return RestStore(lambda: credentials(client))


@pytest.fixture
def registry(client: Client) -> RegistryStore:
    return RegistryStore(lambda: credentials(client))


@pytest.fixture
def experiment(store: RestStore) -> str:
    return str(store.create_experiment(f"stores {uuid.uuid4()}"))


def start(store: RestStore, experiment: str, number: int) -> Run:
    return store.create_run(experiment, "somebody", 1000 + number, [RunTag("kind", "x")], f"run {number}")


def test_runs_are_searched_page_by_page(store: RestStore, experiment: str) -> None:
    for number in range(5):
        start(store, experiment, number)
    found, token = [], None
    for _ in range(3):
        page = store.search_runs(
            [experiment], "tags.kind = 'x'", ViewType.ACTIVE_ONLY, 2, ["attributes.start_time DESC"], token
        )
        found += [run.info.run_name for run in page]
        token = page.token
    assert (found, token) == ([f"run {number}" for number in (4, 3, 2, 1, 0)], None)


def test_a_run_takes_all_that_mlflow_logs(store: RestStore, experiment: str) -> None:
    run = start(store, experiment, 0).info.run_id
    metrics = [Metric("many", step / 2, step, step) for step in range(250)] + [Metric("nan", float("nan"), 1, 1)]
    store.log_batch(run, metrics, [Param("quoted", 'it\'s "so"\nünd ☃')], [RunTag("a", "b"), RunTag("gone", "x")])
    store.log_metric(run, Metric("infinite", float("-inf"), 1, 0))
    store.delete_tag(run, "gone")
    tags = [InputTag("mlflow.data.context", "train")]
    store.log_inputs(run, [DatasetInput(Dataset("d", "1f", "local", "{}"), tags)])
    store.update_run_info(run, RunStatus.FINISHED, 2000, "renamed")
    told = store.get_run(run)
    assert (told.info.status, told.info.end_time, told.info.run_name) == ("FINISHED", 2000, "renamed")
    assert told.data.params == {"quoted": 'it\'s "so"\nünd ☃'}
    assert {"a": "b", "kind": "x"}.items() <= told.data.tags.items()
    assert "gone" not in told.data.tags
    assert (told.data.metrics["many"], told.data.metrics["infinite"] < -1e300) == (124.5, True)
    assert told.data.metrics["nan"] != told.data.metrics["nan"]
    assert len(store.get_metric_history(run, "many")) == 250
    assert told.inputs.dataset_inputs[0].dataset.name == "d"


def test_a_workspace_takes_less_than_mlflow_does(store: RestStore, experiment: str) -> None:
    run = start(store, experiment, 0).info.run_id
    with pytest.raises(MlflowException, match=r"FieldName=MetricV2Dto.Value/Count, Limit=250, Size=251\."):
        store.log_batch(run, [Metric("loss", 0.1, step, step) for step in range(251)], [], [])
    for first in (0, 100, 100):
        store.log_batch(run, [], [Param(f"p{number}", "v") for number in range(first, first + 100)], [])
    with pytest.raises(MlflowException, match=r"FieldName=Parameters, Limit=200, Size=201\.") as raised:
        store.log_param(run, Param("p200", "v"))
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"
    with pytest.raises(MlflowException, match=r"FieldName=Parameters, Limit=200, Size=202\."):
        store.log_batch(run, [], [Param("p200", "v"), Param("p201", "v"), Param("p0", "v")], [])


def test_runs_and_experiments_are_deleted_and_come_back(store: RestStore, experiment: str) -> None:
    run = start(store, experiment, 0).info.run_id
    store.delete_run(run)
    assert store.get_run(run).info.lifecycle_stage == "deleted"
    store.restore_run(run)
    store.delete_experiment(experiment)
    assert store.get_experiment(experiment).lifecycle_stage == "deleted"
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        start(store, experiment, 1)
    store.restore_experiment(experiment)
    assert start(store, experiment, 2).info.lifecycle_stage == "active"


def test_versions_have_stages_and_aliases(registry: RegistryStore, store: RestStore, experiment: str) -> None:
    run = start(store, experiment, 0)
    name = f"model {uuid.uuid4()}"
    registry.create_registered_model(name, description="d")
    for number in ("1", "2"):
        made = registry.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
        assert str(made.version) == number
    registry.transition_model_version_stage(name, "1", "Production", archive_existing_versions=False)
    registry.set_registered_model_alias(name, "champion", "2")
    assert str(registry.get_model_version_by_alias(name, "champion").version) == "2"
    assert [str(one.version) for one in registry.get_latest_versions(name, ["Production"])] == ["1"]
    registry.delete_registered_model_alias(name, "champion")
    registry.delete_model_version(name, "2")
    assert [str(one.version) for one in registry.search_model_versions(f"name = '{name}'")] == ["1"]
    with pytest.raises(MlflowException, match="does not delete all versions"):
        registry.delete_registered_model(name)


def test_many_clients_write_at_once(store: RestStore, client: Client, experiment: str) -> None:
    runs = [start(store, experiment, number).info.run_id for number in range(4)]

    def write(number: int) -> None:
        own = RestStore(lambda: credentials(client))
        for step in range(10):
            own.log_batch(runs[number % 4], [Metric(f"m{number}", step, step, step)], [], [RunTag(f"t{number}", "x")])
        start(own, experiment, 100 + number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    for place, run in enumerate(runs):
        told = store.get_run(run).data
        assert told.metrics == {f"m{place}": 9.0, f"m{place + 4}": 9.0}
        assert len(store.get_metric_history(run, f"m{place}")) == 10
        assert {f"t{place}", f"t{place + 4}"} <= told.tags.keys()
    assert len(store.search_runs([experiment], "", ViewType.ACTIVE_ONLY, 100)) == 12


def test_artifacts_go_up_in_one_call_and_blocks_and_are_listed_in_pages(client: Client) -> None:
    folder = f"{client.host}/artifact/v2.0{client.workspace}/artifacts/LocalUpload/{uuid.uuid4()}"
    paths = [f"many/{number:04}.bin" for number in range(110)]
    asked = {"paths": [{"path": path} for path in [*paths, "big.bin"]]}
    told = client.post(f"{folder}/batch/metadata", json=asked).json()["artifactContentInformation"]
    assert set(told) == {*paths, "big.bin"}
    with ThreadPoolExecutor(8) as pool:
        uris = [told[path]["contentUri"] for path in paths]
        assert set(pool.map(lambda uri: client.blob("PUT", uri, b"x").status_code, uris)) == {201}
    data = bytes(range(256)) * 16384
    with BlobClient.from_blob_url(
        told["big.bin"]["contentUri"],
        max_single_put_size=1024,
        max_block_size=1024 * 1024,
        connection_verify=client.bundle,
    ) as blob:
        blob.upload_blob(data, overwrite=True, max_concurrency=2)
        assert blob.get_blob_properties().size == len(data)
        assert blob.download_blob(offset=5, length=3).readall() == data[5:8]
    listed, address = [], folder
    while address:
        page = client.get(address).json()
        listed.append([one["path"] for one in page["value"]])
        address = page["nextLink"]
    assert [len(page) for page in listed] == [100, 11]
    assert [path for page in listed for path in page] == ["big.bin", *paths]


def test_artifacts_are_deleted_with_their_blobs(client: Client) -> None:
    run = client.run("0")
    folder = f"{client.host}/artifact/v2.0{client.workspace}/artifacts/ExperimentRun/dcid.{run}"
    for path in ("one", "two", "three", "f/four ü#"):
        client.put_artifact(run, path, b"x")
    assert client.delete(f"{folder}/metadata", params={"path": "one", "hardDelete": "true"}).status_code == 200
    assert client.delete(f"{folder}/metadata", params={"path": "one"}).status_code == 404
    gone = {"paths": [{"path": "two"}, {"path": "f/four ü#"}, {"path": "never"}]}
    assert client.post(f"{folder}/batch/metadata:delete", json=gone).status_code == 200
    assert [one["path"] for one in client.get(folder).json()["value"]] == ["three"]
    bodies: tuple[Any, ...] = ({}, {"paths": []}, {"paths": ["two"]}, {"paths": [{}]}, [])
    for body in bodies:
        assert client.post(f"{folder}/batch/metadata:delete", json=body).status_code == 400
