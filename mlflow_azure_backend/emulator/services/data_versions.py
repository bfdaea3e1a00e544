"""The data plane of data assets, as far as clients look for a job's named outputs in it."""

from __future__ import annotations

from mlflow_azure_backend.emulator.azure_errors import data_plane_error
from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.execution.ends import Refused
from mlflow_azure_backend.emulator.execution.places import asset_properties
from mlflow_azure_backend.emulator.routing import (
    AUDIENCE_ARM,
    AUDIENCE_ML,
    AUDIENCE_RUN,
    DATA_PLANE,
    WORKSPACE,
    Known,
    Service,
)
from mlflow_azure_backend.emulator.services.arm_workspaces import check_workspace

service = Service(
    "Data assets",
    host=DATA_PLANE,
    prefix=f"/data/v1.0{WORKSPACE}",
    audiences=(AUDIENCE_ARM, AUDIENCE_ML, AUDIENCE_RUN),
)


@service.operation(
    "DataVersion_BatchGetResolvedUris",
    "POST",
    "/dataversion/batchGetResolvedUris",
    known=Known.SPECIFIED,
    source="azure-ai-ml 1.35, _restclient/dataset_dataplane: request and answer",
)
async def resolve(call: Call) -> Answer:
    """Where the data of each asset is; those that are not there are left out."""
    check_workspace(call)
    asked = (call.body or {}).get("values")
    if not asked:
        raise data_plane_error(400, "The values field is required.", "BadArgument")
    values = {}
    for identity in asked:
        try:
            found = asset_properties(call.world, identity, "data")
        except Refused:
            continue
        values[identity] = {"uri": found["dataUri"], "type": found["dataType"]}
    return Answer({"values": values})
