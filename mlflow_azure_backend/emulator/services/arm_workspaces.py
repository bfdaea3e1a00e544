"""Resource Manager: the workspace, its resource group, and its datastores."""

from __future__ import annotations

from typing import Any

from mlflow_azure_backend.emulator.azure_errors import arm_error, resource_not_found, user_error
from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.routing import ARM, AUDIENCE_ARM, WORKSPACE, Known, Service

ML_API_VERSIONS = (
    "2022-02-01-preview",
    "2022-05-01",
    "2022-10-01",
    "2022-10-01-preview",
    "2023-02-01-preview",
    "2023-04-01",
    "2023-04-01-preview",
    "2023-06-01-preview",
    "2023-08-01-preview",
    "2023-10-01",
    "2024-01-01-preview",
    "2024-04-01",
    "2024-04-01-preview",
    "2024-07-01-preview",
    "2024-10-01",
    "2024-10-01-preview",
    "2025-01-01-preview",
    "2025-06-01",
    "2025-09-01",
    "2025-12-01",
)
"""Versions of the Microsoft.MachineLearningServices provider that published clients ask for."""

service = Service(
    "Workspaces and datastores", host=ARM, audiences=(AUDIENCE_ARM,), prefix=WORKSPACE, api_versions=ML_API_VERSIONS
)


def check_workspace(call: Call) -> None:
    """That the path names this emulator's workspace; names are compared without regard to case, as ARM does.

    Raises:
        AzureError: 404 in ARM's words for what is not there.
    """
    settings, path = call.world.settings, call.path
    if path["subscription"].lower() != settings.subscription_id.lower():
        code, name = "SubscriptionNotFound", path["subscription"]
        raise arm_error(404, code, f"The subscription '{name}' could not be found.")
    if path["group"].lower() != settings.resource_group.lower():
        raise arm_error(404, "ResourceGroupNotFound", f"Resource group '{path['group']}' could not be found.")
    if path["workspace"].lower() != settings.workspace_name.lower():
        raise resource_not_found("workspaces", path["workspace"], path["group"])


@service.operation(
    "Workspaces_Get",
    "GET",
    "",
    known=Known.RECORDED,
    source="recording test_pipeline_job_child_run_download (2022-10-01-preview); newer fields from the specification",
)
async def get_workspace(call: Call) -> Answer:
    """The workspace."""
    check_workspace(call)
    settings = call.world.settings
    providers = f"/subscriptions/{settings.subscription_id}/resourceGroups/{settings.resource_group}/providers"
    properties = {
        "friendlyName": settings.workspace_name,
        "description": "",
        "storageAccount": f"{providers}/Microsoft.Storage/storageAccounts/{settings.storage_account}",
        "keyVault": f"{providers}/Microsoft.Keyvault/vaults/{settings.workspace_name}",
        "applicationInsights": f"{providers}/Microsoft.insights/components/{settings.workspace_name}",
        "hbiWorkspace": False,
        "tenantId": settings.tenant_id,
        "imageBuildCompute": None,
        "provisioningState": "Succeeded",
        "v1LegacyMode": False,
        "softDeleteEnabled": False,
        "storageHnsEnabled": False,
        "workspaceId": settings.workspace_id,
        "linkedModelInventoryArmId": None,
        "privateLinkCount": 0,
        "publicNetworkAccess": "Enabled",
        "discoveryUrl": f"https://{settings.api_host}/discovery",
        "mlFlowTrackingUri": settings.tracking_uri,
        "sasGetterUri": "",
    }
    identity = {"type": "SystemAssigned", "principalId": settings.client_id, "tenantId": settings.tenant_id}
    return Answer(
        {
            "id": settings.workspace,
            "name": settings.workspace_name,
            "type": "Microsoft.MachineLearningServices/workspaces",
            "location": settings.region,
            "tags": {},
            "etag": None,
            "kind": "Default",
            "sku": {"name": "Basic", "tier": "Basic"},
            "identity": identity,
            "properties": properties,
            "systemData": {
                "createdAt": "2026-01-01T00:00:00.0000000Z",
                "createdBy": "emulator",
                "createdByType": "User",
            },
        }
    )


def _datastore(call: Call, name: str) -> dict[str, Any]:
    settings = call.world.settings
    containers = call.world.storage.datastores
    if name not in containers:
        raise user_error(404, "Could not find datastore: {name}.", "NotFound", "DatastoreNotFound", name=name)
    return {
        "id": f"{settings.workspace}/datastores/{name}",
        "name": name,
        "type": "Microsoft.MachineLearningServices/workspaces/datastores",
        "properties": {
            "description": None,
            "tags": None,
            "properties": None,
            "isDefault": name == "workspaceblobstore",
            "credentials": {"credentialsType": "AccountKey"},
            "datastoreType": "AzureBlob",
            "accountName": settings.storage_account,
            "containerName": containers[name],
            "endpoint": "core.windows.net",
            "protocol": "https",
            "serviceDataAccessAuthIdentity": "WorkspaceSystemAssignedIdentity",
        },
        "systemData": {"createdAt": "2026-01-01T00:00:00.0000000Z", "createdBy": "emulator", "createdByType": "User"},
    }


@service.operation(
    "Datastores_Get",
    "GET",
    "/datastores/{name}",
    known=Known.RECORDED,
    source="recording test_command_job_builder (2022-23)",
)
async def get_datastore(call: Call) -> Answer:
    """A datastore; the two of blobs are there, as in every workspace."""
    check_workspace(call)
    name = call.path["name"]
    if name == "workspaceblobstore":
        await call.world.storage.make_container(call.world.storage.blobstore)
    return Answer(_datastore(call, name))


@service.operation(
    "Datastores_List", "GET", "/datastores", known=Known.SPECIFIED, source="specification 2024-10-01, Datastores_List"
)
async def list_datastores(call: Call) -> Answer:
    """The datastores; ``isDefault=true`` leaves the default one."""
    check_workspace(call)
    stores = [_datastore(call, name) for name in call.world.storage.datastores]
    wanted = call.query.get("isDefault", "").lower()
    kept = [one for one in stores if not wanted or one["properties"]["isDefault"] == (wanted == "true")]
    return Answer({"value": kept, "nextLink": None})


@service.operation(
    "Datastores_ListSecrets",
    "POST",
    "/datastores/{name}/listSecrets",
    known=Known.SPECIFIED,
    source="recording of 2022 without a body; expirableSecret from the 2024-10-01 specification and azure-ai-ml",
    risk=(
        "no answer to expirableSecret is known from a recording: what the signature allows, and for how long, is "
        "inferred; a workspace set up for identities gives none"
    ),
)
async def list_secrets(call: Call) -> Answer:
    """The account's key, or a SAS when ``expirableSecret`` asks for one."""
    check_workspace(call)
    properties = _datastore(call, call.path["name"])["properties"]
    await call.world.storage.make_container(properties["containerName"])
    if call.body and call.body.get("expirableSecret"):
        signature = call.world.storage.signature(properties["containerName"], permissions="racwdl")
        return Answer({"secretsType": "Sas", "sasToken": signature})
    return Answer({"secretsType": "AccountKey", "key": call.world.settings.storage_key})
