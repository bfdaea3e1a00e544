"""MLflow's door for artifacts: ``azureml://`` as an artifact repository.

MLflow loads this module whenever it is imported itself, so that what a repository needs is imported when one is asked
for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_azure_backend.runtime.artifacts import WorkspaceArtifactRepository


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None, **_newer: Any
) -> WorkspaceArtifactRepository:
    """The artifacts at an ``azureml://`` URI.

    Args:
        artifact_uri: As ``ArtifactPlace`` reads it; one that names no workspace is of the tracking URI's.
        tracking_uri: Where the caller tracks; None: what MLflow says.
        registry_uri: Kept for MLflow.
        **_newer: What later versions of MLflow may give.

    Raises:
        MlflowException: It is no such URI, no workspace is named or there, or Azure does not know who we are.
    """
    from mlflow_azure_backend.runtime.artifacts import WorkspaceArtifactRepository
    from mlflow_azure_backend.stores import session_for

    return WorkspaceArtifactRepository(artifact_uri, session_for, tracking_uri, registry_uri)
