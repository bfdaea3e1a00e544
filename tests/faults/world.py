"""One case's world: a private home, cache, temporary folder, store and project, and clients that are real processes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

PATIENCE: Final = 60.0
MARKER: Final = "FAULT_CASE"
"""The environment variable by which a case finds its processes, however they were orphaned."""

PRELUDE: Final = """
import os, signal, sys
side = os.open(os.environ["SIDE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
starts = os.open(os.environ["SIDE"] + ".starts", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
os.write(starts, b"%d\\n" % os.getpid())
def write(descriptor, data):
    while data:
        data = data[os.write(descriptor, data):]
def say(data):
    write(1, data)
    write(side, data)
def wait():
    open(os.environ["GATE"], "rb").read()
"""
"""What every child begins with: ``say`` writes to its log, then to the side file that the log is compared with."""

QUICK: Final = "say(b'one\\n'); say(b'two\\r\\x00\\xff three')"
WAITING: Final = "say(b'ready\\n'); wait(); say(b'done\\n')"
FOR_EVER: Final = "say(b'ready\\n')\nwhile True: signal.pause()"


class Client:
    """A process that the zygote forked."""

    def __init__(self, argv: tuple[str, ...], connection: socket.socket, pid: int, out: Path, err: Path) -> None:
        self.argv = argv
        self._connection = connection
        self.pid = pid
        self._out, self._err = out, err
        self._code: int | None = None

    @property
    def out(self) -> bytes:
        return self._out.read_bytes() if self._out.exists() else b""

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit code; negative for a signal. Fails after ``patience`` seconds, and kills it."""
        if self._code is None:
            self._connection.settimeout(patience)
            try:
                answer = self._connection.makefile("rb").readline()
            except TimeoutError:
                self.signal(signal.SIGKILL)
                raise AssertionError(f"still there after {patience} s:\n{self.err}") from None
            self._connection.close()
            self._code = int(answer)
        return self._code


@dataclass
class World:
    """See the module's head.

    Attributes:
        folder: All of it is below.
        zygote: Address of the process that forks clients.
        environment: What every client gets.
        canaries: Secrets that must not be in anything that we write.
    """

    folder: Path
    zygote: Path
    environment: dict[str, str] = field(default_factory=dict)
    canaries: list[str] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in (self.temporary, self.store, self.project):
            path.mkdir(mode=0o700, exist_ok=True)
        os.mkfifo(self.gate)
        self.marker = uuid.uuid4().hex
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self.folder / "user"),
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(self.temporary),
            "MLFLOW_AZURE_HOME": str(self.home),
            "MLFLOW_AZURE_CACHE": str(self.cache),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.database}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONPATH": os.environ.get("PYTHONPATH", str(Path(__file__).parents[2])),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SIDE": str(self.side),
            "GATE": str(self.gate),
            MARKER: self.marker,
            **self.environment,
        }
        (self.folder / "user").mkdir(exist_ok=True)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def database(self) -> Path:
        return self.store / "mlflow.db"

    @property
    def project(self) -> Path:
        return self.folder / "a 'project'"

    @property
    def side(self) -> Path:
        return self.folder / "side"

    @property
    def gate(self) -> Path:
        return self.folder / "gate"

    def write_project(self, code: str, *, files: dict[str, str] | None = None, mlproject: str | None = None) -> None:
        """A project whose one command is a Python without site-packages that runs ``code``."""
        command = "entry_points: {main: {command: 'python -I -S child.py'}}\n"
        for name, text in {"MLproject": mlproject or command, "child.py": PRELUDE + code, **(files or {})}.items():
            path = self.project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def start(self, *argv: str, ignore_sigint: bool = False, out: Path | None = None, **variables: str) -> Client:
        """Start a client; ``argv`` begins with the program."""
        number = len(self.clients)
        streams = [Path(os.devnull), out or self.folder / f"{number}.out", self.folder / f"{number}.err"]
        order = {
            "argv": argv,
            "cwd": str(self.folder),
            "env": {**self.environment, **variables},
            "streams": [str(path) for path in streams],
            "ignore_sigint": ignore_sigint,
        }
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(str(self.zygote))
        connection.sendall(json.dumps(order).encode() + b"\n")
        pid = bytearray()
        while not pid.endswith(b"\n"):
            pid += connection.recv(1)
        client = Client(argv, connection, int(pid), streams[1], streams[2])
        self.clients.append(client)
        return client

    def run(self, *arguments: str, project: str | None = None, **options: Any) -> Client:
        """Start ``mlflow-azure run`` of the project."""
        return self.start("mlflow-azure", "run", project or str(self.project), *arguments, **options)

    def next_command(self, **variables: str) -> Client:
        """The next command of any kind, which writes the ends that nobody wrote."""
        options: dict[str, Any] = dict(variables)
        client = self.start("mlflow-azure", "list", **options)
        assert client.wait() == 0, client.err
        return client

    def open_gate(self) -> None:
        """Let a ``WAITING`` child go on; waits for it to be there."""
        with self.gate.open("wb"):
            pass

    def open_gate_to(self, children: int) -> None:
        """Let so many ``WAITING`` children go on: one that comes through may still be there when the next is let in."""

        def are_through() -> bool:
            with contextlib.suppress(OSError):  # nobody waits at this moment
                os.close(os.open(self.gate, os.O_WRONLY | os.O_NONBLOCK))
            return self.side.read_bytes().count(b"done\n") == children

        until(are_through)

    def await_child(self, number: int = 1) -> None:
        """Wait until the child has begun and said that it is ready, for the ``number``-th time."""
        until(lambda: self.side.exists() and self.side.read_bytes().count(b"ready\n") >= number)

    def await_log(self) -> None:
        """Wait until the supervisor has put on disk what the child said."""
        until(lambda: any(b"ready" in path.read_bytes() for path in self.home.glob("runs/*/std_log.txt")))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.database, timeout=PATIENCE)) as connection:
            return connection.execute(sql).fetchall()

    def runs(self) -> list[tuple[str, str]]:
        """Id and status of every run in the store."""
        return [(str(run_id), str(status)) for run_id, status in self.query("SELECT run_uuid, status FROM runs")]

    def starts(self) -> int:
        """How often the child began."""
        began = Path(f"{self.side}.starts")
        return len(began.read_bytes().splitlines()) if began.exists() else 0

    def run_folders(self) -> list[Path]:
        folder = self.home / "runs"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def processes(self) -> list[int]:
        """Every living process with the case's marker, except those of ours that serve it."""
        found = []
        wanted = f"{MARKER}={self.marker}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                    found += [int(folder.name)] if state != "Z" else []
        return found

    def await_quiet(self, patience: float = PATIENCE) -> None:
        """Wait until no process of the case is left."""
        deadline = time.monotonic() + patience
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    descriptor = os.pidfd_open(pid)
                    try:
                        remaining = max(0.0, deadline - time.monotonic())
                        assert select.select([descriptor], [], [], remaining)[0], f"still there: {describe(pid)}"
                    finally:
                        os.close(descriptor)

    def supervisor(self) -> int:
        """The pid of the one supervisor, once its command runs."""
        found: list[Path] = []

        def begun() -> bool:
            found[:] = [folder / "supervisor.json" for folder in self.run_folders()]
            return len(found) == 1 and found[0].exists()

        until(begun)
        pid: int = json.loads(found[0].read_bytes())["pid"]
        return pid

    def destroy(self) -> None:
        """Kill what is left, so that one case cannot disturb the next."""
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def describe(pid: int) -> str:
    """A process's command line."""
    with contextlib.suppress(OSError):
        return f"{pid} {Path(f'/proc/{pid}/cmdline').read_bytes().replace(bytes(1), b' ').decode(errors='replace')}"
    return f"{pid}, gone"


def until(condition: Any, patience: float = PATIENCE) -> None:
    """Wait for something of which nobody tells us."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not so after {patience} s"
        select.select([], [], [], 0.01)


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """Mount a disk of its own at ``folder``."""
    import subprocess

    folder.mkdir(exist_ok=True, mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
