"""Long-running operations of Resource Manager: a change that is answered at once, and asked after until it has ended.

When an operation ends is written down when it starts, so nothing has to run for it and a restart forgets nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from mlflow_azure_backend.emulator.call import Call

_KIND = "operations"


def start(
    call: Call, prefix: str, seconds: float, error: Mapping[str, Any] | None = None, *, family: str = "mfe"
) -> dict[str, str]:
    """Start an operation.

    Args:
        call: The request that started it.
        prefix: What its id starts with, like ``oeidp`` for online endpoints.
        seconds: How long it takes.
        error: What it ends with, ``code`` and ``message``; None: it succeeds.
        family: What the addresses start with: ``compute`` for clusters.

    Returns:
        The headers that tell the client where to ask.
    """
    settings, now = call.world.settings, call.world.clock.now()
    identity = f"{prefix}:{settings.workspace_id}:{uuid.uuid4()}"
    ends = now + timedelta(seconds=seconds)
    document = {"started": now.timestamp(), "ends": ends.timestamp(), "error": error}
    call.world.state.put(_KIND, identity, document)
    scope = f"{call.origin}/subscriptions/{settings.subscription_id}/providers/Microsoft.MachineLearningServices"
    place, version = f"{scope}/locations/{settings.region}", call.query.get("api-version", "")
    return {
        "Azure-AsyncOperation": f"{place}/{family}OperationsStatus/{identity}?api-version={version}",
        "Location": f"{place}/{family}OperationResults/{identity}?api-version={version}",
        "Retry-After": str(settings.retry_after_seconds),
        "x-ms-async-operation-timeout": "PT1H",
    }


def status(call: Call, identity: str) -> dict[str, Any] | None:
    """What an operation has come to, as Azure tells it; None: there is no such operation."""
    document = call.world.state.get(_KIND, identity)
    if document is None:
        return None
    told: dict[str, Any] = {"status": "InProgress", "startTime": instant(document["started"])}
    if call.world.clock.now().timestamp() >= document["ends"]:
        told |= {"status": "Succeeded", "endTime": instant(document["ends"])}
        if document["error"] is not None:
            told |= {"status": "Failed", "error": document["error"]}
    return told


def instant(timestamp: float) -> str:
    """A moment as operations show it, with milliseconds."""
    moment = datetime.fromtimestamp(timestamp, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
