"""Resource Manager: how the long-running operations of Azure Machine Learning are getting on."""

from __future__ import annotations

from typing import Any

from mlflow_azure_backend.emulator import long_running
from mlflow_azure_backend.emulator.azure_errors import arm_error
from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.routing import ARM, AUDIENCE_ARM, Known, Service
from mlflow_azure_backend.emulator.services.arm_workspaces import ML_API_VERSIONS

service = Service(
    "Long-running operations",
    host=ARM,
    audiences=(AUDIENCE_ARM,),
    prefix="/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{location}",
    api_versions=ML_API_VERSIONS,
)

_SOURCE = "addresses and a failed operation's body from reports of online endpoints and deployments, April 2026"
_RISK = "that the cancelling of a job has the same addresses is inferred; a client must take them as they are given"

_COMPUTES = (
    "the provider's resource types (locations/computeOperationsStatus) and Resource Manager's asynchronous operations"
)


def _status(call: Call) -> dict[str, Any]:
    told = long_running.status(call, call.path["operation"])
    if told is None:
        raise arm_error(404, "NotFound", f"The operation {call.path['operation']} could not be found.")
    return told


@service.operation(
    "Compute_GetStatus", "GET", "/computeOperationsStatus/{operation}", known=Known.SPECIFIED, source=_COMPUTES
)
@service.operation(
    "Operations_GetStatus", "GET", "/mfeOperationsStatus/{operation}", known=Known.RECORDED, source=_SOURCE, risk=_RISK
)
async def get_status(call: Call) -> Answer:
    """The status of an operation; 200 whatever it is."""
    told = _status(call)
    wait = {"Retry-After": str(call.world.settings.retry_after_seconds)} if told["status"] == "InProgress" else {}
    return Answer(told, headers=wait)


@service.operation(
    "Compute_GetResult", "GET", "/computeOperationResults/{operation}", known=Known.SPECIFIED, source=_COMPUTES
)
@service.operation(
    "Operations_GetResult",
    "GET",
    "/mfeOperationResults/{operation}",
    known=Known.SPECIFIED,
    source="Resource Manager, asynchronous operations: 202 until it has ended",
)
async def get_result(call: Call) -> Answer:
    """202 until the operation has ended, then 200 without a body, or its error."""
    told = _status(call)
    if told["status"] == "InProgress":
        headers = {"Location": str(call.request.url), "Retry-After": str(call.world.settings.retry_after_seconds)}
        return Answer(status=202, headers=headers)
    if told["status"] == "Failed":
        raise arm_error(400, told["error"]["code"], told["error"]["message"])
    return Answer(status=200)
