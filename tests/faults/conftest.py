"""The fault matrix: a world for each case, the process that forks its clients, and the tenth that a normal run takes."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.faults.proxy import Proxy
from tests.faults.world import World, until

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave all but a seeded tenth of the matrix out of a normal run; a case that was named runs."""
    seed = os.environ["MLFLOW_AZURE_FAULT_SEED"]
    if seed == "all" or any("::" in argument for argument in config.args):
        return
    left_out = [item for item in items if HERE in item.path.parents and not _is_drawn(seed, item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_drawn(seed: str, item: pytest.Item) -> bool:
    if item.get_closest_marker("always"):
        return True
    return hashlib.sha256(f"{seed} {item.nodeid}".encode()).digest()[0] < 26  # of 256: a tenth


@pytest.fixture(scope="session")
def zygote() -> Iterator[Path]:
    """The address of the process that forks clients."""
    with tempfile.TemporaryDirectory(prefix="zygote-") as folder:  # a socket's path is short
        address = Path(folder) / "socket"
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(HERE / "zygote.py"), str(address)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONUTF8": "1"},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process, process.stdin, process.stdout:
            assert process.stdout.readline() == b"ready\n"
            yield address
            process.stdin.close()


@pytest.fixture
def world(zygote: Path, empty_store: Path) -> Iterator[World]:
    """A world whose store is a database."""
    folder = Path(tempfile.mkdtemp(prefix="fault-"))
    made = World(folder, zygote)
    _furnish(made, empty_store, (made.store / "artifacts").as_uri())
    yield made
    made.destroy()


@pytest.fixture
def served(world: World, empty_store: Path) -> Iterator[Proxy]:
    """The proxy of a world whose store is a real tracking server's."""
    _furnish(world, empty_store, "mlflow-artifacts:/0")
    port_file = world.folder / "port"
    variables: dict[str, Any] = {
        "BACKEND": f"sqlite:///{world.database}",
        "ARTIFACTS": (world.store / "artifacts").as_uri(),
        "PORT_FILE": str(port_file),
    }
    server = world.start(str(HERE / "serve.py"), **variables)
    until(port_file.exists)
    world.clients.clear()
    proxy = Proxy(int(port_file.read_text()))
    world.environment |= {"MLFLOW_TRACKING_URI": proxy.url, "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
    yield proxy
    proxy.close()
    server.signal(9)
    server.wait()


@pytest.fixture
def new_world(zygote: Path, empty_store: Path) -> Iterator[Callable[[], World]]:
    """For cases that sweep: a fresh world at each call, the last one destroyed."""
    made: list[World] = []

    def make() -> World:
        while made:
            made.pop().destroy()
        made.append(World(Path(tempfile.mkdtemp(prefix="fault-")), zygote))
        _furnish(made[-1], empty_store, (made[-1].store / "artifacts").as_uri())
        return made[-1]

    yield make
    for world in made:
        world.destroy()


def _furnish(world: World, empty_store: Path, artifacts: str) -> None:
    shutil.copy(empty_store, world.database)
    with closing(sqlite3.connect(world.database)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (artifacts,))
