"""Where the workspace's data plane is, for clients that ask before they use it."""

from __future__ import annotations

from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.routing import DATA_PLANE, Known, Service

service = Service("Discovery", host=DATA_PLANE)


@service.operation(
    "Discovery_Get",
    "GET",
    "/discovery",
    known=Known.RECORDED,
    source="recording test_pipeline_job_child_run_download; it is asked without a token",
)
async def discover(call: Call) -> Answer:
    """The addresses; all services that are emulated are behind one, and so would be those that are not."""
    address = f"https://{call.world.settings.api_host}"
    services = ("api", "experimentation", "history", "hyperdrive", "labeling", "modelmanagement", "pipelines")
    return Answer({**dict.fromkeys(services, address), "studio": "https://ml.azure.com"})
