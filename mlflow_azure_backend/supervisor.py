"""Own one process tree: its log, its end, and the record of its end.

Run by path, ``python -I -S supervisor.py RUN_FOLDER``, by a client that may die at any moment. It imports nothing of
ours, and little else: it must start in about 20 ms and live in 12 MB. It knows a job only as an order, one line of JSON
on its standard input (so that no secret is on a command line or on disk; see ``Order``), and talks through:

::

    RUN_FOLDER/             0700, made by the client; this process works in it
      supervisor.lock       locked while the supervisor lives, whatever its process id
      supervisor.json       who it is: pid, start_time, boot_id, started_at, child_pid
      cancel                made by anybody, then SIGTERM to the pid: end the tree
      std_log.txt           what the tree wrote, byte for byte, before anybody is told of it
      outcome.json          how it ended, written once, when the whole tree is gone
      *.reserve             room for the two .json files, so that a disk that fills up can still take them
      lease, recorded.json  locked by whoever will record the run's end; there when that is done
      recorder.log          what ``on_end`` printed
    leash, client to us     ``C``: cancel; a second one: kill at once; end of file: the client is dead
    doorbell, us to client  ``S``: the command runs; ``.``: the log has grown; ``!``, 4 bytes of length and data: what
                            a full disk did not take; ``E``: the outcome is on disk. ``.`` and ``E`` are left out when
                            the pipe is full; its end of file says what ``E`` says

Exit code 0: the outcome is on disk. 3: it is not (with one line on standard error when nothing had been started).

On Linux every descendant is found, in sessions of its own too, for orphans are handed to us
(PR_SET_CHILD_SUBREAPER); elsewhere the command's process group is. When this process is killed, the kernel kills the
command (PR_SET_PDEATHSIG; Linux only, and not a set-user-ID program); what that had started is then out of our reach.
"""

# pathlib and contextlib would cost more start-up time than all the rest of this file:
# ruff: noqa: PTH104, PTH110, PTH118, PTH123, PTH208, SIM105
from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn, TypedDict

    class Order(TypedDict):
        """What to run. Text stands for bytes: UTF-8, other bytes by ``surrogateescape``.

        Attributes:
            argv: The command; found by the PATH of ``env`` when its name has no slash.
            cwd: Where it runs.
            env: All of its environment.
            grace: Seconds between TERM and KILL.
            timeout: Seconds that it may run; None for no limit.
            leash_fd: Inherited descriptor of the leash; None: the job outlives the client.
            notify_fd: Inherited descriptor of the doorbell; None: nobody listens.
            held_fds: Inherited descriptors that stay open while the job lives, such as a lock on its environment.
            on_end: The command that records the run's end when no client does; None: nobody does it from here.
            on_end_env: All of its environment.
        """

        argv: list[str]
        cwd: str
        env: dict[str, str]
        grace: float
        timeout: float | None
        leash_fd: int | None
        notify_fd: int | None
        held_fds: list[int]
        on_end: list[str] | None
        on_end_env: dict[str, str]


LINGER = 2.0
"""Seconds that descendants have to end by themselves after the command."""
KILL_PATIENCE = 3.0
"""Seconds for which we kill; what survives that (stuck in the kernel, or another user's) is reported."""
DRAIN_PATIENCE = 2.0
"""Seconds that a client which takes no bytes of a full disk's log keeps us, once the tree is gone."""
BATCH = 0.0002
"""Seconds to wait when output comes faster than that."""
CHUNK = 256 * 1024
"""Bytes read at a time."""
PIPE_SIZE = 1024 * 1024
"""Bytes that the tree may be ahead of us; the largest pipe that Linux gives to everybody."""
RESERVE = 8192
"""Bytes that ``supervisor.json`` and ``outcome.json`` may each have."""
MESSAGE = 500
"""Characters of the outcome's message at most; each may need 12 of those bytes."""

_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_RUNNING, _LINGERING, _TERMINATING = range(3)


class Doorbell:
    """Tells the client, if there is one, without ever waiting for it."""

    def __init__(self, descriptor: int | None) -> None:
        self.descriptor = descriptor
        self.pending = bytearray()
        self.lost = 0
        if descriptor is not None:
            os.set_inheritable(descriptor, False)
            os.set_blocking(descriptor, False)

    def ring(self) -> None:
        """The log has grown. A client that has not heard the rings before this one does not need it."""
        if self.descriptor is not None and not self.pending:
            self._write(b".")

    def say(self, words: bytes) -> None:
        """Queue ``words`` and pass on what the client takes now."""
        if self.descriptor is not None:
            self.pending += words
            self.flush()

    def forward(self, data: bytes) -> None:
        """Pass on log bytes that the disk does not take; without a client they are lost, and counted."""
        if self.descriptor is None:
            self.lost += len(data)
        else:
            self.say(b"!" + len(data).to_bytes(4, "big") + data)

    def flush(self) -> bool:
        """Pass on what waits; True when anything moved."""
        sent = self._write(self.pending) if self.pending else 0
        del self.pending[:sent]
        return sent > 0

    def close(self) -> None:
        """Hang up; what still waits is lost."""
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.descriptor = None
        self.lost += len(self.pending)
        self.pending.clear()

    def _write(self, words: bytes | bytearray) -> int:
        if self.descriptor is None:
            return 0
        try:
            return os.write(self.descriptor, words)
        except BlockingIOError:
            return 0
        except OSError:  # EPIPE: the client is gone
            self.close()
            return 0


class Log:
    """``std_log.txt``. Once the disk refuses a byte nothing more is written, so that what is there has no holes."""

    def __init__(self) -> None:
        self._descriptor = _create("std_log.txt", os.O_APPEND)
        self.size = 0
        self.error: OSError | None = None

    def append(self, data: memoryview) -> int:
        """Write ``data``; the number of bytes that the disk took."""
        done = 0
        while self.error is None and done < len(data):
            try:
                done += os.write(self._descriptor, data[done:])
            except OSError as error:
                self.error = error
        self.size += done
        return done


class Tree:
    """The command and all that descends from it."""

    def __init__(self) -> None:
        self.child: int | None = None
        self.status: int | None = None
        self.signalled: set[int] = set()
        self._childless = True

    def start(self, order: Order, output: int, set_death_signal: Callable[[], None]) -> OSError | None:
        """Start the command with ``output`` as its standard output and error; the error that kept it from running."""
        report, report_end = os.pipe()
        try:
            self.child = os.fork()
        except OSError as error:
            return error
        if self.child == 0:
            _become_command(order, output, report_end, set_death_signal)
        self._childless = False
        os.close(report_end)
        with open(report, "rb") as stream:
            failure = stream.read()
        if not failure:
            return None
        os.waitpid(self.child, 0)
        self.child, self._childless = None, True
        number, _, text = failure.decode("utf-8", "replace").partition(" ")
        return OSError(int(number), text)

    def is_gone(self) -> bool:
        """Reap what has ended; True when nothing is left."""
        while not self._childless:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                break
            if pid == 0:
                return False
            if pid == self.child:
                self.status = status
        # A subreaper without children has no descendants. Elsewhere orphans are not ours, but their group has a name.
        return _LINUX or self.child is None or not _try(os.killpg, self.child, 0)

    def terminate(self) -> None:
        """Ask every process to end, once each, stopped ones too."""
        self._signal(signal.SIGTERM, signal.SIGCONT)

    def kill(self) -> None:
        """Kill until nothing is left, or for ``KILL_PATIENCE`` seconds."""
        deadline = time.monotonic() + KILL_PATIENCE
        while not self.is_gone() and time.monotonic() < deadline:
            self._signal(signal.SIGKILL)
            time.sleep(0.002)

    def _signal(self, *numbers: int) -> None:
        found = _descendants()
        for pid, _, state in found:
            if state != "Z":
                self.signalled.add(pid)
            for number in numbers:
                _try(os.kill, pid, number)
        # A group dies at once, where a process that forks could outrun a kill of one after the other. No group reaches
        # beyond the tree, for the command leads a session. TERM is not sent so: it would come twice.
        groups = {group for _, group, _ in found if signal.SIGKILL in numbers}
        if not found and self.child is not None and (self.status is None or not _LINUX):
            groups = {self.child}  # without /proc nothing else has a name
        for group in groups:
            for number in numbers:
                _try(os.killpg, group, number)


class Supervisor:
    """Watches one tree from its start to its end."""

    def __init__(self, set_death_signal: Callable[[], None], log: Log, identity: int, outcome: int) -> None:
        self.set_death_signal = set_death_signal
        self.log = log
        self.identity_file = identity
        self.outcome_file = outcome
        self.bell = Doorbell(None)
        self.tree = Tree()
        self.on_end: list[str] | None = None
        self.on_end_env: dict[str, str] = {}
        self.reason: str | None = None
        self.start_error: OSError | None = None
        self.message: str | None = None
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self._started = self._ended = 0.0
        self._stage = _RUNNING
        self._deadline: float | None = None
        self._grace = 0.0
        self._leash: int | None = None
        self._lease: int | None = None
        self._output: int | None = None
        self._cancels = 0
        self._last_read = 0.0
        self._buffer = memoryview(bytearray(CHUNK))
        self._oom_kills = _oom_kills()
        self._wakeup = _catch_signals()

    def run(self, order: Order) -> None:
        """Start the command and stay until its whole tree is gone and its output on disk."""
        self._accept(order)
        _fault("after_lock")
        if os.path.exists("cancel"):
            self.reason, self.message = "canceled", "cancelled before it began"
            return
        self._start(order)
        _fault("after_spawn")
        if self.start_error is None:
            self._watch()
        _fault("before_outcome")

    def abort(self, error: BaseException) -> None:
        """Our own mistake: the tree must not outlive our attention, nor its end go unrecorded."""
        unseen = self.tree.status is None
        self.tree.kill()
        if self.reason is None and unseen:
            self.reason = "start_failed" if self.tree.child is None else "lost"
        self.message = f"the supervisor failed: {type(error).__name__}: {error}"
        try:
            self._drain()
        except Exception as second:
            self.message += f"; the end of the log is missing: {second}"

    def write_outcome(self) -> None:
        """Put ``outcome.json`` on disk.

        Raises:
            OSError: Even that failed.
        """
        _publish(self.outcome_file, "outcome.json", self._outcome())
        _try(os.unlink, "supervisor.json.reserve")  # still there when the command never ran

    def hand_over(self) -> None:
        """Tell the client. When it is gone and nobody has recorded the run's end, become the process that does."""
        for number in (signal.SIGTERM, signal.SIGINT):  # nothing is left that we would have to stay for
            signal.signal(number, signal.SIG_DFL)
        self.bell.say(b"E")
        self.bell.close()
        if self._leash is not None:
            os.close(self._leash)
        if self.on_end is None or self._lease is None:
            return
        fcntl.flock(self._lease, fcntl.LOCK_EX)  # the client holds it while it lives; exec gives it back
        if os.path.exists("recorded.json"):
            return
        output = os.open("recorder.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        _reset_signals()
        _execute(self.on_end, self.on_end_env)

    def _accept(self, order: Order) -> None:
        self.on_end, self.on_end_env = order["on_end"], order["on_end_env"]
        self.bell = Doorbell(order["notify_fd"])
        self._leash = order["leash_fd"]
        for descriptor in (*order["held_fds"], *(() if self._leash is None else (self._leash,))):
            os.set_inheritable(descriptor, False)
        self._grace = order["grace"]
        self._lease = os.open("lease", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def _start(self, order: Order) -> None:
        self._output, output_end = _wide_pipe()
        self.started_at, self._started = time.time(), time.monotonic()
        self.start_error = self.tree.start(order, output_end, self.set_death_signal)
        os.close(output_end)
        if self.start_error is not None:
            self.reason, self.message = "start_failed", _one_line(self.start_error)
            self.started_at = None
            return
        if order["timeout"] is not None:
            self._deadline = self._started + order["timeout"]
        _publish(self.identity_file, "supervisor.json", _identity(self.tree.child, self.started_at))
        self.bell.say(b"S")
        if os.path.exists("cancel"):  # by somebody who could not yet know whom to signal
            self._stop("canceled")

    def _watch(self) -> None:
        while True:
            gone = self.tree.is_gone()
            if self.tree.status is not None and self.ended_at is None:
                self._note_end()
            if gone:
                self._handle(self._wait(0))  # a request that ended all while we were busy waits there to be heard
                break
            if self._deadline is not None and time.monotonic() >= self._deadline:
                if self._stage == _TERMINATING:
                    self.tree.kill()
                    break
                self._stop("timeout")  # or the end of lingering, which is no reason any more
            self._handle(self._wait())
        if not self.tree.is_gone():
            self.message = "some of its processes could not be killed"
        self._drain()

    def _note_end(self) -> None:
        self.ended_at, self._ended = time.time(), time.monotonic()
        _fault("after_child_exit")
        if self._stage == _RUNNING:
            self._stage, self._deadline = _LINGERING, self._ended + LINGER

    def _stop(self, reason: str) -> None:
        """End the tree, because of ``reason`` if the command has not ended by itself.

        When we are in somebody's tree ourselves, its TERM reaches the command and us at once: that is no end by itself.
        """
        status = self.tree.status
        if self.reason is None and (status is None or os.waitstatus_to_exitcode(status) == -signal.SIGTERM):
            self.reason = reason
        if self._stage != _TERMINATING:
            self.tree.terminate()
            self._stage, self._deadline = _TERMINATING, time.monotonic() + self._grace

    def _wait(self, longest: float = 3_600_000.0) -> dict[int, int]:
        """Sleep until something happens, at most ``longest`` milliseconds; the descriptors where it did."""
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        if self._leash is not None:
            poll.register(self._leash, select.POLLIN)
        if self.bell.pending and self.bell.descriptor is not None:  # the client's pace is the tree's pace
            poll.register(self.bell.descriptor, select.POLLOUT)
        elif self._output is not None:
            poll.register(self._output, select.POLLIN)
        wait = longest
        if self._deadline is not None:
            wait = min(wait, max(0.0, self._deadline - time.monotonic()) * 1000 + 1)
        if self._stage != _RUNNING and not _LINUX:
            wait = min(wait, 20)  # nobody tells us when orphans end
        return dict(poll.poll(wait))

    def _handle(self, ready: Mapping[int, int]) -> None:
        if self._wakeup in ready:
            caught = os.read(self._wakeup, 4096)
            self.tree.is_gone()  # first event wins: an end that is there counts before a request that came with it
            if signal.SIGTERM in caught or signal.SIGINT in caught:
                self._stop("canceled")
        if self._leash is not None and self._leash in ready:
            self._read_leash(self._leash)
        self.bell.flush()
        if self._output in ready:
            self._batch()
            self._read_output()

    def _read_leash(self, leash: int) -> None:
        self.tree.is_gone()
        words = os.read(leash, 64)
        if not words:
            os.close(leash)
            self._leash = None
            self._stop("client_died")
            return
        self._cancels += words.count(b"C")
        if self._cancels:
            self._stop("canceled")
        if self._cancels > 1:
            self._deadline = time.monotonic()

    def _batch(self) -> None:
        """A flood of little lines is taken in larger pieces: fewer wake-ups for all three of us."""
        if time.monotonic() - self._last_read < BATCH:
            time.sleep(BATCH)

    def _read_output(self) -> bool:
        """Take what the tree has written, at most ``CHUNK`` bytes; False when there is nothing."""
        if self._output is None:
            return False
        try:
            count = os.readv(self._output, [self._buffer])
        except BlockingIOError:
            return False
        if count == 0:
            os.close(self._output)
            self._output = None
            return False
        if count < CHUNK:
            self._last_read = time.monotonic()
        done = self.log.append(self._buffer[:count])
        if done:
            self.bell.ring()
        if done < count:
            self.bell.forward(bytes(self._buffer[done:count]))
        return True

    def _drain(self) -> None:
        """Take what a dead tree left in the pipe; whoever else may hold its other end cannot keep us."""
        deadline = time.monotonic() + DRAIN_PATIENCE
        while True:
            in_time = time.monotonic() < deadline
            if self.bell.pending and self.bell.descriptor is not None and in_time:
                poll = select.poll()
                poll.register(self.bell.descriptor, select.POLLOUT)
                poll.poll(100)
                moved = self.bell.flush()
            elif self.bell.pending:
                self.bell.close()
                moved = True
            elif in_time and self._read_output():
                moved = False
            else:
                return
            if moved:
                deadline = time.monotonic() + DRAIN_PATIENCE

    def _outcome(self) -> dict[str, object]:
        """What ``outcome.json`` says; times in seconds (since the epoch with ``_at``), sizes in bytes.

        ``reason`` is a value of ``status.TerminationReason``. ``exit_code`` is 128 + n for signal n; None when the
        command never ran, but 127 (not found) or 126 when it could not. ``ended_at`` and ``duration`` are the
        command's, not those of what it left behind. ``max_rss`` is the largest process's. ``oom``: the kernel killed
        somebody in our control group for want of memory meanwhile; None when it keeps no count. ``log_size`` is what
        the disk took; ``log_truncated_at`` says the same when it refused the rest. ``ended_processes`` are those
        beside the command that we sent a signal.
        """
        import resource  # here, for a running job does not need it

        exit_code, signal_number, reason = None, None, self.reason
        if self.start_error is not None:
            exit_code = 127 if isinstance(self.start_error, FileNotFoundError) else 126
        elif self.tree.status is not None:
            exit_code = os.waitstatus_to_exitcode(self.tree.status)
            if exit_code < 0:
                exit_code, signal_number = 128 - exit_code, -exit_code
            if reason is None:
                reason = "succeeded" if exit_code == 0 else "exit_code" if signal_number is None else "signal"
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        return {
            "version": 1,
            "reason": reason,
            "exit_code": exit_code,
            "signal": signal_number,
            "started_at": self.started_at,
            "ended_at": self.ended_at or time.time(),
            "duration": max(0.0, (self._ended or time.monotonic()) - self._started) if self.started_at else 0.0,
            "max_rss": peak * 1024 if _LINUX else peak,
            "oom": self._was_out_of_memory(),
            "log_size": self.log.size,
            "log_truncated_at": None if self.log.error is None else self.log.size,
            "message": self._message(),
            "ended_processes": len(self.tree.signalled - {self.tree.child}),
        }

    def _was_out_of_memory(self) -> bool | None:
        after = _oom_kills()
        return None if after is None or self._oom_kills is None else after > self._oom_kills

    def _message(self) -> str | None:
        parts = [] if self.message is None else [self.message]
        if self.log.error is not None:
            parts.append(f"the log ends at byte {self.log.size}: {self.log.error.strerror}")
            if self.bell.lost:
                parts.append(f"about {self.bell.lost} bytes after it reached nobody")
        return "; ".join(parts)[:MESSAGE] or None


def main(folder: str) -> int:
    """Supervise the order that comes on standard input; the exit code (see the module's head)."""
    _occupy_standard_streams()
    _try(os.setsid)  # the terminal's signals are the client's; fails only if we lead a session already
    try:
        os.chdir(folder)
        lock = _create("supervisor.lock")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        supervisor = Supervisor(_adopt_orphans(), Log(), _reserve("supervisor.json"), _reserve("outcome.json"))
    except OSError as error:
        os.write(2, f"supervisor: {folder!r}: {_one_line(error)}\n".encode())
        return 3
    try:
        order = _read_order()
        _leave_standard_streams()
        supervisor.run(order)
    except BaseException as error:
        supervisor.abort(error)
    try:
        supervisor.write_outcome()
    except OSError:
        return 3
    try:
        _fault("after_outcome")
    finally:
        supervisor.hand_over()
    return 0


def _become_command(order: Order, output: int, report: int, set_death_signal: Callable[[], None]) -> NoReturn:
    """In the fork: become the command, or tell ``report`` why not."""
    try:
        os.setsid()
        set_death_signal()
        _reset_signals()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(_encode(order["cwd"]))
        _execute(order["argv"], order["env"])
    except OSError as error:
        os.write(report, f"{error.errno} {_one_line(error)}".encode())
    except Exception as error:  # a NUL in an argument, an order that is not as it should be
        os.write(report, f"{errno.EINVAL} {error}".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(127)


def _execute(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Become ``argv``; as ``os.execvpe``, which would have to import more, but with names and values as bytes.

    Raises:
        OSError: No such command, or it cannot be executed.
    """
    command = _encode(argv[0])
    environment = {_encode(name): _encode(value) for name, value in env.items()}
    folders = environment.get(b"PATH", os.defpath.encode()).split(b":")
    failure = OSError(errno.ENOENT, os.strerror(errno.ENOENT), command)
    for path in [command] if b"/" in command else [os.path.join(folder, command) for folder in folders]:
        try:
            os.execve(path, [_encode(part) for part in argv], environment)  # noqa: S606 - a shell would reparse it
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                failure = error
    raise failure


def _adopt_orphans() -> Callable[[], None]:
    """Make orphaned descendants ours; what a child calls to be killed when we are."""
    if not _LINUX:
        return lambda: None
    parent = os.getpid()
    import ctypes  # before the fork, for importing is not safe after it

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(127)

    return die_with_parent


def _descendants() -> list[tuple[int, int, str]]:
    """Process id, group and state of all that descend from us; nothing where there is no ``/proc``."""
    children: dict[int, list[tuple[int, int, str]]] = {}
    for name in os.listdir("/proc") if os.path.exists("/proc/self/stat") else ():
        if name.isdigit() and (stat := _read(f"/proc/{name}/stat")) is not None:
            state, parent, group = stat.rpartition(")")[2].split()[:3]  # proc(5): the name may hold anything, ) too
            children.setdefault(int(parent), []).append((int(name), int(group), state))
    found: list[tuple[int, int, str]] = []
    parents = [os.getpid()]
    while parents:
        below = children.pop(parents.pop(), [])
        found += below
        parents += [pid for pid, _, _ in below]
    return found


def _oom_kills() -> int | None:
    """How often the kernel has killed in our control group for want of memory; None when it does not say."""
    for line in (_read("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            events = f"/sys/fs/cgroup{path}/memory.events"
        elif "memory" in controllers.split(","):  # cgroup version 1
            events = f"/sys/fs/cgroup/memory{path}/memory.oom_control"
        else:
            continue
        for event in (_read(events) or "").splitlines():
            if event.startswith("oom_kill "):
                return int(event.split()[1])
    return None


def _catch_signals() -> int:
    """Turn SIGTERM, SIGINT and SIGCHLD into bytes (their numbers) on the descriptor returned."""
    wakeup, wakeup_end = os.pipe()
    os.set_blocking(wakeup, False)
    os.set_blocking(wakeup_end, False)
    signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return wakeup


def _reset_signals() -> None:
    """As in a process that nobody prepared: Python ignores SIGPIPE, and our client may have to ignore SIGINT."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        _try(signal.signal, number, signal.SIG_DFL)


def _occupy_standard_streams() -> None:
    """A client whose streams were closed must not make our files take their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)


def _leave_standard_streams() -> None:
    """Whoever reads the client's output must not have to wait for us."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)


def _read_order() -> Order:
    text = bytearray()
    while not text.endswith(b"\n") and (piece := os.read(0, 65536)):
        text += piece
    order: Order = json.loads(text)
    return order


def _wide_pipe() -> tuple[int, int]:
    output, output_end = os.pipe()
    os.set_blocking(output, False)
    if sys.platform == "linux":
        try:
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:  # the user's pipes hold all that they may: the usual size does
            pass
    return output, output_end


def _create(name: str, flags: int = 0) -> int:
    """A new file of ours; one that is there means that the folder has had its job."""
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600)


def _reserve(name: str) -> int:
    """Room for the file ``name``, to be filled by ``_publish``."""
    descriptor = _create(f"{name}.reserve")
    try:
        if os.write(descriptor, bytes(RESERVE)) < RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({RESERVE} bytes)", name) from error
    return descriptor


def _publish(descriptor: int, name: str, content: Mapping[str, object]) -> None:
    """Write ``content`` into the room reserved for ``name``; it appears whole, and survives a power cut."""
    data = json.dumps(content).encode()
    os.pwrite(descriptor, data, 0)
    os.ftruncate(descriptor, len(data))
    os.fsync(descriptor)
    os.close(descriptor)
    os.rename(f"{name}.reserve", name)
    folder = os.open(".", os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _identity(child: int | None, started_at: float) -> dict[str, object]:
    """Say who we are, so that a process id that has been reused is not taken for ours."""
    stat = _read("/proc/self/stat")
    boot_id = _read("/proc/sys/kernel/random/boot_id")
    return {
        "version": 1,
        "pid": os.getpid(),
        "start_time": None if stat is None else int(stat.rpartition(")")[2].split()[19]),  # proc(5): field 22
        "boot_id": None if boot_id is None else boot_id.strip(),
        "started_at": started_at,
        "child_pid": child,
    }


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return None


def _try(call: Callable[..., object], *arguments: object) -> bool:
    """False when the system refuses: the process has ended meanwhile, or is not ours to signal."""
    try:
        call(*arguments)
    except OSError:
        return False
    return True


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _one_line(error: OSError) -> str:
    text = str(error.strerror) if error.filename is None else f"{error.strerror}: {os.fsdecode(error.filename)}"
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


def _fault(point: str) -> None:
    """Die or fail here if ``$MLFLOW_AZURE_FAULT`` is ``supervisor.<point>:kill`` or ``:raise``: how tests break us."""
    ordered = os.environ.get("MLFLOW_AZURE_FAULT")
    if ordered == f"supervisor.{point}:kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif ordered == f"supervisor.{point}:raise":
        raise RuntimeError(f"fault ordered at {point}")


if __name__ == "__main__":
    os._exit(main(sys.argv[1]))  # the client waits for our end, and taking Python down would take it some 3 ms longer
