"""From a URI of MLflow's to a workspace that can be asked: which one, where it is, and as whom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlflow_azure_backend.runtime.clouds import Cloud
from mlflow_azure_backend.runtime.reference import WorkspaceReference
from mlflow_azure_backend.runtime.session import Session, session_given, shared_session
from mlflow_azure_backend.workspace.credentials import identity_in, token_source
from mlflow_azure_backend.workspace.finding import cloud_of, find_workspace


def reach(tracking_uri: str | None, folder: Path, environ: Mapping[str, str]) -> Session:
    """The session of this process with the workspace that a tracking URI means.

    Args:
        tracking_uri: A whole ``azureml://`` one, or a short one, for which the workspace is looked for.
        folder: Where the search for ``config.json`` starts.
        environ: The process's variables.

    Raises:
        WorkspaceError: Nothing names a workspace, or Azure does not say where it is.
    """
    return session_with(find_workspace(None, tracking_uri, folder, environ), environ)


def session_with(reference: WorkspaceReference, environ: Mapping[str, str]) -> Session:
    """The session of this process with a workspace, with the token that the environment gives, else signed in.

    Raises:
        WorkspaceError: Azure does not say where the workspace is.
    """
    cloud = cloud_of(reference, environ)
    identity = identity_in(environ)
    located = reference if reference.host is not None else located_in(reference, cloud, environ)
    given = session_given(located, environ)
    if given is not None:
        return given
    return shared_session(located, identity, lambda: token_source(cloud_of(located, environ), environ))


def located_in(reference: WorkspaceReference, cloud: Cloud, environ: Mapping[str, str]) -> WorkspaceReference:
    """The workspace with the host of its services, which Azure is asked for once in this process.

    Raises:
        WorkspaceError: Azure does not say where the workspace is.
    """
    from mlflow_azure_backend.workspace.arm import ResourceManager

    if reference not in _hosts:
        _hosts[reference] = ResourceManager(reference, cloud, environ).located()
    return _hosts[reference]


_hosts: dict[WorkspaceReference, WorkspaceReference] = {}
