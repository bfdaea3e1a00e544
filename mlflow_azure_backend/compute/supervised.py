"""What the targets have in common that run a job under ``supervisor.py``: its log, its state, its end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

from mlflow_azure_backend.compute.base import ComputeTarget, resolve_secrets
from mlflow_azure_backend.errors import TargetError
from mlflow_azure_backend.files import FAULT_VARIABLE, fault_point, is_locked, unusable
from mlflow_azure_backend.job import RUN_VARIABLE, JobHandle, JobRequest
from mlflow_azure_backend.journal import RunFolder, RunRecord
from mlflow_azure_backend.status import STATUS_OF_REASON, JobState, JobStatus, TerminationReason

GRACE_SECONDS: Final = 10.0
"""Between TERM and KILL."""

_CHUNK: Final = 256 * 1024
_POLL_SECONDS: Final = 0.05


@dataclass
class _Link:
    """What this client holds of a job that it started itself."""

    supervisor: subprocess.Popen[bytes]
    doorbell: int
    leash: int | None
    unread: bytearray = field(default_factory=bytearray)
    undiskable: bytearray = field(default_factory=bytearray)
    """What the job wrote after the disk was full; the log file ends where it begins."""
    has_started: bool = False
    """The command runs, or has run."""
    rung_off: bool = False
    """The supervisor has closed its end."""
    guard: threading.Condition = field(default_factory=threading.Condition)
    """Held for what follows, and notified when the thread that listens has stopped."""
    is_listened_to: bool = False
    is_closed: bool = False
    news: int = 0
    """How often somebody has stopped listening."""
    known: threading.local = field(default_factory=threading.local)
    """``news`` when this thread last returned from ``wait``."""

    def wait(self, timeout: float) -> None:
        """Wait for news, at most ``timeout`` seconds; one thread listens at a time, for all that wait."""
        with self.guard:
            is_told = getattr(self.known, "news", -1) == self.news
            listens = is_told and not self.is_listened_to and not self.is_closed
            if listens:
                self.is_listened_to = True
            elif is_told and self.is_listened_to:
                self.guard.wait(timeout)
        if listens:
            try:
                if select.select([self.doorbell], [], [], timeout)[0]:
                    _listen(self)
            finally:
                self._stop_listening()
        self.known.news = self.news

    def ask(self, words: bytes) -> None:
        """Pull the leash."""
        with self.guard:
            if self.leash is not None and not self.is_closed:
                with contextlib.suppress(BrokenPipeError):
                    os.write(self.leash, words)

    def close(self) -> None:
        """Let go; an attached job ends with it. The doorbell is closed by who listens to it, if somebody does."""
        with self.guard:
            self.is_closed = True
            if self.leash is not None:
                os.close(self.leash)
            if not self.is_listened_to:
                os.close(self.doorbell)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.supervisor.wait(timeout=1)

    def _stop_listening(self) -> None:
        with self.guard:
            self.is_listened_to = False
            self.news += 1
            if self.is_closed:
                os.close(self.doorbell)
            self.guard.notify_all()


class SupervisedTarget(ComputeTarget):
    """A target whose jobs are process trees of this machine, each owned by a supervisor that outlives us if it must."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}
        self._links_lock = threading.Lock()

    @abstractmethod
    def _clean_up(self, run: RunFolder, record: RunRecord) -> None:
        """End what a job left running whose supervisor was killed."""

    def handle_for(self, run: RunFolder, run_id: str) -> JobHandle:
        """A supervised job is found by its folder in the journal."""
        return JobHandle(self.name, run_id, {"folder": str(run.paths.folder)})

    def _folder(self, handle: JobHandle) -> RunFolder:
        folder = Path(handle.details["folder"])
        return RunFolder(folder.parent.parent, folder.name)

    def _supervise(
        self,
        run: RunFolder,
        record: RunRecord,
        order: dict[str, object],
        *,
        attached: bool,
        held: tuple[int, ...] = (),
    ) -> None:
        """Start the supervisor, which starts the command; return when the command runs or could not be started.

        Args:
            run: The job's folder.
            record: What is recorded of it.
            order: What the supervisor is to do.
            attached: Whether the job ends with this client.
            held: Descriptors that the supervisor keeps open while the job lives.
        """
        try:
            link = _start_supervisor(run, order, attached=attached, held=held)
        except TargetError as error:
            self._lose(run, str(error))  # before whoever undoes this asks for its end: it failed, nobody cancelled it
            raise
        with self._links_lock:
            self._links[str(record.run_id)] = link

    def state(self, handle: JobHandle) -> JobState:
        """The outcome that the supervisor wrote; a supervisor that is gone without one has lost the job."""
        run = self._folder(handle)
        outcome = run.outcome()
        if outcome is not None:
            return outcome
        if is_locked(_supervisor_lock(run)):
            asked = (run.paths.folder / "cancel").exists()
            return JobState(JobStatus.CANCEL_REQUESTED if asked else JobStatus.RUNNING)
        return run.outcome() or self._lose(run)

    def read_log(self, handle: JobHandle, offset: int) -> bytes:
        """From the log file; from the supervisor itself once the disk was full."""
        link = self._links.get(handle.name)
        try:
            with self._folder(handle).paths.log.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                if offset < size or link is None:
                    return os.pread(stream.fileno(), _CHUNK, offset)
        except FileNotFoundError:
            size = 0
        except OSError as error:
            raise unusable(self._folder(handle).paths.log, error) from error
        return b"" if link is None else bytes(link.undiskable[offset - size : offset - size + _CHUNK])

    def wait_for_change(self, handle: JobHandle, timeout: float) -> None:
        """Wait for the supervisor's doorbell; a job that another process started is looked at now and then."""
        link = self._links.get(handle.name)
        if link is None or link.rung_off:
            time.sleep(min(timeout, _POLL_SECONDS))
        else:
            link.wait(timeout)

    def cancel(self, handle: JobHandle, *, at_once: bool = False) -> None:
        """Ask the supervisor for the end of the whole process tree."""
        run = self._folder(handle)
        if run.outcome() is not None:
            return
        link = self._links.get(handle.name)
        if link is not None and link.leash is not None:
            link.ask(b"CC" if at_once else b"C")
            return
        (run.paths.folder / "cancel").touch(mode=0o600)
        supervisor = run.read_json(run.paths.folder / "supervisor.json")
        if supervisor is not None and is_locked(_supervisor_lock(run)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(supervisor["pid"], signal.SIGTERM)

    def release(self, handle: JobHandle) -> None:
        """Close the doorbell and reap the supervisor, which ends once the run's end is recorded."""
        with self._links_lock:
            link = self._links.pop(handle.name, None)
        if link is not None:
            link.close()

    def _lose(self, run: RunFolder, start_error: str | None = None) -> JobState:
        """Write down that nobody saw the job's end, and end what it left running.

        Args:
            run: The job's folder.
            start_error: Why its supervisor could not start; None when that is not known.
        """
        record = run.record()
        if record is not None and record.run_id is not None:
            self._clean_up(run, record)
        if (run.paths.folder / "supervisor.json").exists():
            reason, message = TerminationReason.LOST, "its supervisor was killed, or this machine went down"
        elif start_error is not None:
            reason, message = TerminationReason.START_FAILED, start_error
        elif (run.paths.folder / "cancel").exists():
            reason, message = TerminationReason.CANCELED, "cancelled before it began"
        else:
            reason, message = TerminationReason.START_FAILED, "its client was stopped before the command began"
        run.write_json(
            run.paths.outcome, {"version": 1, "reason": reason.value, "ended_at": time.time(), "message": message}
        )
        return JobState(STATUS_OF_REASON[reason], reason, message=message)


def recorded(run: RunFolder) -> RunRecord:
    """What is on disk of a job before it is submitted."""
    record = run.record()
    if record is None or record.run_id is None or record.work_folder is None:
        raise ValueError("a job is recorded before it is submitted")
    return record


def job_environment(request: JobRequest, variables: Mapping[str, str], record: RunRecord) -> dict[str, str]:
    """What the target's environment needs, the run to join, then what the user asked for."""
    joined = {
        "MLFLOW_RUN_ID": str(record.run_id),
        RUN_VARIABLE: str(record.run_id),
        "MLFLOW_TRACKING_URI": record.tracking.uri,
        "MLFLOW_EXPERIMENT_ID": str(record.tracking.experiment_id),
    }
    unbuffered = {"PYTHONUNBUFFERED": os.environ.get("PYTHONUNBUFFERED", "1")}
    secrets = resolve_secrets(request.config, os.environ)
    return {**variables, **joined, **unbuffered, **request.config.environment_variables, **secrets}


def inherited() -> dict[str, str]:
    """This client's own environment, as it is when nobody talks to a tracking store."""
    from mlflow_azure_backend.tracking_store import inherited_environment  # MLflow is loaded by whoever submits

    return {name: value for name, value in inherited_environment().items() if name != FAULT_VARIABLE}


def own_environment(run: RunFolder) -> dict[str, str]:
    """What the recorder needs when the supervisor starts it: this client's own environment and journal."""
    return {**inherited(), "MLFLOW_AZURE_HOME": str(run.paths.folder.parent.parent)}


def _start_supervisor(run: RunFolder, order: dict[str, object], *, attached: bool, held: tuple[int, ...]) -> _Link:
    from mlflow_azure_backend import supervisor

    doorbell, doorbell_far = os.pipe()
    leash_far, leash = os.pipe() if attached else (None, None)
    far_ends = [end for end in (doorbell_far, leash_far) if end is not None]
    order |= {"notify_fd": doorbell_far, "leash_fd": leash_far, "held_fds": held}
    diary = os.open(run.paths.folder / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", compiled_script(supervisor), str(run.paths.folder)],
            stdin=subprocess.PIPE,
            stdout=diary,
            stderr=diary,
            pass_fds=(*far_ends, *held),
            start_new_session=True,  # the terminal's Ctrl-C is ours, also before the supervisor can say so
        )
    except OSError as error:
        for end in (doorbell, leash):
            if end is not None:
                os.close(end)
        raise TargetError(f"the supervisor could not be started: {error}") from error
    finally:
        for end in (*far_ends, diary):
            os.close(end)
    link = _Link(process, doorbell, leash)
    try:
        fault_point("local.before_order")
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(json.dumps(order).encode() + b"\n")
        while not link.has_started and not link.rung_off:
            _listen(link)
        fault_point("local.after_start")
    except BaseException:
        (run.paths.folder / "cancel").touch(mode=0o600)  # it finds this before it starts anything
        process.terminate()  # and hears this after that
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        while not link.rung_off:
            _listen(link)
        link.close()
        raise
    if not link.has_started and run.outcome() is None:
        link.close()
        reason = (run.paths.folder / "supervisor.log").read_text(errors="replace").strip() or "it was killed"
        raise TargetError(f"the supervisor could not start: {reason}", next_step="try again")
    return link


@cache
def compiled_script(module: ModuleType) -> str:
    """A file that is run by path, as Python compiles it on import: a script would be compiled at each start (5 ms).

    Where Python must not write such files, one that is there may be of another version.
    """
    compiled = None if sys.dont_write_bytecode or module.__spec__ is None else module.__spec__.cached
    return compiled if compiled is not None and Path(compiled).exists() else str(module.__file__)


def _listen(link: _Link) -> None:
    """Read the doorbell until what is there has been understood; blocks when nothing is there.

    The words are the supervisor's; its head explains them.
    """
    heard = os.read(link.doorbell, _CHUNK)
    link.unread += heard
    link.rung_off = link.rung_off or not heard
    while link.unread:
        if link.unread[:1] != b"!":
            link.has_started = link.has_started or link.unread[:1] == b"S"
            del link.unread[:1]
            continue
        length = int.from_bytes(link.unread[1:5], "big")
        if len(link.unread) < 5 + length:
            return
        link.undiskable += link.unread[5 : 5 + length]
        del link.unread[: 5 + length]


def _supervisor_lock(run: RunFolder) -> Path:
    return run.paths.folder / "supervisor.lock"
