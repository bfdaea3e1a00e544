"""Azure Resource Manager (ARM): the workspace's resources, at the pace that Azure allows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from requests import Response

from mlflow_azure_backend.errors import SignInError, WorkspaceError
from mlflow_azure_backend.runtime.clouds import Cloud, cloud_of_host
from mlflow_azure_backend.runtime.reference import WorkspaceReference
from mlflow_azure_backend.runtime.refusals import ServiceError
from mlflow_azure_backend.runtime.transport import Pace, Transport
from mlflow_azure_backend.workspace.credentials import token_source

API_VERSION: Final = "2024-10-01"
_NOT_FOUND: Final = 404
_REFUSED: Final = 400
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

    def get(self, path: str, **params: str) -> Any:
        """What is at ``path`` below the workspace; None when nothing is.

        Raises:
            WorkspaceError: Refused, or no answer in time.
        """
        response = self._send("GET", path, params=params, accept=(_NOT_FOUND,))
        return None if response.status_code == _NOT_FOUND else _object(response)

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """Make what is at ``path``; the same again changes nothing, so a lost answer is asked for again.

        Raises:
            WorkspaceError: Refused, or no answer in time; then nobody knows whether it was made.
        """
        return _object(self._send("PUT", path, json=body))

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, accept: tuple[int, ...] = ()) -> Any:
        """Ask for something that may be asked for twice; None for an empty answer, and for a status of ``accept``.

        Raises:
            WorkspaceError: Refused, or no answer in time.
        """
        response = self._send("POST", path, json=body, idempotent=True, accept=accept)
        return _object(response) if response.content and response.status_code < _REFUSED else None

    def _send(self, method: str, path: str, *, params: Mapping[str, str] | None = None, **request: Any) -> Response:
        with service_errors():
            asked = {"api-version": API_VERSION, **(params or {})}
            return self._transport.send(method, f"{self._base}{path}", params=asked, **request)

    def located(self) -> WorkspaceReference:
        """The workspace with the host of its services, for which Azure is asked.

        Raises:
            WorkspaceError: There is no such workspace, or no right to see it.
        """
        return self.reference if self.reference.host is not None else _located(self)


def _located(manager: ResourceManager) -> WorkspaceReference:
    found = manager.get("")
    if found is None:
        raise WorkspaceError(f"there is no workspace {manager.reference.workspace_name}", next_step="look at its name")
    properties = found["properties"]
    address = properties.get("mlFlowTrackingUri") or properties.get("discoveryUrl") or ""
    host = urlsplit(address).netloc
    if cloud_of_host(host) is None:
        name = manager.reference.workspace_name
        raise WorkspaceError(f"Azure says that workspace {name} is at {address!r}, which is no host of Azure ML")
    return replace(manager.reference, host=host)


def _object(response: Response) -> Any:
    try:
        told = response.json()
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise WorkspaceError(
            f"Azure's answer is no JSON object: {response.content[:80]!r}",
            next_step="something between here and Azure (a proxy, a sign-in page) answers instead",
        )
    return told


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
