"""What the benchmarks share: a folder, a tree of files, a tracking store, a tracking server."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from tests.benchmarks.measure import Cost, timed

FILES: Final = 20_000
BYTES: Final = 200_000_000
_PER_FOLDER: Final = 100
_SERVER_SECONDS: Final = 120.0

TRIVIAL: Final = "name: trivial\nentry_points:\n  main:\n    command: python -S -c pass\n"
"""A project whose command does nothing, in some 10 ms."""


_PEAK: Final = """
import os, sys
nowhere = os.open(os.devnull, os.O_RDWR)
told = [(os.POSIX_SPAWN_DUP2, nowhere, 1)]
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=told)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss / 1024)
sys.exit(status != 0)
"""
"""A process so small that the peak of its child is the child's: a new process begins with the peak of what it came from."""


class Bench:
    """One measuring of all: everything in it is made at its first use, and lies below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has been compiled
        self.environment = {
            **inherited,
            "PYTHONPYCACHEPREFIX": str(folder / "pycache"),
            "MLFLOW_AZURE_HOME": str(folder / "home"),
            "MLFLOW_AZURE_CACHE": str(folder / "cache"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._server: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """End the tracking server, if there is one."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait()

    @cached_property
    def tree(self) -> Path:
        """A committed git work tree of 20,000 files and 200 MB, two thirds of it text, that ignores some more."""
        root = self.folder / "tree"
        chance = random.Random(0)
        words = [chance.randbytes(chance.randint(2, 9)).hex() for _ in range(2000)]
        size = BYTES // FILES
        for number in range(FILES):
            path = root / f"part{number // _PER_FOLDER:03}" / f"file{number:05}.{'bin' if number % 3 == 0 else 'txt'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = " ".join(chance.choices(words, k=size // 10)).encode()
            path.write_bytes(chance.randbytes(size) if number % 3 == 0 else (text * 2)[:size])
        (root / ".gitignore").write_text("*.log\n__pycache__/\n/data/\n!keep.log\n")
        for folder in ("data", "part000/__pycache__"):
            (root / folder).mkdir()
            (root / folder / "ignored.bin").write_bytes(bytes(size))
        self.commit(root)
        time.sleep(2.1)  # git and we both distrust the time stamp of a file that is younger than its record
        return root

    def commit(self, folder: Path) -> None:
        """Make a git work tree of a folder, with all of it in one commit."""
        identity = ("-c", "user.name=Bench", "-c", "user.email=bench@example.org", "-c", "gc.auto=0")
        for arguments in (("init", "-q"), ("add", "-A"), (*identity, "commit", "-q", "-m", "all")):
            self.run(["git", *arguments], cwd=folder)

    def project(self, name: str, mlproject: str = TRIVIAL, files: Mapping[str, str] | None = None) -> Path:
        """A project's folder, not under git."""
        folder = self.folder / "projects" / name
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in {"MLproject": mlproject, **(files or {})}.items():
            (folder / path).write_text(text, encoding="utf-8")
        return folder

    @cached_property
    def empty_store(self) -> Path:
        """A fresh database of MLflow's; making one takes seconds, copying it none."""
        database = self.folder / "empty.db"
        make = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{database}').search_experiments()"
        self.run([sys.executable, "-W", "ignore", "-c", make])
        return database

    def store(self, name: str) -> str:
        """The URI of a database that nobody has written to."""
        database = self.folder / f"{name}.db"
        shutil.copy(self.empty_store, database)
        return f"sqlite:///{database}"

    @cached_property
    def server(self) -> str:
        """The address of an ``mlflow server`` that runs until ``close``."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        store = self.store("server")
        arguments = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", store)
        artifacts = ("--artifacts-destination", str(self.folder / "server-artifacts"))
        self._server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *arguments, *artifacts],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _SERVER_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except OSError:
                if time.monotonic() > deadline or self._server.poll() is not None:
                    raise
                time.sleep(0.2)
            else:
                return address

    def run(self, command: list[str], cwd: Path | None = None, **variables: str) -> str:
        """Run a command to its good end and return what it wrote; what it says on standard error is not shown."""
        done = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{command} failed with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done.stdout

    def peak(self, command: list[str], **variables: str) -> float:
        """The peak memory, in MiB, of the largest process that a command starts or is."""
        return float(self.run([sys.executable, "-I", "-S", "-c", _PEAK, *command], None, **variables))

    def cost(self, command: list[str], cwd: Path | None = None, **variables: str) -> Cost:
        """What a command costs."""
        return timed(lambda: self.run(command, cwd, **variables))()
