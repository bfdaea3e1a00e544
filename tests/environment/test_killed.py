"""A builder that is killed leaves nothing that a later run takes for an environment: twenty moments, both kinds."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.environment.store import ensure_prefix, find_prefix
from tests.conda_channel import PYTHON

if TYPE_CHECKING:
    from mlflow_azure_backend.environment.lock import EnvironmentLock
    from tests.environment.conftest import MakeWheel, ReadProject

MOMENTS: Final = 20
FEWEST: Final = 5
"""Of these moments, as many at least must come before the builder is done; on a busy machine it may be quicker."""

BUILD: Final = """
import pickle, sys
from functools import partial
from pathlib import Path
from mlflow_azure_backend.environment.store import ensure_prefix
ensure_prefix(pickle.load(sys.stdin.buffer), cache=Path(sys.argv[1]), on_progress=partial(print, flush=True))
"""


def test_a_builder_of_a_virtual_environment(cache: Path, make_wheel: MakeWheel, read: ReadProject) -> None:
    make_wheel("alpha", "1.0", requires=("beta",))
    make_wheel("beta", "2.0")
    kill_at_twenty_moments(resolve(read("alpha"), cache=cache), cache)


def test_a_builder_of_a_conda_environment(cache: Path, make_wheel: MakeWheel, read_conda: ReadProject) -> None:
    make_wheel("gamma", "1.0")
    kill_at_twenty_moments(resolve(read_conda(f"python={PYTHON}", pip=("gamma",)), cache=cache), cache)


def kill_at_twenty_moments(lock: EnvironmentLock, cache: Path) -> None:
    """Each builder finds what the one before it left; every second is killed with all that it started."""
    prefix = ensure_prefix(lock, cache=cache).path
    expected = tree(prefix)
    shutil.rmtree(prefix)
    unfinished = 0
    for moment in range(MOMENTS):
        build_and_kill(lock, cache, prefix, files=1 + len(expected) * moment // MOMENTS, family=moment % 2 == 0)
        found = find_prefix(lock, cache=cache)
        if found is None:
            unfinished += 1
        else:
            assert tree(found) == expected
            shutil.rmtree(found)
    assert unfinished >= FEWEST
    again = ensure_prefix(lock, cache=cache)
    assert not again.hit
    assert tree(again.path) == expected
    assert [path for path in prefix.parent.iterdir() if path.suffix != ".lock"] == [prefix]


def build_and_kill(lock: EnvironmentLock, cache: Path, prefix: Path, *, files: int, family: bool) -> None:
    """Start a builder, and kill it when so many files are there; without its family, what it started goes on."""
    command = [sys.executable, "-c", BUILD, str(cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as builder:
        assert builder.stdin is not None
        assert builder.stdout is not None
        with builder.stdin:
            builder.stdin.write(pickle.dumps(lock))
        while builder.stdout.readline().startswith(b"waiting"):
            pass  # after its first stage has begun, nothing is left of the one before
        while builder.poll() is None and count(prefix) < files:
            pass
        if family and builder.poll() is None:
            os.killpg(builder.pid, signal.SIGKILL)
        builder.kill()


def count(prefix: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(prefix))


def tree(prefix: Path) -> dict[str, bytes]:
    """Every file but the marker, which knows the time of the Python that it stands for."""
    files = (path for path in prefix.rglob("*") if not path.is_dir() and path.name != ".mlflow-azure-environment")
    return {
        str(path.relative_to(prefix)): bytes(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in files
    }
