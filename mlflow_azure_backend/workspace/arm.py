"""Azure Resource Manager (ARM): the workspace's resources, at the pace that Azure allows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from mlflow_azure_backend.errors import SignInError, WorkspaceError
from mlflow_azure_backend.runtime.clouds import Cloud, cloud_of_host
from mlflow_azure_backend.runtime.reference import WorkspaceReference
from mlflow_azure_backend.runtime.refusals import ServiceError
from mlflow_azure_backend.runtime.transport import Pace, Transport
from mlflow_azure_backend.workspace.credentials import token_source

API_VERSION: Final = "2024-10-01"
_READS: Final = Pace(250, 25)
_WRITES: Final = Pace(200, 10)
"""What ARM grants one principal in one region; shared by all that this process does."""


class ResourceManager:
    """Asks ARM about one workspace. May be used from several threads.

    Args:
        reference: The workspace.
        cloud: The cloud that it is in.
        environ: The client's variables, which say who we are.
        tell: Told one line for each route that is waited for.
    """

    def __init__(
        self,
        reference: WorkspaceReference,
        cloud: Cloud,
        environ: Mapping[str, str],
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.reference = reference
        self._base = f"https://{cloud.resource_manager}{reference.arm_id}"
        self._transport = Transport(token_source(cloud, environ), tell=tell, pace=_pace)

    def json(self, method: str, path: str, *, api_version: str = API_VERSION, **request: Any) -> Any:
        """Ask for what is below the workspace; ``request`` as in ``Transport.send``.

        Raises:
            WorkspaceError: Refused, or no answer in time.
        """
        with service_errors():
            params = {"api-version": api_version, **request.pop("params", {})}
            return self._transport.json(method, f"{self._base}{path}", params=params, **request)

    def located(self) -> WorkspaceReference:
        """The workspace with the host of its services, which Azure is asked for once in this process.

        Raises:
            WorkspaceError: There is no such workspace, or no right to see it.
        """
        return self.reference if self.reference.host is not None else _located(self)


@lru_cache
def _located(manager: ResourceManager) -> WorkspaceReference:
    properties = manager.json("GET", "")["properties"]
    address = properties.get("mlFlowTrackingUri") or properties.get("discoveryUrl") or ""
    host = urlsplit(address).netloc
    if cloud_of_host(host) is None:
        name = manager.reference.workspace_name
        raise WorkspaceError(f"Azure says that workspace {name} is at {address!r}, which is no host of Azure ML")
    return replace(manager.reference, host=host)


@contextlib.contextmanager
def service_errors() -> Iterator[None]:
    """A service's refusals as our errors: this is the seam where the one tree becomes the other.

    Raises:
        SignInError: Azure does not accept who we are.
        WorkspaceError: It refused, or did not answer.
    """
    try:
        yield
    except ServiceError as error:
        kind = SignInError if error.status == 401 else WorkspaceError
        said = error.what if error.request_id is None else f"{error.what} (request {error.request_id})"
        raise kind(said, where=error.route, next_step=error.next_step) from error


def _pace(method: str) -> None:
    (_READS if method in ("GET", "HEAD") else _WRITES).wait()
