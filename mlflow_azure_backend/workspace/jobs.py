"""Jobs of a workspace: put, looked at, cancelled; each call is one request and may be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from mlflow_azure_backend.errors import WorkspaceError
from mlflow_azure_backend.runtime.reference import WorkspaceReference
from mlflow_azure_backend.runtime.transport import Transport
from mlflow_azure_backend.status import JobStatus
from mlflow_azure_backend.workspace.arm import ResourceManager, service_errors

_NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True)
class JobDetails:
    """What run history says of a job.

    Attributes:
        status: A word of Azure's.
        logs: By its name, like ``user_logs/std_log.txt``, where each log can be read for a while.
        started_at: Seconds since the epoch; None before its command ran.
        ended_at: Seconds since the epoch; None while it goes on.
        error_code: The service's innermost code of what went wrong; None when nothing did.
        error: The service's words for it; None when nothing went wrong.
    """

    status: JobStatus
    logs: Mapping[str, str] = field(default_factory=dict)
    started_at: float | None = None
    ended_at: float | None = None
    error_code: str | None = None
    error: str | None = None


def put_job(manager: ResourceManager, name: str, body: Mapping[str, Any]) -> None:
    """Submit a job under its name; the same again changes nothing, so a lost answer is asked for again.

    Raises:
        WorkspaceError: Refused, or no answer in time; then nobody knows whether there is a job.
    """
    manager.put(f"/jobs/{name}", body)


def job_exists(manager: ResourceManager, name: str) -> bool:
    """Whether the workspace has a job of that name.

    Raises:
        WorkspaceError: Refused, or no answer in time.
    """
    return manager.get(f"/jobs/{name}") is not None


def cancel_job(manager: ResourceManager, name: str) -> None:
    """Ask for a job's end, and do not wait for it; one that has ended, or is not there, is left alone.

    Raises:
        WorkspaceError: Refused, or no answer in time.
    """
    manager.post(f"/jobs/{name}/cancel", accept=(400, _NOT_FOUND, 409))


def job_details(
    data_plane: Transport, reference: WorkspaceReference, name: str, *, patience: float | None = None
) -> JobDetails | None:
    """One look at a job; None when run history does not know it (yet).

    Args:
        data_plane: Asks the workspace's services.
        reference: The workspace.
        name: The job's.
        patience: Seconds that are spent on it; None: as many as on any call.

    Raises:
        WorkspaceError: Refused, or no answer in time.
    """
    url = f"{reference.service('history/v1.0')}/runs/{name}/details"
    with service_errors():
        response = data_plane.send("GET", url, params={"api-version": "v1.0"}, accept=(_NOT_FOUND,), patience=patience)
    if response.status_code == _NOT_FOUND:
        return None
    try:
        return _details(response.json())
    except (ValueError, AttributeError, TypeError) as error:
        raise WorkspaceError(f"run history says of job {name} what cannot be read ({error})") from None


def _details(told: Mapping[str, Any]) -> JobDetails:
    error = (told.get("error") or {}).get("error") or {}
    inner, code = error.get("innerError"), error.get("code")
    while isinstance(inner, dict):
        code, inner = inner.get("code") or code, inner.get("innerError")
    return JobDetails(
        status=JobStatus.parse(str(told.get("status"))),
        logs={str(name): str(url) for name, url in (told.get("logFiles") or {}).items()},
        started_at=_seconds(told.get("startTimeUtc")),
        ended_at=_seconds(told.get("endTimeUtc")),
        error_code=code,
        error=error.get("message"),
    )


def _seconds(instant: str | None) -> float | None:
    """An ISO 8601 instant of .NET's, whose fraction has seven digits and whose zone may be a Z."""
    if not instant:
        return None
    whole, _, rest = instant.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :] if rest else ""
    text = f"{whole}.{digits[:6]}{zone}" if digits else instant
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
