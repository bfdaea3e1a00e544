"""The receipt that MLflow and users hold: waiting, following, cancelling, and writing the end down."""

from __future__ import annotations

import codecs
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from enum import Enum
from typing import Final

from mlflow.exceptions import ExecutionException
from mlflow.projects import SubmittedRun

from mlflow_azure_backend import recorder
from mlflow_azure_backend.card import Card
from mlflow_azure_backend.compute import target_named
from mlflow_azure_backend.console import Console
from mlflow_azure_backend.errors import BackendError, UnknownRun, WorkspaceError
from mlflow_azure_backend.files import fault_point
from mlflow_azure_backend.interrupts import remembered
from mlflow_azure_backend.job import JobHandle
from mlflow_azure_backend.journal import Journal, Lease, RunFolder, state_home
from mlflow_azure_backend.mirror import live
from mlflow_azure_backend.recorder import Ending
from mlflow_azure_backend.status import JobState
from mlflow_azure_backend.tracking_store import limited

_LEASE_SECONDS: Final = 10.0
_LEASE_POLL_SECONDS: Final = 0.05
_CARD_LINES: Final = 10


def _unheard(_state: JobState) -> None:
    """For nobody."""


class StillRunning(ExecutionException):
    """We stopped watching a job that goes on; MLflow must not write FAILED for it."""


class Tie(Enum):
    """What binds a client to a job."""

    ATTACHED = "attached"
    """It shows the log, and the job ends with it."""
    WATCHING = "watching"
    """It shows the log; the job goes on without it."""
    BACKGROUND = "background"
    """It shows nothing (``synchronous=False``) and may wait; the job goes on without it."""
    DETACHED = "detached"
    """It was asked to leave (``detach``) and refuses to wait; the job goes on without it."""


class AzureSubmittedRun(SubmittedRun):
    """A job that was submitted, here or in another process.

    Args:
        run: Its folder in the journal.
        handle: How the target finds it.
        lease: The right to write its end; None when another process has it.
        tie: What binds this client to it.
        console: Where ``wait`` shows the log; None for nowhere.
    """

    def __init__(
        self, run: RunFolder, handle: JobHandle, lease: Lease | None, tie: Tie, console: Console | None = None
    ) -> None:
        self._run = run
        self._handle = handle
        self._lease = lease
        self._tie = tie
        self._console = console
        self._target = target_named(handle.target)
        self._ending: Ending | None = None
        self._pumping = threading.Lock()
        self._shown = 0

    @classmethod
    def attach(cls, run_id: str, *, stream: bool = True) -> AzureSubmittedRun:
        """The run of that id (or of a beginning of it that fits one only), whoever started it.

        Args:
            run_id: MLflow's run id.
            stream: Whether ``wait`` shows the job's log, from its beginning.

        Raises:
            UnknownRun: The journal has no such run.
        """
        run = Journal(state_home(os.environ)).find(run_id)
        handle = run.handle()
        if handle is None:
            raise UnknownRun(f"run {run_id} was never started", next_step="`mlflow-azure sync` ends it")
        return cls(run, handle, run.try_lease(), Tie.WATCHING, Console() if stream else None)

    @property
    def run_id(self) -> str:
        """MLflow's run id, which is the job's name."""
        return self._handle.name

    @property
    def folder(self) -> RunFolder:
        """The run's folder in the journal."""
        return self._run

    @property
    def exit_code(self) -> int | None:
        """The command's exit code; None while it runs, and when nobody saw its end."""
        return self.state().exit_code

    @property
    def is_detached(self) -> bool:
        """Whether this client was asked to leave the job alone."""
        return self._tie is Tie.DETACHED

    def state(self) -> JobState:
        """What has become of the job, as far as is known now."""
        return self._target.state(self._handle)

    def get_status(self) -> str:
        """The word of MLflow's ``RunStatus`` for it."""
        return self._ending.run_status if self._ending is not None else self.state().run_status

    def wait(self) -> bool:
        """Show the log and return when the job has ended and its end is written down.

        Returns:
            True when it succeeded.

        Raises:
            StillRunning: We stopped watching, and the job goes on.
            KeyboardInterrupt: The user pressed Ctrl-C; the job has been cancelled first where that is the rule.
        """
        short = self.run_id[:8]
        goes_on = f"run {self.run_id} goes on; follow it with `mlflow-azure attach {short}`"
        if self._target.is_elsewhere:
            goes_on += f", end it with `mlflow-azure cancel {short}`"
        if self.is_detached:
            raise StillRunning(goes_on)
        with remembered():
            try:
                ending = self._follow()
            except KeyboardInterrupt:
                if self._console is None:
                    raise StillRunning(goes_on) from None
                if self._run.outcome() is not None:  # not asked for: the network may be why somebody leaves
                    self._console.error(f"left while its end was written down; `mlflow-azure status {short}` shows it")
                elif self._tie is Tie.ATTACHED:
                    with self._leaving_at_once_if_interrupted(), limited(retries=0):  # who comes next asks again
                        self._console.note("cancelling; Ctrl-C again leaves at once")
                        try:
                            self._cancel()
                        except WorkspaceError as error:
                            self._console.error(f"{error}; whether the job ends, `mlflow-azure status {short}` shows")
                else:
                    raise StillRunning(goes_on) from None
                raise
        return ending.run_status == "FINISHED"

    def cancel(self) -> None:
        """End the job; when this returns, its end is written down. A job that has ended is left alone."""
        with self._leaving_at_once_if_interrupted():
            self._cancel()

    def _cancel(self) -> None:
        self._target.cancel(self._handle)
        self._follow()

    @contextlib.contextmanager
    def _leaving_at_once_if_interrupted(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self._target.cancel(self._handle, at_once=True)
            if self._console is not None:
                short = self.run_id[:8]
                done = "its workspace is to end it" if self._target.is_elsewhere else "all is killed"
                self._console.error(f"left at once, {done}; `mlflow-azure status {short}` shows its end")
            raise

    def logs(self, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        """The job's log, piece by piece, undecodable bytes replaced.

        Args:
            follow: Go on until the job has ended.
            tail: Begin this many lines before the end; None for the whole log.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for chunk in self.read_log(follow=follow, tail=tail):
            if text := decoder.decode(chunk):
                yield text
        if rest := decoder.decode(b"", final=True):
            yield rest

    def read_log(self, *, follow: bool = False, tail: int | None = None) -> Iterator[bytes]:
        """The same, byte-exact."""
        offset = 0 if tail is None else self._target.offset_of_tail(self._handle, tail)
        return self._target.read(self._handle, offset, follow=follow)

    def _repr_html_(self) -> str:
        """The run as it is now, as a card in a notebook."""
        record, state = self._run.record(), self.state()
        if record is None:
            raise ValueError(f"submission {self._run.key} has no run to show")
        ending = self._ending
        if ending is None and self._run.is_recorded:
            ending = recorder.recorded_ending(self._run, state)
        diagnosis = None if ending is None else ending.diagnosis
        phases = [("submitted in", record.created_at, state.started_at), ("ran for", state.started_at, state.ended_at)]
        card = Card(
            run_id=self.run_id,
            run_name=record.run_name,
            status=state.run_status if ending is None else ending.run_status,
            project=f"{record.project_uri} {record.entry_point}",
            phases=[
                (name, max(0.0, end - begin)) for name, begin, end in phases if begin is not None and end is not None
            ],
            link=record.tracking.page_of(self.run_id),
            cause=state.message if diagnosis is None else diagnosis.cause,
            fix=None if diagnosis is None else diagnosis.fix,
            metrics=recorder.metrics_of(record),
            lines="".join(self.logs(tail=_CARD_LINES)).removesuffix("\n").split("\n"),
        )
        return card.html()

    def watch(self) -> None:
        """Write the end down when it comes, without anybody waiting: for a job that was submitted and left alone."""
        threading.Thread(target=self._watch, name=f"mlflow-azure-{self.run_id[:8]}", daemon=True).start()

    def _watch(self) -> None:
        # Nobody is there to hear of it; the journal keeps the end, and the next command delivers it.
        with contextlib.suppress(BackendError):
            self._follow()

    def _follow(self) -> Ending:
        """Pump the log until the job has ended, then write the end down; once, whoever calls."""
        with self._pumping:
            if self._ending is None:
                with self._mirrored():
                    self._pump()
                fault_point("submitted_run.before_finish")
                self._ending = self._finish(self.state())
                if self._console is not None:
                    record = self._run.record()
                    self._console.ending(self.run_id, self._ending, None if record is None else record.work_folder)
            return self._ending

    def _pump(self) -> None:
        """Pass on what the job writes until it has ended."""
        console = self._console
        on_state = _unheard if console is None else console.job_state
        for chunk in self._target.read(self._handle, self._shown, follow=True, on_state=on_state):
            self._shown += len(chunk)
            fault_point("submitted_run.streaming")
            if console is not None:
                console.job_output(chunk)

    def _mirrored(self) -> contextlib.AbstractContextManager[None]:
        """What the job logs in its workspace is copied to where the user tracks, where that is elsewhere."""
        record = self._run.record()
        return live(record) if record is not None and record.tracks == "mirrors" else contextlib.nullcontext()

    def _finish(self, state: JobState) -> Ending:
        lease, self._lease = self._lease or self._await_lease(), None
        if lease is None:
            return recorder.recorded_ending(self._run, state)
        try:
            if self._run.is_recorded:
                ending = recorder.recorded_ending(self._run, state)
            else:
                ending = recorder.finish(self._run, state)
            if ending.undelivered is not None:
                self._run.postpone()
        finally:
            lease.release()
        self._target.release(self._handle)  # waits for the supervisor, which somebody who leaves need not do
        return ending

    def _await_lease(self) -> Lease | None:
        """The right to write the end, from a client that is writing it or about to die; None if it keeps it."""
        deadline = time.monotonic() + _LEASE_SECONDS
        while (lease := self._run.try_lease()) is None and time.monotonic() < deadline:
            time.sleep(_LEASE_POLL_SECONDS)
        return lease
