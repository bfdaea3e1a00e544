"""The supervisor, run for real: real processes, real signals, a real full disk."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_azure_backend.status import TerminationReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUPERVISOR = Path(__file__).parents[1] / "mlflow_azure_backend" / "supervisor.py"
SUPERVISED = [sys.executable, "-I", "-S", str(SUPERVISOR)]
PATIENCE = 30.0
GRACE_THAT_IS_NEVER_USED_UP = 300.0
FAULT_POINTS = ("after_lock", "after_spawn", "after_child_exit", "before_outcome", "after_outcome")


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-u", "-c", code, *arguments]


def text_of(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "surrogateescape")


class Client:
    """The least that a client does: start the supervisor, hold the leash, listen to the doorbell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.leash = -1
        self.bell = -1
        self.sounds = bytearray()
        self.forwarded = bytearray()
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        argv: list[str],
        *,
        prefix: tuple[str, ...] = (),
        fault: str | None = None,
        leash: bool = True,
        bell: bool = True,
        raw_order: bytes | None = None,
        **order: Any,
    ) -> Client:
        """Send the order, and stay connected."""
        descriptors = []
        leash_fd = notify_fd = None
        if leash:
            leash_fd, self.leash = os.pipe()
            descriptors.append(leash_fd)
        if bell:
            self.bell, notify_fd = os.pipe()
            descriptors.append(notify_fd)
        content = {
            "argv": argv,
            "cwd": text_of(self.folder),
            "env": {"PATH": os.defpath},
            "grace": GRACE_THAT_IS_NEVER_USED_UP,
            "timeout": None,
            "leash_fd": leash_fd,
            "held_fds": [],
            "notify_fd": notify_fd,
            "on_end": None,
            "on_end_env": {},
            **order,
        }
        self.process = subprocess.Popen(
            [*prefix, *SUPERVISED, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            env={} if fault is None else {"MLFLOW_AZURE_FAULT": f"supervisor.{fault}"},
        )
        for descriptor in descriptors:
            os.close(descriptor)
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stream:
            stream.write(json.dumps(content).encode() + b"\n" if raw_order is None else raw_order)
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def hear(self, sound: bytes) -> None:
        """Listen until ``sound``; fails if the doorbell is hung up before."""
        while sound not in self.sounds:
            assert self._listen(), f"no {sound!r} in {bytes(self.sounds)!r}"
        del self.sounds[: self.sounds.index(sound) + 1]

    def listen_to_the_end(self) -> None:
        while self._listen():
            pass

    def _listen(self) -> bool:
        assert select.select([self.bell], [], [], PATIENCE)[0], "the doorbell is silent"
        sound = os.read(self.bell, 1)
        if sound == b"!":
            self.forwarded += self._read_exactly(int.from_bytes(self._read_exactly(4), "big"))
        self.sounds += sound
        return bool(sound)

    def _read_exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count and (piece := os.read(self.bell, count - len(data))):
            data += piece
        return data

    def say(self, word: bytes) -> None:
        os.write(self.leash, word)

    def let_go(self) -> None:
        """What the kernel does when the client dies."""
        os.close(self.leash)
        self.leash = -1

    def finish(self) -> dict[str, Any]:
        """Wait for the supervisor's end; the outcome."""
        assert self.exit_code() == 0
        return self.outcome

    def exit_code(self) -> int:
        assert self.process is not None
        return self.process.wait(PATIENCE)

    @property
    def complaint(self) -> str:
        assert self.process is not None
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    @property
    def outcome(self) -> dict[str, Any]:
        outcome: dict[str, Any] = json.loads((self.folder / "outcome.json").read_text())
        TerminationReason(outcome["reason"])
        return outcome

    @property
    def identity(self) -> dict[str, Any]:
        identity: dict[str, Any] = json.loads((self.folder / "supervisor.json").read_text())
        return identity

    @property
    def log(self) -> bytes:
        return (self.folder / "std_log.txt").read_bytes()

    def is_locked(self) -> bool:
        with (self.folder / "supervisor.lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def close(self) -> None:
        for descriptor in (self.leash, self.bell):
            if descriptor >= 0:
                os.close(descriptor)
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a 'run'\nfolder ü"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    client = Client(folder)
    yield client
    client.close()


class Witness:
    """A FIFO that descendants open: what they say arrives here, and its end of file means that all of them are gone."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def hears(self, count: int) -> bytes:
        """Wait for ``count`` bytes."""
        heard = b""
        deadline = time.monotonic() + PATIENCE
        while len(heard) < count and time.monotonic() < deadline:
            select.select([self.descriptor], [], [], 0.05)
            with contextlib.suppress(BlockingIOError):
                heard += os.read(self.descriptor, count - len(heard))
        return heard

    def all_are_gone(self) -> bool:
        """True when nobody holds the other end at this moment."""
        try:
            while os.read(self.descriptor, 65536):
                pass
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    witness = Witness(tmp_path / "witness")
    yield witness
    os.close(witness.descriptor)


def until(fact: Callable[[], bool]) -> None:
    """For the few facts that no descriptor tells."""
    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# --- how it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(0, "succeeded"), (3, "exit_code"), (255, "exit_code")])
def test_exit_code_is_the_outcome(client: Client, code: int, reason: str) -> None:
    before = time.time()
    outcome = client.start(["sh", "-c", f"echo hello; exit {code}"]).finish()
    assert (outcome["version"], outcome["reason"], outcome["exit_code"], outcome["signal"]) == (1, reason, code, None)
    assert before <= outcome["started_at"] <= outcome["ended_at"] <= time.time()
    assert 0 < outcome["duration"] < PATIENCE
    assert outcome["max_rss"] > 100_000
    assert (outcome["log_size"], outcome["log_truncated_at"]) == (6, None)
    assert (outcome["message"], outcome["ended_processes"]) == (None, 0)
    assert client.log == b"hello\n"
    client.listen_to_the_end()
    assert client.sounds[:1] == b"S"
    assert client.sounds[-1:] == b"E"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGPIPE])
def test_signal_is_the_outcome(client: Client, number: signal.Signals) -> None:
    outcome = client.start(["sh", "-c", f"ulimit -c 0; kill -{number.value} $$"]).finish()
    assert (outcome["reason"], outcome["exit_code"], outcome["signal"]) == ("signal", 128 + number, number)


def test_files_are_private_and_nothing_else_is_left(client: Client) -> None:
    client.start(["true"], on_end=["true"]).finish()
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in client.folder.iterdir()}
    names = {"supervisor.lock", "supervisor.json", "std_log.txt", "outcome.json", "lease", "recorder.log"}
    assert files == dict.fromkeys(names, 0o600)


@pytest.mark.parametrize(
    ("argv", "cwd", "code", "named"),
    [
        (["no such command"], None, 127, "No such file or directory: no such command"),
        (["/no/such/command"], None, 127, "No such file or directory: /no/such/command"),
        (["/usr"], None, 126, "Permission denied: /usr"),
        (["./not a program"], None, 126, "Exec format error: ./not a program"),
        (["true"], "/no/such/folder", 127, "No such file or directory: /no/such/folder"),
        (["true", "x" * 200_000], None, 126, "Argument list too long"),
        (["true", "nul\0nul"], None, 126, "embedded null byte"),
    ],
)
def test_command_that_cannot_start(client: Client, argv: list[str], cwd: str | None, code: int, named: str) -> None:
    garbage = client.folder / "not a program"
    garbage.write_text("garbage")
    garbage.chmod(0o700)
    outcome = client.start(argv, cwd=cwd or text_of(client.folder)).finish()
    assert (outcome["reason"], outcome["exit_code"], outcome["started_at"]) == ("start_failed", code, None)
    assert named in outcome["message"]
    assert not list(client.folder.glob("*.reserve"))
    client.listen_to_the_end()
    assert client.sounds == b"E"


def test_order_that_is_none(client: Client) -> None:
    outcome = client.start([], raw_order=b'{"argv": ["tr').finish()
    assert outcome["reason"] == "start_failed"
    assert "JSONDecodeError" in outcome["message"]


def test_timeout(client: Client) -> None:
    outcome = client.start(["sleep", "60"], timeout=0.2).finish()
    assert (outcome["reason"], outcome["signal"]) == ("timeout", signal.SIGTERM)
    assert 0.2 <= outcome["duration"] < 15


def test_timeout_of_many_years_is_one(client: Client) -> None:
    assert client.start(["sleep", "0.1"], timeout=1e12).finish()["reason"] == "succeeded"


def test_running_out_of_memory_is_known(client: Client) -> None:
    with memory_limit(64 * 1024 * 1024) as procs:
        prefix = ("/bin/sh", "-c", f'echo $$ > "{procs}"; exec "$@"', "sh")
        outcome = client.start(python("x = bytearray(200_000_000)"), prefix=prefix).finish()
    assert (outcome["reason"], outcome["signal"], outcome["oom"]) == ("signal", signal.SIGKILL, True)


@contextlib.contextmanager
def memory_limit(limit: int) -> Iterator[Path]:
    """A control group of this machine's version with so many bytes; the file to join it by."""
    line = next(
        line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line or "::" in line
    )
    version_1 = "::" not in line
    root = Path("/sys/fs/cgroup/memory" if version_1 else "/sys/fs/cgroup")
    group = root / f"mlflow-azure-test-{os.getpid()}"
    group.mkdir()
    (group / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(limit))
    try:
        yield group / "cgroup.procs"
    finally:
        until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


# --- the log ---------------------------------------------------------------------------------------------------------


def test_both_streams_keep_their_order(client: Client) -> None:
    client.start(python("import os\nfor n in range(2000): os.write(1 + n % 2, b'%d\\n' % n)")).finish()
    assert client.log == b"".join(b"%d\n" % n for n in range(2000))


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 3,
        b"50%\r100%\r\n\x1b[31mred\x1b[0m\x00no newline",
        "\u2028\u2029\x85\x0b\x0c".encode() + "ü".encode()[:1],
        b"",
    ],
)
def test_bytes_are_kept(client: Client, data: bytes) -> None:
    outcome = client.start(python(f"import os; os.write(1, {data!r})")).finish()
    assert client.log == data
    assert outcome["log_size"] == len(data)


def test_utf8_cut_between_two_writes(client: Client, witness: Witness) -> None:
    client.start(
        python(
            "import os, sys\nos.write(1, b'\\xc3'); open(sys.argv[1], 'w').close(); os.write(1, b'\\xbc')", witness.path
        )
    )
    client.finish()
    assert client.log == "ü".encode()


def test_line_of_100_mb_in_flat_memory(client: Client) -> None:
    with held_lease(client.folder):
        client.start(
            python("import os\nfor _ in range(1600): os.write(1, b'0123456789abcdef' * 4096)"), on_end=["true"]
        )
        client.hear(b"E")
        status = Path(f"/proc/{client.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 20_000
    assert client.log == b"0123456789abcdef" * 4096 * 1600


def test_flood_of_lines_while_nobody_listens(client: Client) -> None:
    client.start(python("for n in range(300_000): print('line', n)"))
    outcome = client.finish()
    expected = "".join(f"line {n}\n" for n in range(300_000)).encode()
    assert hashlib.sha256(client.log).digest() == hashlib.sha256(expected).digest()
    assert outcome["log_size"] == len(expected)


def test_log_is_on_disk_when_the_doorbell_rings(client: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    client.start(
        python("import os, sys\nfor n in range(20):\n os.write(1, b'%d\\n' % n)\n open(sys.argv[1]).read()", str(gate))
    )
    for n in range(20):
        client.hear(b".")
        assert client.log.endswith(b"%d\n" % n)
        with gate.open("w"):
            pass
    client.finish()


def test_a_client_that_hangs_up_does_not_matter(client: Client, witness: Witness) -> None:
    client.start(python("import sys\nopen(sys.argv[1], 'w').write('x')\nfor n in range(1000): print(n)", witness.path))
    os.close(client.bell)
    client.bell = -1
    assert client.finish()["reason"] == "succeeded"
    assert client.log.count(b"\n") == 1000


def test_a_command_that_closes_its_streams_goes_on(client: Client, witness: Witness) -> None:
    code = (
        "import os, sys\nos.close(1); os.close(2)\nopen(sys.argv[1], 'w').write('x')\nopen(sys.argv[1], 'w').write('y')"
    )
    client.start(python(code, witness.path))
    assert witness.hears(2) == b"xy"
    assert client.finish()["reason"] == "succeeded"


# --- what the command sees -------------------------------------------------------------------------------------------


def test_environment_is_the_one_that_was_ordered(client: Client) -> None:
    env = {"PATH": "/bin:/usr/bin", "ODD": "\udcff\udc80", "LINES": "a\nb=c", "ÜNI": "ü", "EMPTY": ""}
    client.start(["cat", "/proc/self/environ"], env=env).finish()
    assert client.log == b"PATH=/bin:/usr/bin\0ODD=\xff\x80\0LINES=a\nb=c\0" + "ÜNI=ü\0EMPTY=\0".encode()


def test_arguments_and_folder_with_odd_bytes(client: Client, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd \xff'\n"))
    folder.mkdir()
    client.start(["sh", "-c", "pwd; cat /proc/$$/cmdline", "\udcfe", "*", ""], cwd=text_of(folder)).finish()
    assert client.log == os.fsencode(folder) + b"\nsh\0-c\0pwd; cat /proc/$$/cmdline\0\xfe\0*\0\0"


def test_command_is_found_by_the_path_of_its_environment(client: Client, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho found")
    tool.chmod(0o700)
    client.start(["tool"], env={"PATH": f"/no/such/folder:{tmp_path}"}).finish()
    assert client.log == b"found\n"


def test_signals_are_default_whatever_the_client_had(client: Client) -> None:
    prepare = (
        "import os, signal, sys\n"
        "for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):\n"
        "    signal.signal(n, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1])\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    client.start(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"], prefix=tuple(python(prepare))).finish()
    masks = [int(line.split()[1], 16) for line in client.log.splitlines()]
    # 32 and 33 are the C library's own: whoever started us may have blocked them, and nobody can unblock them.
    assert [mask & ~(0b11 << 31) for mask in masks] == [0, 0]


def test_streams_descriptors_and_session_of_the_command(client: Client) -> None:
    code = (
        "import os\nprint(sorted(os.listdir('/proc/self/fd')), os.readlink('/proc/self/fd/0'))\n"
        "print(os.fstat(1) == os.fstat(2), os.getsid(0) == os.getpid() != os.getppid())\n"
        "print(os.getsid(os.getppid()) == os.getppid())"
    )
    client.start(python(code)).finish()
    assert client.log == b"['0', '1', '2', '3'] /dev/null\nTrue True\nTrue\n"  # 3 is the listing itself


# --- the end of the tree ---------------------------------------------------------------------------------------------

FAMILY = """
import os, signal, sys
def say(): os.write(os.open(sys.argv[1], os.O_WRONLY), b"x")
def stay():
    if len(sys.argv) > 2: signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say()
    while True: signal.pause()
if os.fork() == 0:          # a child in a session of its own
    os.setsid(); stay()
if os.fork() == 0:          # a daemon: double fork, its parents gone, holding the pipe
    os.setsid()
    if os.fork(): os._exit(0)
    if os.fork(): os._exit(0)
    stay()
stay()
"""


def test_death_of_the_client_ends_the_whole_family(client: Client, witness: Witness) -> None:
    client.start(python(FAMILY, witness.path))
    assert witness.hears(3) == b"xxx"
    assert not witness.all_are_gone()
    client.let_go()
    client.hear(b"E")
    assert witness.all_are_gone()
    outcome = client.finish()
    assert (outcome["reason"], outcome["signal"], outcome["ended_processes"]) == ("client_died", signal.SIGTERM, 2)


def test_family_that_ignores_term_is_killed_after_the_grace(client: Client, witness: Witness) -> None:
    client.start(python(FAMILY, witness.path, "stubborn"), grace=0.5)
    assert witness.hears(3) == b"xxx"
    client.say(b"C")
    client.hear(b"E")
    assert witness.all_are_gone()
    outcome = client.finish()
    assert (outcome["reason"], outcome["signal"], outcome["exit_code"]) == ("canceled", signal.SIGKILL, 137)
    assert 0.5 <= outcome["duration"] < 15


def test_second_cancel_kills_at_once(client: Client, witness: Witness) -> None:
    client.start(python(FAMILY, witness.path, "stubborn"))
    assert witness.hears(3) == b"xxx"
    client.say(b"C")
    client.say(b"C")
    outcome = client.finish()
    assert (outcome["reason"], outcome["signal"]) == ("canceled", signal.SIGKILL)
    assert witness.all_are_gone()


def test_kill_9_of_a_real_client(client: Client, witness: Witness) -> None:
    code = "import json, os, subprocess, sys\n" + (
        "leash, _ = os.pipe()\n"
        "order = json.loads(sys.argv[1]); order['leash_fd'] = leash\n"
        "supervisor = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, pass_fds=[leash])\n"
        "supervisor.communicate(json.dumps(order).encode())"
    )
    order = {"argv": python(FAMILY, witness.path), "cwd": "/", "env": {}, "grace": 10.0, "timeout": None}
    order |= {"notify_fd": None, "held_fds": [], "on_end": None, "on_end_env": {}}
    with subprocess.Popen([sys.executable, "-c", code, json.dumps(order), *SUPERVISED, str(client.folder)]) as dying:
        assert witness.hears(3) == b"xxx"
        until((client.folder / "supervisor.json").exists)
        supervisor = os.pidfd_open(client.identity["pid"])
        dying.kill()
    assert select.select([supervisor], [], [], PATIENCE)[0]
    os.close(supervisor)
    assert client.outcome["reason"] == "client_died"
    assert witness.all_are_gone()


def test_stopped_command_is_ended(client: Client) -> None:
    client.start(["sh", "-c", "kill -STOP $$; echo never"])
    client.hear(b"S")
    until(lambda: process_state(client.identity["child_pid"]) == "T")
    client.say(b"C")
    outcome = client.finish()
    assert (outcome["reason"], outcome["signal"], client.log) == ("canceled", signal.SIGTERM, b"")


def test_processes_that_flee_by_forking_are_caught(client: Client, witness: Witness) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "os.write(os.open(sys.argv[1], os.O_WRONLY), b'x')\n"
        "for _ in range(3): os.fork()\n"
        "for n in range(20_000):\n"
        "    if n % 3 == 0: os.setsid() if os.getpid() != os.getsid(0) else None\n"
        "    if os.fork(): os._exit(0)\n"
        "while True: signal.pause()"
    )
    client.start(python(code, witness.path), grace=0.3)
    assert witness.hears(1) == b"x"
    client.say(b"C")
    outcome = client.finish()
    assert witness.all_are_gone()
    assert outcome["message"] is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("with_file", [True, False])
def test_cancel_by_signal(client: Client, number: signal.Signals, with_file: bool) -> None:
    client.start(["sleep", "60"], leash=False)
    client.hear(b"S")
    if with_file:
        (client.folder / "cancel").touch()
    os.kill(client.identity["pid"], number)
    outcome = client.finish()
    assert (outcome["reason"], outcome["exit_code"], outcome["signal"]) == ("canceled", 143, signal.SIGTERM)


def test_cancelled_before_it_began(client: Client) -> None:
    (client.folder / "cancel").touch()
    outcome = client.start(["touch", "ran"]).finish()
    assert (outcome["reason"], outcome["exit_code"], outcome["started_at"]) == ("canceled", None, None)
    assert not (client.folder / "ran").exists()


SLOW_TO_FIND = "/a:" * 40_000 + os.defpath
"""A PATH that makes a time between the fork and supervisor.json."""


def wait_for_fork(client: Client) -> int:
    """The command's process id, as soon as it has one."""
    children = Path(f"/proc/{client.pid}/task/{client.pid}/children")
    until(lambda: children.read_text() != "")
    return int(children.read_text())


def test_cancelled_by_somebody_who_does_not_know_us_yet(client: Client) -> None:
    client.start(["sleep", "60"], env={"PATH": SLOW_TO_FIND}, leash=False)
    wait_for_fork(client)
    (client.folder / "cancel").touch()
    outcome = client.finish()
    assert (outcome["reason"], outcome["signal"]) == ("canceled", signal.SIGTERM)


def test_a_term_for_us_and_our_tree_while_we_are_busy_is_a_cancellation(client: Client) -> None:
    """As the supervisor of a run's child run gets it from the parent run's supervisor."""
    client.start(["sleep", "60"], env={"PATH": SLOW_TO_FIND}, leash=False)
    child = wait_for_fork(client)
    until(lambda: not catches(child, signal.SIGTERM))
    os.kill(client.pid, signal.SIGTERM)
    os.kill(child, signal.SIGTERM)
    outcome = client.finish()
    assert (outcome["reason"], outcome["signal"]) == ("canceled", signal.SIGTERM)


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for the signal; proc(5), ``status``."""
    (caught,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught.split()[1], 16) & 1 << number - 1)


def test_sighup_is_not_ours(client: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    client.start(["sh", "-c", f"cat < '{gate}'"])
    client.hear(b"S")
    os.kill(client.pid, signal.SIGHUP)
    with gate.open("w") as stream:
        stream.write("went on")
    assert client.finish()["reason"] == "succeeded"
    assert client.log == b"went on"


def test_cancelled_command_that_exits_well_was_cancelled(client: Client) -> None:
    client.start(python("import signal, sys\nsignal.signal(15, lambda *_: sys.exit(0))\nprint(1)\nsignal.pause()"))
    client.hear(b".")
    client.say(b"C")
    outcome = client.finish()
    assert (outcome["reason"], outcome["exit_code"], outcome["signal"]) == ("canceled", 0, None)


def test_term_arrives_once(client: Client) -> None:
    code = (
        "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [15])\nos.write(1, b'ready\\n')\n"
        "signal.sigwait([15]); os.write(1, b'term\\n')\n"
        "if signal.sigtimedwait([15], 0.2): os.write(1, b'again\\n')"
    )
    client.start(python(code))
    client.hear(b".")
    client.say(b"C")
    client.finish()
    assert client.log == b"ready\nterm\n"


def test_end_that_came_before_the_cancel_counts(client: Client, witness: Witness) -> None:
    code = "import os, signal, sys\nif os.fork(): os._exit(0)\nos.write(os.open(sys.argv[1], 1), b'x'); signal.pause()"
    client.start(python(code, witness.path))
    child = Path(f"/proc/{wait_for_child(client)}")
    assert witness.hears(1) == b"x"
    until(lambda: not child.exists())
    client.say(b"C")
    outcome = client.finish()
    assert (outcome["reason"], outcome["exit_code"], outcome["ended_processes"]) == ("succeeded", 0, 1)
    assert witness.all_are_gone()


def wait_for_child(client: Client) -> int:
    client.hear(b"S")
    child: int = client.identity["child_pid"]
    return child


def test_descendants_may_end_by_themselves(client: Client) -> None:
    outcome = client.start(["sh", "-c", "(sleep 0.3; echo late) & echo early"]).finish()
    assert (outcome["reason"], outcome["ended_processes"]) == ("succeeded", 0)
    assert client.log == b"early\nlate\n"
    assert outcome["duration"] < 0.3


def test_descendants_that_stay_are_ended(client: Client, witness: Witness) -> None:
    code = "import os, signal, sys\nif os.fork(): os._exit(7)\nos.setsid(); open(sys.argv[1], 'w'); signal.pause()"
    outcome = client.start(python(code, witness.path)).finish()
    assert (outcome["reason"], outcome["exit_code"], outcome["ended_processes"]) == ("exit_code", 7, 1)
    assert witness.all_are_gone()


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Client]:
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(mount)], check=True)
    client = Client(mount)
    yield client
    client.close()
    subprocess.run(["umount", str(mount)], check=True)


SAY_AND_STAY = "os.write(os.open(sys.argv[1], os.O_WRONLY), b'x'); signal.pause()"
FLOOD = python("import os\nfor n in range(30_000): os.write(1, b'%099d\\n' % n)")
FLOODED = b"".join(b"%099d\n" % n for n in range(30_000))


def test_full_disk_the_client_gets_the_rest(small_disk: Client) -> None:
    small_disk.start(FLOOD)
    small_disk.listen_to_the_end()
    outcome = small_disk.finish()
    assert (outcome["reason"], outcome["exit_code"]) == ("succeeded", 0)
    assert 0 < outcome["log_truncated_at"] == outcome["log_size"] == len(small_disk.log) < 65536
    assert small_disk.log + small_disk.forwarded == FLOODED
    assert outcome["message"] == f"the log ends at byte {outcome['log_size']}: No space left on device"


@pytest.mark.parametrize("bell", [True, False])
def test_full_disk_without_a_client(small_disk: Client, bell: bool) -> None:
    small_disk.start(FLOOD, bell=bell)
    if bell:
        small_disk.hear(b"!")
        os.close(small_disk.bell)
        small_disk.bell = -1
    outcome = small_disk.finish()
    assert (outcome["reason"], outcome["exit_code"]) == ("succeeded", 0)
    assert outcome["message"].startswith(f"the log ends at byte {len(small_disk.log)}: No space left on device; about ")
    assert FLOODED.startswith(small_disk.log)
    lost = int(outcome["message"].split(" about ")[1].split()[0])
    assert 0 < lost <= len(FLOODED) - len(small_disk.log)
    assert bell or lost == len(FLOODED) - len(small_disk.log)


def test_full_disk_and_a_client_that_does_not_listen_cannot_keep_us(small_disk: Client, witness: Witness) -> None:
    code = "import os, signal, sys\nfor _ in range(1000): os.write(1, bytes(1000))\n" + SAY_AND_STAY
    small_disk.start(python(code, witness.path))
    assert witness.hears(1) == b"x"
    small_disk.say(b"C")
    outcome = small_disk.finish()
    assert outcome["reason"] == "canceled"
    lost = int(outcome["message"].split(" about ")[1].split()[0])
    assert 1_000_000 - len(small_disk.log) - 70_000 < lost < 1_000_000


def test_disk_that_is_full_before_the_start(small_disk: Client) -> None:
    filler = small_disk.folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass
    small_disk.start(["touch", "ran"])
    assert small_disk.exit_code() == 3
    assert small_disk.complaint.endswith("No space left on device (8192 bytes): supervisor.json\n")
    assert not (small_disk.folder / "ran").exists()


# --- who records the end ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def held_lease(folder: Path) -> Iterator[None]:
    with (folder / "lease").open("wb") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        yield


RECORDER = ["sh", "-c", 'echo "recorder $RUN"; cat; echo oops >&2']


def test_client_that_records_needs_no_recorder(client: Client) -> None:
    with held_lease(client.folder):
        client.start(["true"], on_end=RECORDER)
        client.hear(b"E")
        (client.folder / "recorded.json").write_text("{}")
        assert client.process is not None
        assert client.process.poll() is None
    client.finish()
    assert not (client.folder / "recorder.log").exists()


def test_client_that_dies_before_it_recorded(client: Client) -> None:
    with held_lease(client.folder):
        client.start(["true"], on_end=RECORDER, on_end_env={"RUN": "r1\udcff", "PATH": os.defpath})
        client.hear(b"E")
        assert not (client.folder / "recorder.log").exists()
    client.finish()
    assert (client.folder / "recorder.log").read_bytes() == b"recorder r1\xff\noops\n"


def test_detached_job_records_itself_when_its_client_is_long_gone(client: Client) -> None:
    client.start(["sh", "-c", "echo out"], leash=False, bell=False, on_end=RECORDER, on_end_env={"RUN": "r2"})
    assert client.finish()["reason"] == "succeeded"
    assert (client.folder / "recorder.log").read_bytes() == b"recorder r2\noops\n"


def test_recorder_may_take_lease_and_lock(client: Client) -> None:
    code = "import fcntl\nfor name in ('lease', 'supervisor.lock'): fcntl.flock(open(name, 'rb'), 6)\nprint('free')"
    client.start(["true"], on_end=python(code)).finish()
    assert (client.folder / "recorder.log").read_bytes() == b"free\n"


def test_recorder_that_cannot_start_is_said(client: Client) -> None:
    client.start(["true"], on_end=["/no/such/python"])
    assert client.exit_code() == 1
    assert client.outcome["reason"] == "succeeded"
    assert "/no/such/python" in (client.folder / "recorder.log").read_text()


def test_sigterm_while_waiting_for_the_lease(client: Client) -> None:
    with held_lease(client.folder):
        client.start(["true"], on_end=RECORDER)
        client.hear(b"E")
        client.listen_to_the_end()
        assert client.process is not None
        client.process.terminate()
        assert client.exit_code() == -signal.SIGTERM
    assert not (client.folder / "recorder.log").exists()


# --- the supervisor itself -------------------------------------------------------------------------------------------


def test_identity_and_lock(client: Client) -> None:
    client.start(["sleep", "60"])
    client.hear(b"S")
    identity = client.identity
    fields = Path(f"/proc/{client.pid}/stat").read_text().rpartition(")")[2].split()
    assert (identity["version"], identity["pid"], identity["start_time"]) == (1, client.pid, int(fields[19]))
    assert identity["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert os.getsid(identity["child_pid"]) == identity["child_pid"]
    assert os.getsid(client.pid) == client.pid
    assert client.is_locked()
    client.say(b"C")
    client.finish()
    assert not client.is_locked()


def test_one_job_a_folder(client: Client) -> None:
    client.start(["sleep", "60"])
    client.hear(b"S")
    second = Client(client.folder).start(["touch", "ran"])
    assert second.exit_code() == 3
    assert second.complaint.endswith("File exists: supervisor.lock\n")
    second.close()
    client.say(b"C")
    assert client.finish()["reason"] == "canceled"
    assert not (client.folder / "ran").exists()


def test_planted_link_is_not_followed(client: Client, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (client.folder / "std_log.txt").symlink_to(victim)
    client.start(["echo", "x"])
    assert client.exit_code() == 3
    assert not victim.exists()


def test_kill_9_of_the_supervisor_kills_the_command(client: Client) -> None:
    client.start(["sleep", "60"])
    child = os.pidfd_open(wait_for_child(client))
    assert client.process is not None
    client.process.kill()
    assert select.select([child], [], [], PATIENCE)[0]
    os.close(child)
    client.process.wait()
    assert not client.is_locked()
    assert not (client.folder / "outcome.json").exists()


@pytest.mark.parametrize("point", FAULT_POINTS)
def test_killed_at(client: Client, witness: Witness, point: str) -> None:
    stay = point == "after_spawn"
    code = f"import os, sys\nos.open(sys.argv[1], 1)\nimport signal\nif {stay}: signal.pause()"
    client.start(python(code, witness.path), fault=f"{point}:kill", on_end=RECORDER)
    assert client.exit_code() == -signal.SIGKILL
    assert (client.folder / "outcome.json").exists() == (point == "after_outcome")
    assert not (client.folder / "recorder.log").exists()
    assert not client.is_locked()
    until(witness.all_are_gone)


@pytest.mark.parametrize("point", FAULT_POINTS)
def test_our_own_exception_at(client: Client, witness: Witness, point: str) -> None:
    stay = point == "after_spawn"
    code = f"import os, sys\nos.open(sys.argv[1], 1)\nprint('said')\nimport signal\nif {stay}: signal.pause()"
    client.start(python(code, witness.path), fault=f"{point}:raise", on_end=RECORDER, on_end_env={"RUN": "r3"})
    client.listen_to_the_end()
    assert client.exit_code() == 0
    assert witness.all_are_gone()
    outcome = client.outcome
    expected = {"after_lock": "start_failed", "after_spawn": "lost"}.get(point, "succeeded")
    assert outcome["reason"] == expected
    message = None if point == "after_outcome" else f"the supervisor failed: RuntimeError: fault ordered at {point}"
    assert outcome["message"] == message
    assert expected != "succeeded" or client.log == b"said\n"
    assert (client.folder / "recorder.log").read_bytes() == b"recorder r3\noops\n"


def test_memory_of_a_supervisor(client: Client) -> None:
    client.start(python("import os\nfor _ in range(100): os.write(1, bytes(65536))\nimport signal; signal.pause()"))
    client.hear(b".")
    until(lambda: len(client.log) == 6_553_600)
    rollup = Path(f"/proc/{client.pid}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss <= 12 * 1024
    client.say(b"C")
    client.finish()


def test_secrets_stay_in_the_job(client: Client) -> None:
    secret = "canary-0c5f1e"  # noqa: S105
    client.start(
        ["sleep", "60"], env={"PATH": os.defpath, "TOKEN": secret}, on_end=["true"], on_end_env={"KEY": secret}
    )
    child = wait_for_child(client)
    assert secret.encode() in Path(f"/proc/{child}/environ").read_bytes()
    for name in ("cmdline", "environ"):
        assert secret.encode() not in Path(f"/proc/{client.pid}/{name}").read_bytes()
    assert secret not in subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    client.say(b"C")
    client.finish()
    for path in client.folder.iterdir():
        assert secret.encode() not in path.read_bytes(), path


def test_client_with_closed_streams(client: Client) -> None:
    prefix = ("/bin/sh", "-c", 'exec "$@" >&- 2>&-', "sh")
    assert client.start(["sh", "-c", "echo out; echo err >&2"], prefix=prefix).finish()["reason"] == "succeeded"
    assert client.log == b"out\nerr\n"


def test_readers_of_the_client_do_not_wait_for_us(client: Client) -> None:
    client.start(["sleep", "60"])
    client.hear(b"S")
    assert client.process is not None
    for stream in (client.process.stdout, client.process.stderr):
        assert stream is not None
        assert select.select([stream], [], [], PATIENCE)[0]
        assert stream.read() == b""
    client.say(b"C")
    client.finish()


def test_supervisor_imports_next_to_nothing(client: Client) -> None:
    client.start(["true"], prefix=("/bin/sh", "-c", 'shift; exec "$0" -X importtime "$@"', sys.executable))
    client.finish()
    imported = {line.split("|")[-1].strip() for line in client.complaint.splitlines()}
    assert {"os", "select", "fcntl"} <= imported
    assert not imported & {"subprocess", "threading", "pathlib", "typing", "dataclasses", "mlflow_azure_backend"}
