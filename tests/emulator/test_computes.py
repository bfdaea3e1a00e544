"""Compute clusters: Microsoft's two clients make, scale and delete them, and read how they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential

from mlflow_azure_backend.emulator import EmulatorServer
from tests.emulator.schema import MachineLearningServicesMgmtClient, models, problems
from tests.emulator.test_data_plane import Client
from tests.emulator.test_jobs import Submitter

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

pytestmark = pytest.mark.filterwarnings("ignore")  # of azure-ai-ml's own about itself
VERSION = {"api-version": "2023-04-01"}


@pytest.fixture
def ml_client(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MLClient]:
    from azure.ai.ml import MLClient

    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    settings = emulator.settings
    with ClientSecretCredential(settings["tenant_id"], settings["client_id"], settings["client_secret"]) as credential:
        yield MLClient.from_config(credential, path=str(emulator.config_file))


def test_ml_client_makes_scales_and_deletes_a_cluster(ml_client: MLClient, emulator: EmulatorServer) -> None:
    from azure.ai.ml.entities import AmlCompute

    with pytest.raises(ResourceNotFoundError):
        ml_client.compute.get("cpu-cluster")
    wanted = AmlCompute(
        name="cpu-cluster", size="Standard_DS3_v2", min_instances=1, max_instances=2, tier="low_priority"
    )
    made = ml_client.compute.begin_create_or_update(wanted).result()
    assert (made.provisioning_state, made.size, made.tier) == ("Succeeded", "Standard_DS3_v2", "low_priority")
    wanted.max_instances = 3
    assert ml_client.compute.begin_update(wanted).result().max_instances == 3
    assert ml_client.compute.get("CPU-cluster").max_instances == 3
    assert [one.name for one in ml_client.compute.list()] == ["cpu-cluster"]
    with Client(emulator) as client:
        shown = client.get(
            f"https://management.azure.com{client.workspace}/computes/cpu-cluster", params=VERSION
        ).json()
    assert problems("ComputeResource", shown) == []
    assert shown["properties"]["properties"]["nodeStateCounts"]["idleNodeCount"] == 1
    with pytest.raises(HttpResponseError, match="VM size of compute cpu-cluster cannot be changed"):
        ml_client.compute.begin_create_or_update(AmlCompute(name="cpu-cluster", size="Standard_D4s_v3"))
    ml_client.compute.begin_delete("cpu-cluster").result()
    with pytest.raises(ResourceNotFoundError):
        ml_client.compute.get("cpu-cluster")


def test_what_exceeds_the_quota_is_refused_with_its_numbers(ml_client: MLClient) -> None:
    from azure.ai.ml.entities import AmlCompute

    for size, least, words in (
        ("Standard_D128s_v3", 0, r"quota of 100 and cannot accomodate for at least 1 .* which maps to 128 vCPUs\."),
        ("Standard_DS13_v2", 13, r"quota of 100 and is less than the .* min nodes of 13 which maps to 104 vCPUs\."),
    ):
        wanted = AmlCompute(name="too-big", size=size, min_instances=least, max_instances=20)
        with pytest.raises(HttpResponseError, match=words):
            ml_client.compute.begin_create_or_update(wanted)
    fits = AmlCompute(name="fits", size="Standard_DS13_v2", min_instances=12, max_instances=20)
    assert ml_client.compute.begin_create_or_update(fits).result().max_instances == 20
    ml_client.compute.begin_delete("fits").result()


def test_provisioning_can_be_ordered_to_fail(ml_client: MLClient, emulator: EmulatorServer) -> None:
    from azure.ai.ml.entities import AmlCompute

    ml_client.compute.begin_create_or_update(AmlCompute(name="broken", size="Standard_DS1_v2")).result()
    error = {"code": "AllocationFailed", "message": "no such machines in westeurope"}
    emulator.control("POST", "/computes/broken/fail", error)
    found = ml_client.compute.get("broken")
    assert (found.provisioning_state, "AllocationFailed" in str(found.provisioning_errors)) == ("Failed", True)
    ml_client.compute.begin_delete("broken").result()


@pytest.mark.parametrize("name", ["1st", "ab", "under_score", "ends-", "x" * 33])
def test_a_name_that_azure_does_not_take_is_refused(emulator: EmulatorServer, name: str) -> None:
    body = {"location": "westeurope", "properties": {"computeType": "AmlCompute"}}
    with Client(emulator) as client:
        answer = client.put(
            f"https://management.azure.com{client.workspace}/computes/{name}", params=VERSION, json=body
        )
    assert (answer.status_code, "must start with a letter" in answer.json()["error"]["message"]) == (400, True)


def test_a_delete_must_say_what_becomes_of_the_nodes(emulator: EmulatorServer) -> None:
    with Client(emulator) as client:
        answer = client.delete(f"https://management.azure.com{client.workspace}/computes/any", params=VERSION)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidParameter")


def test_the_management_client_scales_a_cluster_and_nothing_else_of_it(
    ml_client: MLClient, emulator: EmulatorServer
) -> None:
    from azure.ai.ml.entities import AmlCompute

    ml_client.compute.begin_create_or_update(AmlCompute(name="scaled", size="Standard_DS1_v2")).result()
    settings = emulator.settings
    where = (settings["resource_group"], settings["workspace_name"], "scaled")
    scale = models.ScaleSettings(max_node_count=7, min_node_count=2)
    wanted = models.ClusterUpdateParameters(properties=models.ScaleSettingsInformation(scale_settings=scale))
    with (
        ClientSecretCredential(settings["tenant_id"], settings["client_id"], settings["client_secret"]) as credential,
        MachineLearningServicesMgmtClient(credential, settings["subscription_id"], polling_interval=0) as client,
    ):
        made: Any = client.compute.begin_update(*where, wanted).result()
        cluster = made.properties.properties
        assert (cluster.vm_size, cluster.scale_settings.max_node_count) == ("Standard_DS1_v2", 7)
        assert (cluster.current_node_count, cluster.allocation_state) == (2, "Steady")
        client.compute.begin_delete(*where, underlying_resource_action="Delete").result()


def test_a_job_runs_on_a_cluster_that_can_have_it(ml_client: MLClient, emulator: EmulatorServer) -> None:
    from azure.ai.ml.entities import AmlCompute

    ml_client.compute.begin_create_or_update(
        AmlCompute(name="one-node", size="Standard_DS1_v2", max_instances=1)
    ).result()
    with Submitter(emulator) as client:
        common = {"computeId": f"{client.workspace}/computes/one-node", "environmentId": client.environment()}
        assert client.submit("on-cluster", command="exit 0", **common).status_code == 201
        assert client.wait("on-cluster", "Completed", "Failed")["properties"]["status"] == "Completed"
        refused = client.submit("two-nodes", command="exit 0", **common, resources={"instanceCount": 2})
        assert "asks for 2 nodes, and compute one-node has 1 at most" in refused.json()["error"]["message"]
        emulator.control("POST", "/computes/one-node/fail", {"code": "AllocationFailed", "message": "none left"})
        refused = client.submit("on-failed", command="exit 0", **common)
        assert "is in state Failed" in refused.json()["error"]["message"]
    ml_client.compute.begin_delete("one-node").result()


def test_jobs_wait_for_the_nodes_of_their_cluster_in_order(
    ml_client: MLClient, emulator: EmulatorServer, tmp_path: Path
) -> None:
    from azure.ai.ml.entities import AmlCompute

    cluster = AmlCompute(name="small", size="Standard_DS1_v2", max_instances=2)
    ml_client.compute.begin_create_or_update(cluster).result()
    fifos = {name: tmp_path / name for name in ("node-one", "node-pair", "node-late")}
    for fifo in fifos.values():
        os.mkfifo(fifo)
    with Submitter(emulator) as client:
        common = {"computeId": f"{client.workspace}/computes/small", "environmentId": client.environment()}
        for name, count in (("node-one", 1), ("node-pair", 2), ("node-late", 1)):
            command = f"cat '{fifos[name]}'"
            client.submit(name, command=command, **common, resources={"instanceCount": count})
            client.wait(name, *(["Running"] if name == "node-one" else ["Queued"]))
        assert nodes(client, "small") == {"runningNodeCount": 1}
        # A node is free, but the pair that needs two has asked before.
        assert client.job("node-late")["properties"]["status"] == "Queued"
        fifos["node-one"].write_bytes(b"")
        client.wait("node-pair", "Running")
        assert client.job("node-late")["properties"]["status"] == "Queued"
        cluster.max_instances = 3
        ml_client.compute.begin_create_or_update(cluster).result()
        client.wait("node-late", "Running")
        for name in ("node-pair", "node-late"):
            fifos[name].write_bytes(b"")
            client.wait(name, "Completed")
        assert nodes(client, "small") == {"idleNodeCount": 3}
        emulator.control("PUT", "/clock", {"skew_seconds": 200})  # the cluster's idle time is over
        assert nodes(client, "small") == {}
        emulator.control("PUT", "/clock", {"skew_seconds": 0})
    ml_client.compute.begin_delete("small").result()


def nodes(client: Submitter, name: str) -> dict[str, int]:
    """How many nodes of a cluster are in which state."""
    told = client.get(f"{client.arm}/computes/{name}", params=VERSION).json()["properties"]["properties"]
    counts = {state: count for state, count in told["nodeStateCounts"].items() if count}
    assert told["currentNodeCount"] == sum(counts.values())
    return counts
