"""What the commands share: how they end, and what they say of a run."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from mlflow_azure_backend.compute import target_named
from mlflow_azure_backend.console import TRACEBACK_VARIABLE, Console, our_mistake
from mlflow_azure_backend.errors import BackendError, UnknownRun, WorkspaceError
from mlflow_azure_backend.journal import Journal, RunFolder, RunRecord, state_home
from mlflow_azure_backend.redaction import without_credentials
from mlflow_azure_backend.status import JobState, JobStatus
from mlflow_azure_backend.sync import sync_silently

if TYPE_CHECKING:
    from mlflow_azure_backend.submitted_run import AzureSubmittedRun

INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell says it: 128 + SIGINT."""


class Commands(click.Group):
    """Ends every mistake of the user's in one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a mistake of ours is one line, too, unless its traceback is asked for."""
        try:
            return super().invoke(ctx)
        except BackendError as error:
            Console().error(str(error))
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if os.environ.get(TRACEBACK_VARIABLE):
                raise
            Console().error(str(our_mistake(error)))
            ctx.exit(1)


@contextlib.contextmanager
def loading_mlflow() -> Iterator[None]:
    """Import MLflow in a good half of its time: Python is not to look for garbage in it, neither now nor at exit."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def synced_journal() -> Journal:
    """The journal of this user, with the ends written that nobody had written."""
    journal = Journal(state_home(os.environ))
    sync_silently(journal)
    return journal


def run_named(run: str) -> RunFolder:
    """A run by its id, or by a beginning of it; one that was started elsewhere may be in the workspace.

    Raises:
        UnknownRun: Nobody knows it.
    """
    journal = synced_journal()
    try:
        return journal.find(run)
    except UnknownRun:
        from mlflow_azure_backend.adoption import find_run  # what it takes to ask Azure is seldom needed

        return find_run(journal, run, os.environ)


def facts_of(run: RunFolder, away: set[str] | None = None) -> dict[str, Any]:
    """What is known of a run, as ``list`` and ``status`` say it; times are ISO 8601 with the local offset.

    Args:
        run: Its folder.
        away: The workspaces that did not answer, of which no more is asked; one that does not is added.
    """
    record, recorded = run.record(), run.read_json(run.paths.recorded) or {}
    if record is None:
        raise UnknownRun("nothing is recorded of this run", where=run.key)
    state = _seen(run, record, set() if away is None else away)
    said = state.status.value.upper() if state.status is JobStatus.UNKNOWN else state.run_status
    diagnosis = recorded.get("diagnosis") or {}
    return {
        "run_id": record.run_id,
        "run_name": record.run_name,
        "status": recorded.get("run_status", said),
        "exit_code": state.exit_code,
        "reason": None if state.reason is None else state.reason.value,
        "cause": diagnosis.get("cause") or state.message,
        "at": diagnosis.get("at"),
        "fix": diagnosis.get("fix"),
        "target": record.target,
        "project": record.project_uri,
        "entry_point": record.entry_point,
        "parameters": dict(record.parameters),
        "created_at": _when(record.created_at),
        "ended_at": _when(state.ended_at),
        "tracking_uri": without_credentials(record.tracking.uri),
        "experiment_id": record.tracking.experiment_id,
        "log": str(run.paths.log),
    }


def _seen(run: RunFolder, record: RunRecord, away: set[str]) -> JobState:
    """What has become of a run's job; unknown, and why, where its workspace cannot be asked."""
    handle = run.handle()
    if handle is None:
        return JobState(JobStatus.NOT_STARTED)
    where = "" if record.workspace is None else record.workspace.arm_id
    if where in away and run.outcome() is None:
        return JobState(JobStatus.UNKNOWN)
    try:
        return target_named(handle.target).glance(handle)
    except WorkspaceError as error:
        away.add(where)
        return JobState(JobStatus.UNKNOWN, message=str(error))


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def exit_code_of(run: RunFolder) -> int:
    """The job's own; 1 for one that failed without, or whose program said FAILED and exited with 0."""
    facts = facts_of(run)
    if facts["status"] == "FINISHED":
        return 0
    return facts["exit_code"] or 1


def leave(run: RunFolder, *, as_json: bool, has_ended: bool) -> None:
    """The last words about a run that was started here, and the job's own exit code if it has ended."""
    if as_json:
        say_json(facts_of(run))
    if has_ended:
        sys.exit(exit_code_of(run))


def follow(submitted: AzureSubmittedRun) -> None:
    """Wait for a job, and leave as after Ctrl-C when that only ended the watching."""
    from mlflow_azure_backend.submitted_run import StillRunning

    try:
        submitted.wait()
    except StillRunning as going_on:
        Console().note(str(going_on))
        sys.exit(INTERRUPTED)


def say_json(value: object) -> None:
    """Print facts for a program to read."""
    Console().plain(json.dumps(value, ensure_ascii=False, indent=2))
