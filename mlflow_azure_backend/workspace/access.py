"""How this process reaches a workspace for its jobs: connections that are shared by all that it does there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from mlflow_azure_backend.runtime.reference import WorkspaceReference
from mlflow_azure_backend.runtime.transport import Transport
from mlflow_azure_backend.workspace.arm import ResourceManager
from mlflow_azure_backend.workspace.finding import cloud_of
from mlflow_azure_backend.workspace.following import Follower
from mlflow_azure_backend.workspace.reaching import session_with

_logger = logging.getLogger(__name__)


def manager_of(reference: WorkspaceReference, environ: Mapping[str, str]) -> ResourceManager:
    """Resource Manager, asked about one workspace."""
    return ResourceManager(reference, cloud_of(reference, environ), environ, _logger.warning)


@lru_cache
def storage() -> Transport:
    """Addresses that grant access themselves."""
    return Transport(None, tell=_logger.warning)


def follower_of(reference: WorkspaceReference, name: str, log: Path, environ: Mapping[str, str]) -> Follower:
    """One job of a workspace, to be followed into ``log``.

    Raises:
        WorkspaceError: Azure does not say where the workspace is.
    """
    session = session_with(reference, environ)
    return Follower(session.transport, storage(), session.reference, name, log)
