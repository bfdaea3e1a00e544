"""One file, one service: its operations, and what is known of them."""

from __future__ import annotations

from mlflow_azure_backend.emulator.services import (
    arm_workspaces,
    assets,
    blob,
    cloud_metadata,
    computes,
    control,
    data_versions,
    discovery,
    identity,
    jobs,
    mlflow_rest,
    online_endpoints,
    operation_status,
    run_artifacts,
    run_history,
)

ALL = (
    identity.service,
    cloud_metadata.service,
    arm_workspaces.service,
    assets.service,
    computes.service,
    jobs.service,
    operation_status.service,
    online_endpoints.service,
    discovery.service,
    mlflow_rest.service,
    run_history.service,
    run_artifacts.of_runs,
    run_artifacts.of_containers,
    data_versions.service,
    blob.service,
    control.service,
)
