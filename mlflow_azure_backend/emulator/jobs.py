"""The workspace's command jobs: one state machine, which decides about a job's run as well."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from mlflow_azure_backend.emulator.clock import Clock
from mlflow_azure_backend.emulator.state import State
from mlflow_azure_backend.emulator.tracking import JobRun, Tracking

_BEFORE = ("Starting", "Preparing", "Queued", "Provisioning")
TRANSITIONS: Mapping[str, frozenset[str]] = {
    "Starting": frozenset({"Preparing", "CancelRequested", "Failed"}),
    "Preparing": frozenset({"Queued", "CancelRequested", "Failed"}),
    "Queued": frozenset({"Provisioning", "CancelRequested", "Failed"}),
    "Provisioning": frozenset({"Running", "CancelRequested", "Failed"}),
    "Running": frozenset({"Finalizing", "Queued", "CancelRequested", "Failed"}),
    "Finalizing": frozenset({"Completed", "CancelRequested", "Failed"}),
    "CancelRequested": frozenset({"Canceled", "Failed"}),
    "Completed": frozenset(),
    "Failed": frozenset(),
    "Canceled": frozenset(),
}
"""What may follow each of Azure's words for a job's status; those that nothing follows are final.

A job whose nodes were taken away waits in the queue again.
"""

_RUN_STATUS = {
    **dict.fromkeys(_BEFORE, "SCHEDULED"),
    **dict.fromkeys(("Running", "Finalizing", "CancelRequested"), "RUNNING"),
    "Completed": "FINISHED",
    "Failed": "FAILED",
    "Canceled": "KILLED",
}
"""MLflow's word for each; inferred."""

_KIND = "jobs"


@dataclass
class Job:
    """One job.

    Attributes:
        name: Chosen by the client; its run's id.
        asked: The properties that the client sent, by which a repeated request is known.
        properties: The properties as the service shows them, without the status.
        status: One of the keys of ``TRANSITIONS``.
        created: Seconds since the epoch.
        user: Who made it.
        started: When its command started; None: it did not.
        ended: When it became final; None: it is not.
        error: Why it failed, ``code`` and ``message``; None: it did not.
    """

    name: str
    asked: dict[str, Any]
    properties: dict[str, Any]
    status: str
    created: float
    user: str
    started: float | None = None
    ended: float | None = None
    error: dict[str, str] | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more can become of it."""
        return not TRANSITIONS[self.status]

    @property
    def experiment(self) -> str:
        """The name of its experiment."""
        return str(self.properties["experimentName"])

    @property
    def artifacts(self) -> str:
        """What the names of its blobs in ``workspaceartifactstore`` start with."""
        return f"ExperimentRun/dcid.{self.name}/"

    @property
    def compute(self) -> str | None:
        """The name of its cluster; None: it is serverless."""
        identity: str | None = self.properties.get("computeId")
        return None if not identity else identity.rpartition("/")[2]

    @property
    def nodes(self) -> int:
        """How many nodes it has."""
        return int(self.properties["resources"]["instanceCount"])


@dataclass
class Jobs:
    """Keeps jobs, and tells the tracking server of every change.

    Attributes:
        state: Where they are kept.
        clock: The service's time.
        tracking: MLflow's server.
        work: The tasks that carry jobs out, by the job's name.
    """

    state: State
    clock: Clock
    tracking: Tracking
    work: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def get(self, name: str) -> Job | None:
        """A job; None: there is none of this name."""
        document = self.state.get(_KIND, name)
        return None if document is None else Job(**document)

    def all(self) -> list[Job]:
        """All jobs, the oldest first."""
        return [Job(**document) for _, document in self.state.items(_KIND)]

    def add(self, job: Job) -> None:
        """Keep a new job, or the new properties of one."""
        self._put(job)

    def move(self, name: str, status: str, error: dict[str, str] | None = None) -> bool:
        """Let a job go on to a status; False when its status does not allow that, and nothing has changed.

        Args:
            name: The job's.
            status: One of the keys of ``TRANSITIONS``.
            error: Why, for ``Failed``.
        """
        job = self.get(name)
        if job is None or status not in TRANSITIONS[job.status]:
            return False
        now = self.clock.now().timestamp()
        job.status, job.error = status, error
        if status == "Running":
            job.started = now
        if job.is_final:
            job.ended = now
        self._put(job)
        return True

    async def remove(self, name: str) -> None:
        """Forget a job, and end the work on it."""
        self.state.delete(_KIND, name)
        task = self.work.get(name)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def resume(self) -> list[Job]:
        """After a restart: tell of all jobs, and fail those whose command is lost; returns those to do again."""
        again = []
        for job in self.all():
            if job.status in _BEFORE:
                job.status = "Starting"
                again.append(job)
            elif job.status == "CancelRequested":
                job.status, job.ended = "Canceled", self.clock.now().timestamp()
            elif not job.is_final:
                message = "The emulator ended while the job's command ran."
                job.status, job.ended = "Failed", self.clock.now().timestamp()
                job.error = {"code": "NodeLost", "message": message}
            self._put(job)
        return again

    async def close(self) -> None:
        """End the work on all jobs; their commands end with it."""
        for task in self.work.values():
            task.cancel()
        await asyncio.gather(*self.work.values(), return_exceptions=True)

    def _put(self, job: Job) -> None:
        self.state.put(_KIND, job.name, vars(job))
        self.tracking.tell(
            job.name,
            JobRun(
                experiment=job.experiment,
                display_name=job.properties["displayName"],
                status=_RUN_STATUS[job.status],
                start_time=int(1000 * (job.started or job.created)),
                end_time=None if job.ended is None else int(1000 * job.ended),
                user=job.user,
                tags={"mlflow.runName": job.properties["displayName"], **job.properties["tags"]},
            ),
        )


def moment(seconds: float | None) -> datetime | None:
    """A time of a job's; None stays None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
