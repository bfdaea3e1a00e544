"""MLflow's entry points inside a job, where this room is all that there is of us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artifacts import WorkspaceArtifactRepository
    from .registry import WorkspaceModelRegistryStore
    from .tracking import WorkspaceTrackingStore


ENTRY_POINTS = {
    "mlflow.tracking_store": "doors:tracking_store",
    "mlflow.model_registry_store": "doors:model_registry_store",
    "mlflow.artifact_repository": "doors:artifact_repository",
    "mlflow.run_context_provider": "precedence:Precedence",
}
"""By MLflow's group, what in this room answers for ``azureml://``."""


def entry_points(package: str) -> str:
    """These doors as the ``entry_points.txt`` of a distribution names them, in which this room is ``package``."""
    return "".join(f"[{group}]\nazureml = {package}.{door}\n\n" for group, door in ENTRY_POINTS.items())


def tracking_store(store_uri: str, artifact_uri: str | None = None, **_newer: Any) -> WorkspaceTrackingStore:
    """MLflow's tracking store for ``azureml``.

    Raises:
        MlflowException: The URI names no workspace, or this job has no token for it.
    """
    del artifact_uri  # a workspace says where artifacts go
    from .tracking import WorkspaceTrackingStore

    return WorkspaceTrackingStore(_session(store_uri))


def model_registry_store(store_uri: str, **_newer: Any) -> WorkspaceModelRegistryStore:
    """MLflow's model registry for ``azureml``.

    Raises:
        MlflowException: The URI names no workspace, or this job has no token for it.
    """
    from .registry import WorkspaceModelRegistryStore

    return WorkspaceModelRegistryStore(_session(store_uri))


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None, **_newer: Any
) -> WorkspaceArtifactRepository:
    """MLflow's artifact repository for ``azureml``.

    Raises:
        MlflowException: The URI is none of a workspace's artifacts, or this job has no token for it.
    """
    from .artifacts import WorkspaceArtifactRepository

    return WorkspaceArtifactRepository(artifact_uri, _session, tracking_uri, registry_uri)


def _session(uri: str) -> Any:
    import os

    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    from .reference import MalformedReference
    from .session import session_in_job

    try:
        return session_in_job(uri, os.environ)
    except MalformedReference as error:
        raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None
