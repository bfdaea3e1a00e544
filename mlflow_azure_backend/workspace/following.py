"""Following one job: looked at when it may have changed, its log read on from where we are.

Not azure-ai-ml's ``jobs.stream``: that reads every log whole at each look, shows one rank, and gives up at the first
refusal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mlflow_azure_backend.errors import WorkspaceError
from mlflow_azure_backend.runtime.blobs import SignedAddress, read_range
from mlflow_azure_backend.runtime.reference import WorkspaceReference
from mlflow_azure_backend.runtime.refusals import ServiceError
from mlflow_azure_backend.runtime.transport import Transport
from mlflow_azure_backend.workspace.arm import service_errors
from mlflow_azure_backend.workspace.jobs import JobDetails, job_details
from mlflow_azure_backend.workspace.remote_log import RemoteLog

_FIRST_SECONDS: Final = 1.0
"""Between two looks while something happens."""
_SLOWEST_SECONDS: Final = 15.0
_SLOWER: Final = 1.5
_STILL_SECONDS: Final = 1.0
"""The service may say that a job has ended before all of its log is there: so long must nothing have come."""
_GLANCE_SECONDS: Final = 5.0
_SMALL: Final = 1024 * 1024
_NOT_FOUND: Final = 404


class Follower:
    """One job, seen from here. May be used from several threads.

    Args:
        data_plane: Asks the workspace's services.
        storage: Reads addresses that grant access themselves.
        reference: The workspace.
        name: The job's name.
        log: Where our copy of its log is kept.
    """

    def __init__(
        self, data_plane: Transport, storage: Transport, reference: WorkspaceReference, name: str, log: Path
    ) -> None:
        self._data_plane = data_plane
        self._storage = storage
        self._reference = reference
        self._name = name
        self._log = RemoteLog(log, self._read)
        self._lock = threading.Lock()
        self._addresses: dict[str, SignedAddress] = {}
        self._logs: Mapping[str, str] = {}
        self._seen: JobDetails | None = None
        self._pause = _FIRST_SECONDS
        self._next_look = 0.0

    def look(self) -> JobDetails | None:
        """What is known of the job, asked for when it is time to; None when run history does not know it.

        Once this says that the job has ended, our copy of its log is whole: it waits for that.

        Raises:
            WorkspaceError: Refused, or no answer in time.
            JournalError: The copy cannot be written.
        """
        with self._lock:
            is_over = self._seen is not None and self._seen.status.is_final
            if not is_over and time.monotonic() >= self._next_look:
                self._look()
            return self._seen

    def glance(self) -> JobDetails | None:
        """What is known of the job, as ``look`` says it; its log is left alone.

        Raises:
            WorkspaceError: Refused, or no answer within seconds.
        """
        return job_details(self._data_plane, self._reference, self._name, patience=_GLANCE_SECONDS)

    def seconds_to_next_look(self) -> float:
        """For how long there can be no news."""
        return max(0.0, self._next_look - time.monotonic())

    def hurry(self) -> None:
        """Look again at once: somebody asked something of the job."""
        self._next_look, self._pause = 0.0, _FIRST_SECONDS

    def small_file(self, name: str) -> bytes | None:
        """One of the files below the job's ``logs``; None when there is none of that name.

        Raises:
            WorkspaceError: Refused, or no answer in time.
        """
        if name not in self._logs:
            return None
        return self._read(name, 0, _SMALL)

    def _look(self) -> None:
        before, now = self._seen, job_details(self._data_plane, self._reference, self._name)
        came = 0 if now is None else self._fetch(now)
        self._seen = now
        news = came > 0 or before is None or now is None or before.status is not now.status
        self._pause = _FIRST_SECONDS if news else min(_SLOWEST_SECONDS, self._pause * _SLOWER)
        self._next_look = time.monotonic() + self._pause

    def _fetch(self, now: JobDetails) -> int:
        """Bring what is new of the log; of a job that has ended, all of it, which may still be on its way."""
        self._logs = now.logs
        came = self._log.fetch(now.logs, final=now.status.is_final)
        while now.status.is_final:
            time.sleep(_STILL_SECONDS)
            late = job_details(self._data_plane, self._reference, self._name)
            self._logs = now.logs if late is None else late.logs
            more = self._log.fetch(self._logs, final=True)
            came += more
            if not more:
                break
        return came

    def _read(self, name: str, offset: int, length: int) -> bytes:
        """Part of a log; nothing of one that is announced and not there yet."""
        address = self._addresses.setdefault(name, SignedAddress(self._address(name), lambda: self._renewed(name)))
        with service_errors():
            try:
                return read_range(self._storage, address, offset, length)
            except ServiceError as problem:
                if problem.status != _NOT_FOUND:
                    raise
                return b""

    def _address(self, name: str) -> str:
        return self._logs[name]

    def _renewed(self, name: str) -> str:
        """A new address of a log: the old one granted access for a while only."""
        details = job_details(self._data_plane, self._reference, self._name)
        if details is None or name not in details.logs:
            raise WorkspaceError(f"{name} of job {self._name} is gone")
        return details.logs[name]
