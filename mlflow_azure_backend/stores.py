"""MLflow's doors for runs and models: ``azureml://`` as a tracking store and as a model registry.

MLflow loads this module whenever it is imported itself, so that what a store needs is imported when one is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_azure_backend.runtime.registry import WorkspaceModelRegistryStore
    from mlflow_azure_backend.runtime.session import Session
    from mlflow_azure_backend.runtime.tracking import WorkspaceTrackingStore


def tracking_store(store_uri: str, artifact_uri: str | None = None, **_newer: Any) -> WorkspaceTrackingStore:
    """The tracking store of a workspace.

    Args:
        store_uri: A whole ``azureml://`` tracking URI, or ``azureml://`` alone, for which the workspace is looked for.
        artifact_uri: Where artifacts should go; a workspace has a place for them.
        **_newer: What later versions of MLflow may give.

    Raises:
        MlflowException: No workspace is named, it is not there, or Azure does not know who we are; one line.
    """
    del artifact_uri
    from mlflow_azure_backend.runtime.tracking import WorkspaceTrackingStore

    return WorkspaceTrackingStore(session_for(store_uri))


def model_registry_store(store_uri: str, **_newer: Any) -> WorkspaceModelRegistryStore:
    """The model registry of a workspace; arguments and errors as for ``tracking_store``."""
    from mlflow_azure_backend.runtime.registry import WorkspaceModelRegistryStore

    return WorkspaceModelRegistryStore(session_for(store_uri))


def session_for(uri: str) -> Session:
    """The session of this process with the workspace of a tracking URI; arguments and errors as above."""
    import os
    from pathlib import Path

    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    from mlflow_azure_backend.errors import WorkspaceError
    from mlflow_azure_backend.workspace.reaching import reach

    try:
        return reach(uri, Path.cwd(), os.environ)
    except WorkspaceError as error:
        raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None
