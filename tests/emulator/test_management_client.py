"""Microsoft's management client, unmodified and in this process; and its schema against what really came over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential

from mlflow_azure_backend.emulator import EmulatorServer
from tests.emulator.schema import MachineLearningServicesMgmtClient, models, problems
from tests.emulator.test_data_plane import Client

VERSION = {"api-version": "2023-04-01"}
NEWER_OF_WORKSPACES = ("etag", "kind", "linkedModelInventoryArmId", "sasGetterUri", "softDeleteEnabled")
"""In the recording of 2022-10-01-preview, or in the specification after 2023-04-01."""


@pytest.fixture
def management(
    emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MachineLearningServicesMgmtClient]:
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    settings = emulator.settings
    credential = ClientSecretCredential(settings["tenant_id"], settings["client_id"], settings["client_secret"])
    with MachineLearningServicesMgmtClient(credential, settings["subscription_id"], polling_interval=0) as client:
        yield client


@pytest.fixture
def where(emulator: EmulatorServer) -> dict[str, str]:
    """The arguments that name the workspace."""
    return {
        "resource_group_name": emulator.settings["resource_group"],
        "workspace_name": emulator.settings["workspace_name"],
    }


@pytest.fixture(scope="module")
def client(emulator: EmulatorServer) -> Iterator[Client]:
    with Client(emulator) as made:
        yield made


def endpoint(**properties: Any) -> models.OnlineEndpoint:
    return models.OnlineEndpoint(
        location="westeurope", properties=models.OnlineEndpointProperties(auth_mode="Key", **properties)
    )


def deployment() -> models.OnlineDeployment:
    properties = models.ManagedOnlineDeployment(
        model="azureml:m:1", instance_type="Standard_DS3_v2", environment_variables={"a": "b"}
    )
    return models.OnlineDeployment(
        location="westeurope", sku=models.Sku(name="Default", capacity=1), properties=properties
    )


def test_an_endpoint_lives_with_its_deployments(
    management: MachineLearningServicesMgmtClient, where: dict[str, str], client: Client
) -> None:
    endpoints, deployments = management.online_endpoints, management.online_deployments
    made = endpoints.begin_create_or_update(**where, endpoint_name="One", body=endpoint()).result()
    shown = made.as_dict()
    assert (shown["name"], shown["properties"]["provisioning_state"]) == ("One", "Succeeded")
    assert shown["properties"]["scoring_uri"] == "https://One.westeurope.inference.ml.azure.com/score"
    names = {**where, "endpoint_name": "one", "deployment_name": "blue"}
    assert (
        deployments.begin_create_or_update(**names, body=deployment()).result().properties.instance_type
        == "Standard_DS3_v2"
    )
    endpoints.begin_create_or_update(**where, endpoint_name="One", body=endpoint(traffic={"blue": 100})).result()
    assert endpoints.get(**where, endpoint_name="one").properties.traffic == {"blue": 100}
    assert [one.name for one in endpoints.list(where["resource_group_name"], where["workspace_name"])] == ["One"]
    assert [one.name for one in deployments.list(where["resource_group_name"], where["workspace_name"], "one")] == [
        "blue"
    ]
    assert endpoints.list_keys(**where, endpoint_name="one").primary_key
    arm = f"https://management.azure.com{client.workspace}/onlineEndpoints/one"
    assert problems("OnlineEndpoint", client.get(arm, params=VERSION).json()) == []
    assert problems("OnlineDeployment", client.get(f"{arm}/deployments/blue", params=VERSION).json()) == []
    with pytest.raises(HttpResponseError, match="gets traffic"):
        deployments.begin_delete(**names)
    endpoints.begin_delete(**where, endpoint_name="one").result()
    for ask in (lambda: endpoints.get(**where, endpoint_name="one"), lambda: deployments.get(**names)):
        with pytest.raises(ResourceNotFoundError):
            ask()


def test_a_deployment_needs_its_endpoint_and_traffic_its_deployment(
    management: MachineLearningServicesMgmtClient, where: dict[str, str]
) -> None:
    with pytest.raises(ResourceNotFoundError, match="onlineEndpoints none not found"):
        management.online_deployments.begin_create_or_update(
            **where, endpoint_name="none", deployment_name="blue", body=deployment()
        )
    with pytest.raises(ResourceNotFoundError, match="deployments green not found"):
        management.online_endpoints.begin_create_or_update(
            **where, endpoint_name="two", body=endpoint(traffic={"green": 100})
        )


def test_what_is_not_as_published_is_refused_with_every_mistake(client: Client) -> None:
    body: dict[str, Any] = {
        "location": "westeurope",
        "properties": {"endpointComputeType": "Managed", "instanceTyp": "x", "appInsightsEnabled": "yes"},
        "sku": {"capacity": 1},
    }
    url = f"https://management.azure.com{client.workspace}/onlineEndpoints/e/deployments/d"
    answer = client.put(url, params=VERSION, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "UserError")
    assert {one["target"]: one["message"] for one in error["details"]} == {
        "properties.instanceTyp": "properties.instanceTyp is not in the published specification.",
        "properties.appInsightsEnabled": "properties.appInsightsEnabled must be true or false, not a string.",
        "sku.name": "The Name field is required.",
    }


def test_the_workspace_and_its_datastores_are_as_published(
    management: MachineLearningServicesMgmtClient, where: dict[str, str], client: Client, emulator: EmulatorServer
) -> None:
    assert management.workspaces.get(**where).workspace_id == emulator.settings["workspace_id"]
    assert [one.name for one in management.datastores.list(where["resource_group_name"], where["workspace_name"])] == [
        "workspaceblobstore",
        "workspaceartifactstore",
    ]
    secrets = management.datastores.list_secrets(**where, name="workspaceblobstore")
    assert secrets.as_dict() == {"secrets_type": "AccountKey", "key": emulator.settings["storage_key"]}
    arm = f"https://management.azure.com{client.workspace}"
    assert problems("Workspace", client.get(arm, params=VERSION).json(), newer=NEWER_OF_WORKSPACES) == []
    # The real service leaves the secrets out as well (recording test_command_job_builder).
    store = client.get(f"{arm}/datastores/workspaceblobstore", params=VERSION).json()
    assert problems("Datastore", store) == ["Datastore.properties.credentials.secrets: is required"]
