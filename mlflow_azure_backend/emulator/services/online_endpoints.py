"""Online endpoints and their deployments: the resources and their states. Nothing scores yet."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

from mlflow_azure_backend.emulator import long_running
from mlflow_azure_backend.emulator.azure_errors import AzureError, user_error
from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.routing import ARM, AUDIENCE_ARM, WORKSPACE, Known, Service
from mlflow_azure_backend.emulator.services.arm_workspaces import ML_API_VERSIONS, check_workspace
from mlflow_azure_backend.emulator.specification import ONLINE_DEPLOYMENT, ONLINE_ENDPOINT

service = Service(
    "Online endpoints", host=ARM, audiences=(AUDIENCE_ARM,), prefix=WORKSPACE, api_versions=ML_API_VERSIONS
)

_ENDPOINTS, _DEPLOYMENTS = "onlineEndpoints", "onlineDeployments"
_PATH = "/onlineEndpoints/{endpoint}"
_DEPLOYMENT_PATH = f"{_PATH}/deployments/{{deployment}}"
_SPECIFICATION = "specification 2024-10-01, OnlineEndpoints and OnlineDeployments"
_SHOWN = "what az ml showed of endpoints in April 2026; the rest from the specification 2024-10-01"


def _endpoint(call: Call, name: str) -> dict[str, Any]:
    found: dict[str, Any] | None = call.world.state.get(_ENDPOINTS, name.lower())
    if found is None or _is_over(call, found.get("deleted")):
        raise _missing("onlineEndpoints", name)
    return found


def _deployment(call: Call, endpoint: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] | None = call.world.state.get(_DEPLOYMENTS, f"{endpoint}/{name}".lower())
    if found is None or _is_over(call, found.get("deleted")):
        raise _missing("deployments", name)
    return found


def _missing(kind: str, name: str) -> AzureError:
    return user_error(404, "{kind} {name} not found.", "NotFound", kind=kind, name=name)


def _is_over(call: Call, timestamp: float | None) -> bool:
    return timestamp is not None and call.world.clock.now().timestamp() >= timestamp


def _shown(call: Call, document: dict[str, Any]) -> dict[str, Any]:
    """The resource with the state that it is in by now."""
    state = document["changing"]
    if "deleted" in document:
        state = "Deleting"
    elif _is_over(call, document["ready"]):
        state = "Succeeded"
    resource: dict[str, Any] = document["resource"]
    return {**resource, "properties": {**resource["properties"], "provisioningState": state}}


def _store(call: Call, kind: str, key: str, prefix: str, resource: dict[str, Any], *, new: bool) -> dict[str, str]:
    """Keep a resource that is being made or changed; returns the headers of the operation."""
    seconds = call.world.settings.provisioning_seconds
    headers = long_running.start(call, prefix, seconds)
    resource["properties"]["properties"] = {
        **(resource["properties"].get("properties") or {}),
        "AzureAsyncOperationUri": headers["Azure-AsyncOperation"],
    }
    ready = call.world.clock.now() + timedelta(seconds=seconds)
    document = {"resource": resource, "ready": ready.timestamp(), "changing": "Creating" if new else "Updating"}
    old = call.world.state.get(kind, key) or {}
    keys = old.get("keys") or [secrets.token_hex(16), secrets.token_hex(16)]
    call.world.state.put(kind, key, {**document, "keys": keys})
    return headers


def _delete(call: Call, kind: str, key: str, document: dict[str, Any], prefix: str) -> Answer:
    seconds = call.world.settings.provisioning_seconds
    headers = long_running.start(call, prefix, seconds)
    ends = call.world.clock.now() + timedelta(seconds=seconds)
    call.world.state.put(kind, key, {**document, "deleted": ends.timestamp()})
    return Answer(status=202, headers=headers)


def _resource(call: Call, path: str, name: str, kind: str, properties: dict[str, Any]) -> dict[str, Any]:
    settings, body = call.world.settings, call.body
    now = call.world.clock.now().isoformat()
    user = {"createdBy": settings.client_id, "createdByType": "Application", "createdAt": now}
    return {
        "id": f"{settings.workspace}/{path}",
        "name": name,
        "type": f"Microsoft.MachineLearningServices/workspaces/{kind}",
        "location": body.get("location", settings.region),
        "tags": body.get("tags") or {},
        "kind": body.get("kind") or "Managed",
        "identity": body.get("identity"),
        "sku": body.get("sku"),
        "properties": properties,
        "systemData": {**user, "lastModifiedAt": now},
    }


def _check_traffic(call: Call, endpoint: str, traffic: dict[str, int]) -> None:
    for name in traffic:
        _deployment(call, endpoint, name)
    total = sum(traffic.values())
    if total not in {0, 100}:
        raise user_error(
            400, "The traffic of all deployments is {total}; it must be 0 or 100.", "BadArgument", total=str(total)
        )


@service.operation(
    "OnlineEndpoints_CreateOrUpdate", "PUT", _PATH, known=Known.RECORDED, source=_SHOWN, body=ONLINE_ENDPOINT
)
async def put_endpoint(call: Call) -> Answer:
    """Make or change an endpoint."""
    check_workspace(call)
    name, settings = call.path["endpoint"], call.world.settings
    old = call.world.state.get(_ENDPOINTS, name.lower())
    new = old is None or "deleted" in old
    asked = call.body["properties"]
    _check_traffic(call, name, asked.get("traffic") or {})
    address = f"https://{name}.{settings.region}.inference.ml.azure.com"
    properties = {
        "description": asked.get("description"),
        "authMode": asked["authMode"],
        "traffic": asked.get("traffic") or {},
        "mirrorTraffic": asked.get("mirrorTraffic") or {},
        "publicNetworkAccess": asked.get("publicNetworkAccess") or "Enabled",
        "compute": asked.get("compute"),
        "scoringUri": f"{address}/score",
        "swaggerUri": f"{address}/swagger.json",
        "properties": {
            **(asked.get("properties") or {}),
            "azureml.onlineendpointid": f"{settings.workspace}/onlineEndpoints/{name}".lower(),
        },
    }
    resource = _resource(call, f"onlineEndpoints/{name}", name, "onlineEndpoints", properties)
    headers = _store(call, _ENDPOINTS, name.lower(), "oeidp", resource, new=new)
    del headers["Location"]
    return Answer(_shown(call, _endpoint(call, name)), 201 if new else 200, headers)


@service.operation("OnlineEndpoints_Get", "GET", _PATH, known=Known.RECORDED, source=_SHOWN)
async def get_endpoint(call: Call) -> Answer:
    """An endpoint."""
    check_workspace(call)
    return Answer(_shown(call, _endpoint(call, call.path["endpoint"])))


@service.operation("OnlineEndpoints_List", "GET", "/onlineEndpoints", known=Known.SPECIFIED, source=_SPECIFICATION)
async def list_endpoints(call: Call) -> Answer:
    """All endpoints, on one page."""
    check_workspace(call)
    return Answer({"value": _all(call, _ENDPOINTS, ""), "nextLink": None})


def _all(call: Call, kind: str, prefix: str) -> list[dict[str, Any]]:
    documents = [one for _, one in call.world.state.items(kind, prefix) if not _is_over(call, one.get("deleted"))]
    return [_shown(call, one) for one in documents]


@service.operation("OnlineEndpoints_Delete", "DELETE", _PATH, known=Known.SPECIFIED, source=_SPECIFICATION)
async def delete_endpoint(call: Call) -> Answer:
    """Delete an endpoint with its deployments; one that is not there is no mistake."""
    check_workspace(call)
    name = call.path["endpoint"]
    try:
        document = _endpoint(call, name)
    except AzureError:
        return Answer(status=204)
    for key, one in list(call.world.state.items(_DEPLOYMENTS, f"{name.lower()}/")):
        _delete(call, _DEPLOYMENTS, key, one, "odidp")
    return _delete(call, _ENDPOINTS, name.lower(), document, "oeidp")


@service.operation(
    "OnlineEndpoints_ListKeys", "POST", f"{_PATH}/listKeys", known=Known.SPECIFIED, source=_SPECIFICATION
)
async def list_keys(call: Call) -> Answer:
    """The keys of an endpoint whose ``authMode`` is ``Key``."""
    check_workspace(call)
    primary, secondary = _endpoint(call, call.path["endpoint"])["keys"]
    return Answer({"primaryKey": primary, "secondaryKey": secondary})


@service.operation(
    "OnlineDeployments_CreateOrUpdate",
    "PUT",
    _DEPLOYMENT_PATH,
    known=Known.RECORDED,
    source=_SHOWN,
    body=ONLINE_DEPLOYMENT,
)
async def put_deployment(call: Call) -> Answer:
    """Make or change a deployment of an endpoint that is there."""
    check_workspace(call)
    endpoint, name = call.path["endpoint"], call.path["deployment"]
    _endpoint(call, endpoint)
    key = f"{endpoint}/{name}".lower()
    old = call.world.state.get(_DEPLOYMENTS, key)
    new = old is None or "deleted" in old
    defaults = {
        "appInsightsEnabled": False,
        "egressPublicNetworkAccess": "Enabled",
        "scaleSettings": {"scaleType": "Default"},
    }
    properties = {**defaults, **{key: value for key, value in call.body["properties"].items() if value is not None}}
    path = f"onlineEndpoints/{endpoint}/deployments/{name}"
    resource = _resource(call, path, name, "onlineEndpoints/deployments", properties)
    headers = _store(call, _DEPLOYMENTS, key, "odidp", resource, new=new)
    del headers["Location"]
    return Answer(_shown(call, _deployment(call, endpoint, name)), 201 if new else 200, headers)


@service.operation("OnlineDeployments_Get", "GET", _DEPLOYMENT_PATH, known=Known.RECORDED, source=_SHOWN)
async def get_deployment(call: Call) -> Answer:
    """A deployment."""
    check_workspace(call)
    return Answer(_shown(call, _deployment(call, call.path["endpoint"], call.path["deployment"])))


@service.operation(
    "OnlineDeployments_List", "GET", f"{_PATH}/deployments", known=Known.SPECIFIED, source=_SPECIFICATION
)
async def list_deployments(call: Call) -> Answer:
    """The deployments of an endpoint, on one page."""
    check_workspace(call)
    name = call.path["endpoint"]
    _endpoint(call, name)
    return Answer({"value": _all(call, _DEPLOYMENTS, f"{name.lower()}/"), "nextLink": None})


@service.operation(
    "OnlineDeployments_Delete",
    "DELETE",
    _DEPLOYMENT_PATH,
    known=Known.INFERRED,
    source="specification 2024-10-01; that traffic keeps a deployment from being deleted is inferred",
)
async def delete_deployment(call: Call) -> Answer:
    """Delete a deployment that gets no traffic."""
    check_workspace(call)
    endpoint, name = call.path["endpoint"], call.path["deployment"]
    try:
        document = _deployment(call, endpoint, name)
    except AzureError:
        return Answer(status=204)
    if _endpoint(call, endpoint)["resource"]["properties"]["traffic"].get(name, 0) > 0:
        message = "Deployment {name} of endpoint {endpoint} gets traffic; set its traffic to 0 before it is deleted."
        raise user_error(400, message, "BadArgument", name=name, endpoint=endpoint)
    return _delete(call, _DEPLOYMENTS, f"{endpoint}/{name}".lower(), document, "odidp")
