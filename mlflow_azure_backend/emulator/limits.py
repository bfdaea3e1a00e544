"""What a workspace takes less of than MLflow's own server does, and its words for that.

From what users were answered: mlflow#11462 (values of one metric in one request), azure-sdk-for-python#35685
(parameters of one run). That a page of a metric's history must be below 1000 (mlflow#10694, December 2023) is left out:
MLflow's clients ask for 25000, and azureml-mlflow's newest still lets them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from mlflow_azure_backend.emulator.azure_errors import mlflow_error
from mlflow_azure_backend.emulator.call import Call

VALUES = 250
"""Values of one metric in one request."""
PARAMETERS = 200
"""Parameters of one run."""


async def check_batch(call: Call, body: Any) -> None:
    """That a batch, or one parameter, is not too large for its run.

    Raises:
        AzureError: 400.
    """
    if not isinstance(body, dict):
        return
    for size in Counter(_keys(body.get("metrics"))).values():
        if size > VALUES:
            raise _too_large("MetricV2Dto.Value/Count", VALUES, size)
    new = set(_keys(body.get("params"))) | ({body["key"]} if "key" in body else set())
    if new and isinstance(run := body.get("run_id") or body.get("run_uuid"), str):
        reply = await call.world.tracking.ask("GET", "/api/2.0/mlflow/runs/get", query=urlencode({"run_id": run}))
        if reply.status == 200:
            size = len(new.union(_keys(reply.json()["run"]["data"].get("params"))))
            if size > PARAMETERS:
                raise _too_large("Parameters", PARAMETERS, size)


def parsed(body: bytes | None) -> Any:
    """A body as JSON; None where it is none, which is MLflow's to refuse."""
    try:
        return json.loads(body or b"null")
    except ValueError:
        return None


def _keys(items: Any) -> Iterator[str]:
    for one in items or []:
        if isinstance(one, dict) and isinstance(one.get("key"), str):
            yield one["key"]


def _too_large(field: str, limit: int, size: int) -> Exception:
    words = (
        f"A field of the entity is over the size limit. FieldName={field}, Limit={limit}, Size={size}. "
        "See https://aka.ms/azure-machine-learning-limits for service limits documentation."
    )
    return mlflow_error(400, "INVALID_PARAMETER_VALUE", "ValidationError", words)
