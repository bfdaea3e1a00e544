"""The job's command as a process group of its own: its output untouched, its end ours to say, nothing of it left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

_FORWARDED = (signal.SIGTERM, signal.SIGINT)
_LINGER = 2.0
"""Seconds that descendants have to end by themselves after the command."""
_POLL = 0.05
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class Stopped(BaseException):
    """We were asked to end before the command ran.

    Args:
        signal: By which.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        exit_code: Its own, 128 + the signal's number when one ended it, as shells have it.
        signal: The signal that ended it; None: none.
        stopped_by: The first signal that we forwarded to it; None: none.
    """

    exit_code: int
    signal: int | None
    stopped_by: int | None


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let the signals that end a job raise ``Stopped`` in the block; those that are ignored stay so."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in _FORWARDED}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Command:
    """One command.

    Args:
        argv: What to run.
        environ: All of its environment.
        grace: Seconds between TERM, or the first signal that we forward, and KILL.

    Attributes:
        asked: The first signal that asked us to end, also after the command has; None: none did.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], grace: float) -> None:
        self._argv = argv
        self._environ = environ
        self._grace = grace
        self._process: subprocess.Popen[bytes] | None = None
        self.asked: int | None = None

    def run(self, spared: Sequence[int] = ()) -> Ended:
        """Run it to its end and to that of all that it started.

        Args:
            spared: Children of ours that are none of the command's.

        Raises:
            OSError: It cannot be started.
        """
        _adopt_orphans()
        for number in _FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._forward)
        signal.signal(signal.SIGALRM, self._kill)
        self._process = subprocess.Popen(self._argv, env=dict(self._environ), start_new_session=True)
        if self.asked is not None:
            self._forward(self.asked, None)
        status = self._wait()
        self._end_others(spared)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if os.WIFSIGNALED(status):
            ended_by = os.WTERMSIG(status)
            return Ended(128 + ended_by, ended_by, self.asked)
        return Ended(os.WEXITSTATUS(status), None, self.asked)

    def _wait(self) -> int:
        """The command's wait status; orphans that end meanwhile are reaped."""
        process = self._started()
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == process.pid:
                process.returncode = 0  # it is reaped: subprocess need not look
                return status

    def _end_others(self, spared: Sequence[int]) -> None:
        """Give what the command left behind time to end by itself, then TERM, then KILL."""
        for patience, number in ((_LINGER, signal.SIGTERM), (self._grace, signal.SIGKILL), (_LINGER, None)):
            ends = time.monotonic() + patience
            while time.monotonic() < ends:
                _reap()
                if not self._left(spared):
                    return
                time.sleep(_POLL)
            if number is not None:
                self._send(number)
                for pid in self._left(spared):
                    with contextlib.suppress(OSError):
                        os.kill(pid, number)

    def _left(self, spared: Sequence[int]) -> list[int]:
        """Children that are left: whatever the command started is handed to us when its parent ends."""
        try:
            with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as told:  # noqa: PTH123
                return [int(pid) for pid in told.read().split() if int(pid) not in spared]
        except OSError:
            return []

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if self.asked is None:
            signal.setitimer(signal.ITIMER_REAL, self._grace)
        self.asked = self.asked or number
        self._send(number)

    def _kill(self, _number: int, _frame: FrameType | None) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):  # the group is gone
                os.killpg(self._process.pid, number)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the command was not started")
        return self._process


def _adopt_orphans() -> None:
    """Be handed what the command leaves behind; without that it is out of our reach."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] > 0:
            pass
