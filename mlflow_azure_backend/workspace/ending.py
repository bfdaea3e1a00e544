"""How a job of a workspace ended: what the service says, better told by what the job itself reported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mlflow_azure_backend.runtime.report import JobReport, from_json, report_name
from mlflow_azure_backend.status import STATUS_OF_REASON, JobState, JobStatus, TerminationReason
from mlflow_azure_backend.workspace.following import Follower
from mlflow_azure_backend.workspace.jobs import JobDetails

_STATUS_CODE: Final = re.compile(r"(?:exited with status code|exit code:?)\s+(\d+)", re.IGNORECASE)
"""In the service's words for a command that failed."""
_BY_SIGNAL: Final = 128


@dataclass(frozen=True, slots=True)
class JobEnding:
    """How a job ended.

    Attributes:
        state: Its final state.
        facts: What else is known for a diagnosis, in the words of ``outcome.json``.
    """

    state: JobState
    facts: Mapping[str, Any]


def ending_of(details: JobDetails, follower: Follower, *, timeout: float | None, cancelled: bool) -> JobEnding:
    """How a job ended that has ended.

    Args:
        details: What run history says.
        follower: Reads the job's report.
        timeout: Seconds that the command was allowed; None: no limit.
        cancelled: Whether somebody asked for the end from here.

    Raises:
        WorkspaceError: The report cannot be read.
    """
    report = _report(follower)
    reason, exit_code = _reason(details, report, timeout=timeout, cancelled=cancelled)
    signal = None if report is None else report.signal
    if signal is None and exit_code is not None and exit_code > _BY_SIGNAL and reason is TerminationReason.SIGNAL:
        signal = exit_code - _BY_SIGNAL
    state = JobState(
        STATUS_OF_REASON[reason],
        reason,
        exit_code=exit_code,
        signal=signal,
        started_at=details.started_at if report is None else report.started_at,
        ended_at=details.ended_at if report is None or report.ended_at is None else report.ended_at,
        message=_message(details, report, reason),
    )
    return JobEnding(state, {} if report is None else _facts(report))


def _facts(report: JobReport) -> dict[str, Any]:
    return {
        "job_folder": report.folder,
        "oom": bool(report.oom_kills),
        "memory_limit": report.memory_limit,
        "memory_peak": report.memory_peak,
        "max_rss": report.largest_process,
    }


def _report(follower: Follower) -> JobReport | None:
    """The first rank's; None when it did not come so far, or is none."""
    text = follower.small_file(report_name(0))
    if text is None:
        return None
    try:
        return from_json(text.decode())
    except ValueError:
        return None


def _reason(
    details: JobDetails, report: JobReport | None, *, timeout: float | None, cancelled: bool
) -> tuple[TerminationReason, int | None]:
    if details.status is JobStatus.COMPLETED:
        return TerminationReason.SUCCEEDED, 0
    if details.status is JobStatus.CANCELED:
        timed_out = not cancelled and _took(details) >= (float("inf") if timeout is None else timeout)
        return TerminationReason.TIMEOUT if timed_out else TerminationReason.CANCELED, None
    code = report.exit_code if report is not None else _said(details)
    if report is not None and report.problem is not None:
        return TerminationReason.START_FAILED, None
    if code is None or code == 0:  # the command is not to blame, or nobody knows
        return (TerminationReason.LOST if details.started_at is not None else TerminationReason.START_FAILED), None
    by_signal = report is not None and report.signal is not None
    return (TerminationReason.SIGNAL if by_signal else TerminationReason.EXIT_CODE), code


def _took(details: JobDetails) -> float:
    if details.started_at is None or details.ended_at is None:
        return 0.0
    return details.ended_at - details.started_at


def _said(details: JobDetails) -> int | None:
    found = None if details.error is None else _STATUS_CODE.search(details.error)
    return None if found is None else int(found[1])


def _message(details: JobDetails, report: JobReport | None, reason: TerminationReason) -> str | None:
    if reason in (TerminationReason.LOST, TerminationReason.START_FAILED):
        said = report.problem if report is not None and report.problem is not None else details.error
        return None if said is None else " ".join(said.split())
    return None
