"""Compute of a workspace: that it is there, or how its name is spelled; and clusters that are made on demand."""

from __future__ import annotations

import time
from difflib import get_close_matches
from typing import Any, Final

from mlflow_azure_backend.config.blocks import NewCompute
from mlflow_azure_backend.errors import TargetError
from mlflow_azure_backend.workspace.arm import ResourceManager

_IDLE: Final = "PT120S"
"""How long a node without work is kept: Azure ML's own default."""
_PATIENCE_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 2.0
_TIERS: Final = {"dedicated": "Dedicated", "low_priority": "LowPriority"}


def check_compute(manager: ResourceManager, name: str, instances: int) -> None:
    """Make sure that a job can be sent to a compute; asks Azure once, and changes nothing.

    Raises:
        TargetError: The workspace has none of that name, or it cannot take the job.
        WorkspaceError: The workspace does not answer.
    """
    found = manager.get(f"/computes/{name}")
    if found is None:
        raise TargetError(
            f"workspace {manager.reference.workspace_name} has no compute {name!r}", next_step=_instead(manager, name)
        )
    properties = found["properties"]
    state = properties.get("provisioningState")
    if state in ("Failed", "Deleting", "Canceled"):
        raise TargetError(f"compute {name} is {str(state).lower()}", next_step="look at it in the studio")
    most = ((properties.get("properties") or {}).get("scaleSettings") or {}).get("maxNodeCount")
    if most is not None and instances > most:
        raise TargetError(
            f"compute {name} has {most} nodes at most, and the job asks for {instances}",
            where="resources.instance_count",
            next_step="ask for fewer, or let the cluster grow",
        )


def ensure_compute(manager: ResourceManager, asked: NewCompute) -> bool:
    """The cluster that a configuration describes, made if there is none of its name; one that is there stays as it is.

    Args:
        manager: Of the workspace.
        asked: The cluster.

    Returns:
        Whether it was made.

    Raises:
        TargetError: Azure does not make it: a quota, a size that the region does not have.
        WorkspaceError: The workspace does not answer.
    """
    path = f"/computes/{asked.name}"
    if manager.get(path) is not None:
        return False
    manager.put(path, {"location": manager.get("")["location"], "properties": _cluster(asked)})
    ends = time.monotonic() + _PATIENCE_SECONDS
    while True:
        properties = (manager.get(path) or {"properties": {}})["properties"]
        state = properties.get("provisioningState")
        if state == "Succeeded":
            return True
        if state in ("Failed", "Canceled") or time.monotonic() > ends:
            raise TargetError(
                f"compute {asked.name} could not be made: {_why(properties, str(state))}",
                next_step="remove it in the studio, and ask for another size or a larger quota",
            )
        time.sleep(_POLL_SECONDS)


def _cluster(asked: NewCompute) -> dict[str, Any]:
    scale = {
        "minNodeCount": asked.min_instances,
        "maxNodeCount": asked.max_instances,
        "nodeIdleTimeBeforeScaleDown": _IDLE,
    }
    return {
        "computeType": "AmlCompute",
        "properties": {"vmSize": asked.size, "vmPriority": _TIERS[asked.tier], "scaleSettings": scale},
    }


def _why(properties: dict[str, Any], state: str) -> str:
    errors = properties.get("provisioningErrors") or []
    said = next((one["error"]["message"] for one in errors if one.get("error")), None)
    return said or f"it is still {state} after {_PATIENCE_SECONDS:.0f} s"


def _instead(manager: ResourceManager, name: str) -> str:
    names = [one["name"] for one in (manager.get("/computes") or {"value": []})["value"]]
    near = get_close_matches(name, names, n=3, cutoff=0.4) or names[:3]
    if not near:
        return 'it has none at all: use "serverless", or an object that describes a cluster to create'
    return f'use {", ".join(near)}, or "serverless"'
