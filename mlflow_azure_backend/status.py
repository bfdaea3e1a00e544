"""What a job is doing, and why it ended: two enumerations with total maps.

The status words are Azure Machine Learning's (``JobStatus`` of the REST API 2024-10-01); every target speaks them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class JobStatus(str, Enum):
    """What the job is doing now, in Azure Machine Learning's words."""

    NOT_STARTED = "NotStarted"
    """Recorded, nothing begun."""
    STARTING = "Starting"
    """The service has accepted it; compute is being chosen."""
    PROVISIONING = "Provisioning"
    """Nodes are being created."""
    PREPARING = "Preparing"
    """Environment and inputs are being made ready."""
    QUEUED = "Queued"
    """Waiting for compute."""
    RUNNING = "Running"
    """The command runs."""
    FINALIZING = "Finalizing"
    """The command has ended; outputs are being collected."""
    CANCEL_REQUESTED = "CancelRequested"
    """Somebody asked for its end; it may still run."""
    NOT_RESPONDING = "NotResponding"
    """The service has lost sight of it; it may still run."""
    PAUSED = "Paused"
    """Suspended by the service."""
    SCHEDULED = "Scheduled"
    """Waiting for its time."""
    UNKNOWN = "Unknown"
    """A word that we do not know. Not final."""
    COMPLETED = "Completed"
    """Ended well."""
    FAILED = "Failed"
    """Ended badly."""
    CANCELED = "Canceled"
    """Ended because somebody wanted it to."""

    @property
    def is_final(self) -> bool:
        """True when the job will never change again; an unknown word is not final."""
        return self in _FINAL

    @classmethod
    def parse(cls, word: str) -> JobStatus:
        """Read a service's word; one that we do not know is ``UNKNOWN``, never an error and never final."""
        try:
            return cls(word)
        except ValueError:
            return cls.UNKNOWN


_FINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED})
_ACTIVE: Final = frozenset(JobStatus) - _FINAL

TRANSITIONS: Final[dict[JobStatus, frozenset[JobStatus]]] = {
    # A service may skip or repeat phases (preemption goes back to Queued), so the one law is that final is final.
    status: frozenset() if status in _FINAL else frozenset(JobStatus) - {JobStatus.NOT_STARTED}
    for status in JobStatus
}
"""Which status may follow which."""


class TerminationReason(str, Enum):
    """Why the job ended; None in a ``JobState`` means that it has not."""

    SUCCEEDED = "succeeded"
    """The command exited with 0."""
    EXIT_CODE = "exit_code"
    """The command exited with another code."""
    SIGNAL = "signal"
    """The command was killed by a signal that we did not send."""
    CANCELED = "canceled"
    """The user cancelled it."""
    CLIENT_DIED = "client_died"
    """The client that it was attached to died."""
    TIMEOUT = "timeout"
    """It ran longer than its ``timeout``."""
    LOST = "lost"
    """Its supervisor or its machine died; nobody saw the command's end."""
    START_FAILED = "start_failed"
    """The command never ran."""


STATUS_OF_REASON: Final[dict[TerminationReason, JobStatus]] = {
    TerminationReason.SUCCEEDED: JobStatus.COMPLETED,
    TerminationReason.EXIT_CODE: JobStatus.FAILED,
    TerminationReason.SIGNAL: JobStatus.FAILED,
    TerminationReason.CANCELED: JobStatus.CANCELED,
    TerminationReason.CLIENT_DIED: JobStatus.CANCELED,
    TerminationReason.TIMEOUT: JobStatus.FAILED,
    TerminationReason.LOST: JobStatus.FAILED,
    TerminationReason.START_FAILED: JobStatus.FAILED,
}
"""The final status that each reason means."""

RUN_STATUS: Final[dict[JobStatus, str]] = {
    JobStatus.NOT_STARTED: "SCHEDULED",
    JobStatus.SCHEDULED: "SCHEDULED",
    JobStatus.QUEUED: "SCHEDULED",
    JobStatus.COMPLETED: "FINISHED",
    JobStatus.FAILED: "FAILED",
    JobStatus.CANCELED: "KILLED",
    **dict.fromkeys(_ACTIVE - {JobStatus.NOT_STARTED, JobStatus.SCHEDULED, JobStatus.QUEUED}, "RUNNING"),
}
"""MLflow's ``RunStatus`` word for each status."""


@dataclass(frozen=True, slots=True)
class JobState:
    """What became of a job, as far as is known now.

    Attributes:
        status: What it is doing.
        reason: Why it ended; None while it has not.
        exit_code: The command's exit code, 128 + n when signal n ended it as a shell would say it; None when it never
            exited or nobody saw it.
        signal: The number of the signal that ended the command; None when none did.
        started_at: Seconds since the epoch; None before the command ran.
        ended_at: Seconds since the epoch; None while it has not ended.
        message: One line in the target's words; None when there is nothing to add.
    """

    status: JobStatus
    reason: TerminationReason | None = None
    exit_code: int | None = None
    signal: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    message: str | None = None

    @property
    def run_status(self) -> str:
        """MLflow's word for it."""
        return RUN_STATUS[self.status]
