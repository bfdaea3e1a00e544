"""Environments of a workspace: what a job's command finds in its container."""

from __future__ import annotations

import hashlib
from typing import Final

from mlflow_azure_backend.errors import EnvironmentUnavailable
from mlflow_azure_backend.workspace.arm import ResourceManager

STOCK_IMAGE: Final = "mcr.microsoft.com/azureml/openmpi5.0-ubuntu24.04:latest"
"""Azure ML's own image with a Python, on which a lock is installed at the job's start; nodes have it cached."""
_OURS: Final = "mlflow-azure-image"


def of_image(manager: ResourceManager, image: str) -> str:
    """ARM id of the environment that is one image as it is; its name follows from the image, so it is made once.

    Raises:
        WorkspaceError: Refused, or no answer in time.
    """
    path = f"/environments/{_OURS}/versions/{hashlib.sha256(image.encode()).hexdigest()[:32]}"
    found = manager.get(path)
    if found is None:
        properties = {"image": image, "osType": "Linux", "tags": {"mlflow_azure.image": image}}
        found = manager.put(path, {"properties": properties})
    return str(found["id"])


def registered(manager: ResourceManager, reference: str) -> str:
    """ARM id of an environment that the user named, ``azureml:NAME:VERSION`` or ``azureml:NAME@latest``.

    One of a registry, ``azureml://registries/…``, is what the service itself takes, and left for it to find.

    Raises:
        EnvironmentUnavailable: The workspace has none of that name or version.
        WorkspaceError: Refused, or no answer in time.
    """
    if reference.startswith("azureml://registries/"):
        return reference
    text = reference.removeprefix("azureml:")
    name, _, version = text.partition(":")
    if text.endswith("@latest"):
        name = text.removesuffix("@latest")
        container = manager.get(f"/environments/{name}")
        version = "" if container is None else str(container["properties"]["latestVersion"])
    found = manager.get(f"/environments/{name}/versions/{version}") if version else None
    if found is None:
        raise EnvironmentUnavailable(
            f"workspace {manager.reference.workspace_name} has no environment {text!r}",
            where="environment",
            next_step="`az ml environment list` shows those that it has; curated ones begin with azureml://registries/",
        )
    return str(found["id"])
