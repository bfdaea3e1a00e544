"""Resource Manager: compute clusters, made, scaled and deleted as long-running operations."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from mlflow_azure_backend.emulator import long_running
from mlflow_azure_backend.emulator.azure_errors import arm_error, resource_not_found, user_error
from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.nodes import KIND, scale_of
from mlflow_azure_backend.emulator.routing import ARM, AUDIENCE_ARM, WORKSPACE, Known, Service
from mlflow_azure_backend.emulator.services.arm_workspaces import ML_API_VERSIONS, check_workspace
from mlflow_azure_backend.emulator.specification import CLUSTER_UPDATE, COMPUTE

service = Service(
    "Compute clusters", host=ARM, audiences=(AUDIENCE_ARM,), prefix=WORKSPACE, api_versions=ML_API_VERSIONS
)

_PATH = "/computes/{name}"
_SPECIFICATION = "specification 2024-10-01, Compute"
_QUOTA = (
    "which sizes and numbers a quota refuses, and the words for more than one node and for what cannot be changed, are "
    "inferred: a client must not tell causes apart by them"
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]")
_SIZE = re.compile(r"standard_[a-z]+(?P<number>\d+)[a-z]*(_.*)?", re.IGNORECASE)
_OLD_SIZES = {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 11: 2, 12: 4, 13: 8, 14: 16, 15: 20}
"""vCPUs of ``Standard_D…_v2`` and ``Standard_DS…_v2``, whose number is none of vCPUs."""


def _find(call: Call, name: str) -> dict[str, Any]:
    found: dict[str, Any] | None = call.world.state.get(KIND, name.lower())
    if found is None or _is_over(call, found["deleted"]):
        raise resource_not_found(f"workspaces/{call.path['workspace']}/computes", name, call.path["group"])
    return found


def _is_over(call: Call, timestamp: float | None) -> bool:
    return timestamp is not None and call.world.clock.now().timestamp() >= timestamp


def _shown(call: Call, document: dict[str, Any]) -> dict[str, Any]:
    """The resource with the state that it is in by now."""
    resource: dict[str, Any] = document["resource"]
    cluster = resource["properties"]
    settled = _is_over(call, document["ready"])
    state = "Succeeded" if settled else document["changing"]
    state = "Failed" if document["error"] is not None and settled else state
    state = "Deleting" if document["deleted"] is not None else state
    busy, idle = _nodes(call, resource["name"]) if state == "Succeeded" else (0, 0)
    nodes, error = busy + idle, document["error"]
    counts = {"idle": idle, "running": busy, **dict.fromkeys(("preparing", "leaving", "unusable", "preempted"), 0)}
    properties = {
        **cluster["properties"],
        "allocationState": "Steady" if settled else "Resizing",
        "allocationStateTransitionTime": long_running.instant(document["changed"]),
        "currentNodeCount": nodes,
        "targetNodeCount": nodes,
        "nodeStateCounts": {f"{name}NodeCount": count for name, count in counts.items()},
        "errors": None,
    }
    told = {"provisioningState": state, "provisioningErrors": None if error is None else [{"error": error}]}
    return {**resource, "properties": {**cluster, **told, "properties": properties}}


def _nodes(call: Call, name: str) -> tuple[int, int]:
    """How many nodes jobs have, and how many stand ready."""
    cluster = call.world.cluster(name)
    cluster.settle(scale_of(call.world.state, name))
    return cluster.busy, cluster.idle


def _cores(size: str) -> int:
    """How many vCPUs a virtual machine size has, read from its name.

    Raises:
        AzureError: 400, no name of a size.
    """
    found = _SIZE.fullmatch(size)
    if found is None:
        raise user_error(400, "The specified VM size {size} is not supported.", "BadArgument", size=size)
    number = int(found["number"])
    if re.fullmatch(r"standard_ds?\d+_v2", size, re.IGNORECASE):
        return _OLD_SIZES.get(number, number)
    return number


def check_job(call: Call, identity: str, nodes: int) -> None:
    """That a job can have so many nodes of the cluster with this ARM id.

    Raises:
        AzureError: 404 or 400; the words are inferred.
    """
    name = identity.rpartition("/")[2]
    document = call.world.state.get(KIND, name.lower())
    if document is None or document["deleted"] is not None:
        raise user_error(404, "Compute {name} not found.", "NotFound", name=name)
    shown = _shown(call, document)["properties"]
    if shown["provisioningState"] == "Failed":
        words = "Compute {name} is in state Failed; it must be Succeeded before jobs are submitted to it."
        raise user_error(400, words, "BadArgument", name=name)
    most = shown["properties"]["scaleSettings"]["maxNodeCount"]
    if nodes > most:
        words = "The job asks for {nodes} nodes, and compute {name} has {most} at most."
        raise user_error(400, words, "BadArgument", nodes=str(nodes), name=name, most=str(most))


def _check_quota(call: Call, size: str, scale: dict[str, Any]) -> None:
    """That the quota has room for one node, and for those that are always there; that it has for all comes up in jobs.

    The words for one node are those of mlops-v2#81; those for the smallest number follow azure-docs#52413.
    """
    least, quota = scale["minNodeCount"], call.world.settings.core_quota
    cores = _cores(size) * max(1, least)
    if cores <= quota:
        return
    words = f"The specified subscription has a total vCPU quota of {quota} and "
    if least <= 1:
        words += f"cannot accomodate for at least 1 requested managed compute node which maps to {cores} vCPUs."
    else:
        words += f"is less than the requested managed compute's min nodes of {least} which maps to {cores} vCPUs."
    more = "https://docs.microsoft.com/azure/machine-learning/how-to-manage-quotas#request-quota-increases"
    words += f" Talk to your Subscription Admin or refer to {more} to increase the total quota."
    raise arm_error(400, "BadRequest", words)


def _scale(asked: dict[str, Any] | None) -> dict[str, Any]:
    scale = {name: value for name, value in (asked or {}).items() if value is not None}
    scale = {"minNodeCount": 0, "maxNodeCount": 1, "nodeIdleTimeBeforeScaleDown": "PT120S", **scale}
    if not 0 <= scale["minNodeCount"] <= scale["maxNodeCount"]:
        words = "The minimum node count {least} must be between 0 and the maximum node count {most}."
        most, least = str(scale["maxNodeCount"]), str(scale["minNodeCount"])
        raise user_error(400, words, "BadArgument", least=least, most=most)
    return scale


def _keep(call: Call, name: str, resource: dict[str, Any], changing: str) -> dict[str, str]:
    """Keep a cluster that is being made or changed; returns the headers of the operation."""
    seconds = call.world.settings.provisioning_seconds
    now = call.world.clock.now()
    ready = (now + timedelta(seconds=seconds)).timestamp()
    document = {"resource": resource, "changing": changing, "changed": now.timestamp(), "ready": ready}
    call.world.state.put(KIND, name.lower(), {**document, "deleted": None, "error": None})
    call.world.cluster(name).look()
    return long_running.start(call, "compute", seconds, family="compute")


@service.operation(
    "Compute_CreateOrUpdate",
    "PUT",
    _PATH,
    known=Known.SPECIFIED,
    source=f"{_SPECIFICATION}; words of a refused quota from mlops-v2#81",
    risk=_QUOTA,
    body=COMPUTE,
)
async def put_compute(call: Call) -> Answer:
    """Make a cluster, or change how it scales; its size stays what it was."""
    check_workspace(call)
    name, settings, asked = call.path["name"], call.world.settings, call.body["properties"]
    if not _NAME.fullmatch(name):
        words = (
            "Compute name {name} is invalid. It can include letters, digits and dashes. It must start with a letter, "
        )
        words += "end with a letter or digit, and be between 3 and 32 characters in length."
        raise user_error(400, words, "BadArgument", name=name)
    wanted = asked.get("properties") or {}
    size, scale = str(wanted.get("vmSize") or ""), _scale(wanted.get("scaleSettings"))
    old = call.world.state.get(KIND, name.lower())
    old = None if old is None or old["deleted"] is not None else old
    if old is not None and old["resource"]["properties"]["properties"]["vmSize"].lower() != size.lower():
        raise user_error(400, "The VM size of compute {name} cannot be changed.", "BadArgument", name=name)
    _check_quota(call, size, scale)
    defaults = {"osType": "Linux", "vmPriority": "Dedicated", "isolatedNetwork": False, "enableNodePublicIp": True}
    given = {key: value for key, value in wanted.items() if value is not None}
    now = long_running.instant(call.world.clock.now().timestamp())
    properties = {
        "computeType": "AmlCompute",
        "computeLocation": asked.get("computeLocation") or settings.region,
        "description": asked.get("description"),
        "createdOn": now if old is None else old["resource"]["properties"]["createdOn"],
        "modifiedOn": now,
        "resourceId": None,
        "isAttachedCompute": False,
        "disableLocalAuth": asked.get("disableLocalAuth", False),
        "properties": {**defaults, **given, "scaleSettings": scale},
    }
    resource = {
        "id": f"{settings.workspace}/computes/{name}",
        "name": name,
        "type": "Microsoft.MachineLearningServices/workspaces/computes",
        "location": call.body.get("location") or settings.region,
        "tags": call.body.get("tags"),
        "identity": call.body.get("identity"),
        "properties": properties,
    }
    headers = _keep(call, name, resource, "Creating" if old is None else "Updating")
    del headers["Location"]
    return Answer(_shown(call, _find(call, name)), 201 if old is None else 200, headers)


@service.operation("Compute_Update", "PATCH", _PATH, known=Known.SPECIFIED, source=_SPECIFICATION, body=CLUSTER_UPDATE)
async def scale_compute(call: Call) -> Answer:
    """Change how a cluster scales, and nothing else of it."""
    check_workspace(call)
    name = call.path["name"]
    resource = _find(call, name)["resource"]
    cluster = resource["properties"]["properties"]
    wanted = ((call.body.get("properties") or {}).get("properties") or {}).get("scaleSettings") or {}
    cluster["scaleSettings"] = _scale({**cluster["scaleSettings"], **wanted})
    _check_quota(call, cluster["vmSize"], cluster["scaleSettings"])
    headers = _keep(call, name, resource, "Updating")
    del headers["Location"]
    return Answer(_shown(call, _find(call, name)), 200, headers)


@service.operation(
    "Compute_Get",
    "GET",
    _PATH,
    known=Known.SPECIFIED,
    source=f"{_SPECIFICATION}; ARM's words for one that is not there are inferred",
)
async def get_compute(call: Call) -> Answer:
    """A cluster."""
    check_workspace(call)
    return Answer(_shown(call, _find(call, call.path["name"])))


@service.operation("Compute_List", "GET", "/computes", known=Known.SPECIFIED, source=_SPECIFICATION)
async def list_computes(call: Call) -> Answer:
    """All clusters, on one page."""
    check_workspace(call)
    found = [one for _, one in call.world.state.items(KIND) if not _is_over(call, one["deleted"])]
    return Answer({"value": [_shown(call, one) for one in found], "nextLink": None})


@service.operation("Compute_Delete", "DELETE", _PATH, known=Known.SPECIFIED, source=_SPECIFICATION)
async def delete_compute(call: Call) -> Answer:
    """Delete a cluster."""
    check_workspace(call)
    name, seconds = call.path["name"], call.world.settings.provisioning_seconds
    if call.query.get("underlyingResourceAction", "").lower() not in {"delete", "detach"}:
        words = "The query parameter underlyingResourceAction must be Delete or Detach."
        raise arm_error(400, "InvalidParameter", words)
    ends = call.world.clock.now() + timedelta(seconds=seconds)
    call.world.state.put(KIND, name.lower(), {**_find(call, name), "deleted": ends.timestamp()})
    return Answer(status=202, headers=long_running.start(call, "compute", seconds, family="compute"))
