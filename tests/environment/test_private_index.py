"""An index for whoever knows the password: every usual way to say it works, it is kept nowhere, and later none is asked."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_azure_backend.journal import cache_home

if TYPE_CHECKING:
    from tests.environment.conftest import Index, MakeWheel

Write = Callable[[Mapping[str, str]], Path]
Way = Callable[[Path, str, "Index"], dict[str, str]]
OURS = str(Path(sys.executable).parent / "mlflow-azure")


@pytest.fixture
def project(index: Index, make_wheel: MakeWheel, write_project: Write) -> Path:
    """A project that prints the version of the one package that it asks the index for."""
    index.add(make_wheel("alpha", "1.0"))
    return write_project(
        {
            "MLproject": "python_env: python_env.yaml\nentry_points:\n"
            "  main: {command: python -c 'import alpha; print(alpha.VERSION)'}\n",
            "python_env.yaml": "dependencies: [alpha]\n",
        }
    )


def ask(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **variables}
    return subprocess.run([OURS, *arguments], capture_output=True, text=True, env=environ, timeout=120)


def run(project: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it, and wait for its supervisor too, which leaves a moment after the end is recorded."""
    done = ask("run", str(project), "--env-manager", "uv", "--experiment-name", "contract", **variables)
    for held in (cache_home(os.environ) / "environments").glob("*.use"):
        with held.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
    return done


def netrc(folder: Path, password: str, index: Index) -> dict[str, str]:
    (folder / "netrc").write_text(f"machine 127.0.0.1 login {index.user} password {password}\n")
    (folder / "netrc").chmod(0o600)
    return {"NETRC": str(folder / "netrc"), "PIP_INDEX_URL": index.url}


def variables(_folder: Path, password: str, index: Index) -> dict[str, str]:
    named = {"UV_INDEX_CORP_USERNAME": index.user, "UV_INDEX_CORP_PASSWORD": password}
    return {**named, "UV_DEFAULT_INDEX": f"corp={index.url}"}


def pip_conf(folder: Path, password: str, index: Index) -> dict[str, str]:
    address = index.url.replace("://", f"://{index.user}:{password}@")
    (folder / "pip.conf").write_text(f"[global]\nindex-url = {address}\n")
    return {"PIP_CONFIG_FILE": str(folder / "pip.conf")}


def holding(folder: Path, word: bytes) -> set[str]:
    """The names of the files that have the word in their bytes."""
    return {path.name for path in folder.rglob("*") if path.is_file() and word in path.read_bytes()}


@pytest.mark.parametrize("way", [netrc, variables, pip_conf])
def test_a_password_opens_the_index_and_is_kept_nowhere(
    way: Way, project: Path, index: Index, store: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("secrets")
    refused = run(project, **way(folder, "wrong-canary", index))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"the package index {index.url} refuses us: no valid credentials" in refused.stderr
    assert not index.asked.is_set()
    done = run(project, **way(folder, index.password, index))
    assert (done.returncode, done.stdout) == (0, "1.0\n"), done.stderr
    assert index.asked.is_set()
    # All that there is: kept lock, prefix, journal, the database with the run's tags, its artifacts.
    assert {"METADATA", "python_env.yaml", "requirements.txt"} <= holding(tmp_path, b"alpha")
    assert "mlflow.db" in holding(tmp_path, b"mlflow.project.backend")
    for secret in (b"canary", base64.b64encode(f"{index.user}:{index.password}".encode())):
        assert holding(tmp_path, secret) == set()
    assert "canary" not in refused.stderr + done.stderr


def test_a_warm_cache_needs_no_index(project: Path, index: Index, store: str, tmp_path: Path) -> None:
    settings = {"PIP_INDEX_URL": index.private_url}
    assert run(project, **settings).stdout == "1.0\n"
    index.stop()
    again = run(project, **settings)
    assert (again.returncode, again.stdout) == (0, "1.0\n"), again.stderr
    assert "1 package, cached" in again.stderr
    assert len(json.loads(ask("prune", "--json").stdout)) == 1
    rebuilt = run(project, **settings)
    assert (rebuilt.returncode, rebuilt.stdout) == (0, "1.0\n"), rebuilt.stderr
    assert "1 package, to be built" in rebuilt.stderr
