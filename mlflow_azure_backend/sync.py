"""Write the ends that nobody wrote: of runs whose client, supervisor or machine died, or whose store was away."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from mlflow_azure_backend.compute import TARGETS, target_named
from mlflow_azure_backend.errors import BackendError, TrackingError, WorkspaceError
from mlflow_azure_backend.journal import Journal, RunFolder, RunRecord, state_home


def sync(journal: Journal) -> Iterator[str]:
    """End every run that can be ended now; one line for each that was, or could not be.

    Runs that go on, are being submitted, or belong to a living client are left alone. MLflow is imported only when
    there is something to write.

    Raises:
        JournalError: The state folder cannot be read.
    """
    yield from _sync(journal, patient=True)
    for name in TARGETS:
        yield from target_named(name).sweep(journal)


def sync_silently(journal: Journal) -> None:
    """The same, for commands that are about something else: what was away a moment ago is not asked again."""
    for _ in _sync(journal, patient=False):
        pass


def _sync(journal: Journal, *, patient: bool) -> Iterator[str]:
    away: set[str] = set()
    for run in journal.active():
        if not run.paths.folder.exists():
            run.settle()  # whoever is about to make it marks it again
            continue
        if run.is_postponed and not patient:
            continue
        claim = lease = None
        try:
            claim = run.try_claim()
            lease = None if claim is None else run.try_lease()
            if lease is not None and claim is not None:
                if run.handle() is not None:
                    claim.release()  # nobody submits it again; and who asks after it sees that nobody is at it
                yield from _settle(run, away, patient=patient)
        except BackendError as error:  # one damaged run must not keep the others from their end
            yield str(error)
        finally:
            for held in (lease, claim):
                if held is not None:
                    held.release()


def main(arguments: list[str]) -> int:
    """End one run whose client is gone: ``python -m mlflow_azure_backend.sync KEY``.

    What the supervisor starts for jobs whose target has more to clear away than ``recorder.main`` knows of.
    """
    run = RunFolder(state_home(os.environ), arguments[0])
    lease = run.try_lease()
    if lease is None:
        return 0
    away: set[str] = set()
    for line in _settle(run, away, patient=True):
        print(line)  # noqa: T201 - into recorder.log
    return 1 if away else 0


def _settle(run: RunFolder, away: set[str], *, patient: bool) -> Iterator[str]:
    record = run.record()
    if record is not None and record.workspace is not None and not patient:
        return  # the workspace ends its runs itself, and to ask it takes a sign-in
    if record is None:
        run.discard()
    elif run.is_recorded:
        run.settle()
    elif _asked(record) in away:
        return  # it was said once, and takes its time to find out
    elif record.tracking.uri not in away:
        yield from _end(run, record, away)
        if record.tracking.uri in away:
            run.postpone()
    else:
        run.postpone()


def _asked(record: RunRecord) -> str:
    """Who knows of a run's job, as ``away`` has it; empty for jobs on this machine."""
    return "" if record.workspace is None else record.workspace.arm_id


def _end(run: RunFolder, record: RunRecord, away: set[str]) -> Iterator[str]:
    handle = run.handle()
    try:
        state = None if handle is None else target_named(handle.target).state(handle)
    except WorkspaceError as error:
        away.add(_asked(record))
        yield f"run {record.run_id}: {error}"
        return
    if state is not None and not state.status.is_final:
        return
    from mlflow_azure_backend import recorder

    if state is None:
        try:
            recorder.end_orphan(record)
        except TrackingError as error:
            away.add(record.tracking.uri)
            yield str(error)
        else:
            run.discard()
        return
    ending = recorder.finish(run, state)
    if handle is not None:
        target_named(handle.target).release(handle)
    if ending.undelivered is None:
        yield f"run {record.run_id} is {ending.run_status}"
    else:
        away.add(record.tracking.uri)
        yield f"run {record.run_id} is not delivered: {ending.undelivered}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
