"""What every test may ask for: a private home, a tracking store of its own, and projects written on the spot."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator import EmulatorServer

Write = Callable[[Mapping[str, str]], Path]

LEFT_OUT = pytest.StashKey[int]()
"""How many tests were left out for want of a docker engine."""

FAULT_SEED = "MLFLOW_AZURE_FAULT_SEED"
"""``all``, or the seed of the tenth of the fault matrix (``tests/faults``) that this run takes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what must be known before ``tests/emulator`` is collected."""
    text = "only the contract tests of tests/emulator, against a real Azure ML workspace; two short jobs are billed"
    parser.addoption("--live", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Take the same tenth in every run unless a seed is given: a red run must mean that the change broke something."""
    config.addinivalue_line("markers", "always: a case of the fault matrix that every run takes")
    config.addinivalue_line("markers", "not_on(target, reason): the contract does not hold there, for a reason")
    config.addinivalue_line("markers", "live: needs a real Azure ML workspace")
    os.environ.setdefault(FAULT_SEED, "1")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say how to draw the same cases again, and which workspace the contract tests speak to."""
    seed = os.environ[FAULT_SEED]
    workspace = "a real one (--live)" if config.getoption("--live") else "the emulator; with --live a real one"
    return [
        f"fault matrix: {'all of it' if seed == 'all' else 'a tenth of it'}, {FAULT_SEED}={seed}",
        f"workspace of the contract tests: {workspace}",
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a docker engine its tests are left out, and counted aloud; in CI that is an error."""
    left_out = [item for item in items if item.get_closest_marker("docker") is not None]
    if not left_out or subprocess.run(["docker", "version"], capture_output=True).returncode == 0:
        return
    if os.environ.get("CI") == "true":
        raise pytest.UsageError(f"{len(left_out)} tests need a docker engine, and none answers")
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    config.stash[LEFT_OUT] = len(left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was not tested."""
    if LEFT_OUT in config.stash:
        line = (
            f"{config.stash[LEFT_OUT]} tests need a docker engine and were left out: start it, or `make test CI=true`"
        )
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(scope="session")
def base_image() -> str:
    """A docker image with the Python that runs the tests, without its packages; made when its ingredients change."""
    tool = Path(__file__).parent.parent / "tools" / "base-image"
    python = Path(sys.executable).resolve()
    ingredients = (tool.read_text(), str(python), sys.version, str(python.stat().st_mtime_ns))
    name = f"mlflow-azure-test:{hashlib.sha256(repr(ingredients).encode()).hexdigest()[:12]}"
    # The tests' processes make it once between them.
    with (Path(tempfile.gettempdir()) / f"{name.replace(':', '-')}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode != 0:
            subprocess.run([sys.executable, str(tool), name], check=True)
    return name


@pytest.fixture(scope="session")
def own_python_in_docker(base_image: str) -> dict[str, Any]:
    """A ``backend_config`` that runs a project in a container with the very packages of this Python."""
    folders = [*dict.fromkeys((sys.prefix, str(Path(__file__).parent.parent)))]
    return {
        "compute": "docker",
        "environment": {"image": base_image},
        "resources": {"docker_args": [word for folder in folders for word in ("--volume", f"{folder}:{folder}:ro")]},
        "environment_variables": {"PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin"},
    }


@pytest.fixture
def nasty_path(tmp_path: Path) -> Path:
    """A folder whose name breaks what does not quote."""
    folder = tmp_path / 'it\'s a "nasty" $HOME päth;#1'
    folder.mkdir()
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 64 KiB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journal of the test's own; returns its folder."""
    folder = tmp_path / "mlflow-azure-home"
    monkeypatch.setenv("MLFLOW_AZURE_HOME", str(folder))
    monkeypatch.setenv("MLFLOW_AZURE_CACHE", str(tmp_path / "mlflow-azure-cache"))
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_AZURE_FAULT"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database; making one takes seconds, copying it none."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    make = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{database}').search_experiments()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", make], check=True, capture_output=True, cwd=database.parent)
    return database


@pytest.fixture
def store(empty_store: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a tracking store of the test's own, in force for this process and its children."""
    import mlflow

    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    monkeypatch.chdir(folder)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    client.create_experiment("contract", artifact_location=(folder / "artifacts").as_uri())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    yield uri
    mlflow.set_tracking_uri(before)


@pytest.fixture
def write_project(nasty_path: Path) -> Write:
    """Write a project's files below a nasty path; returns its folder."""

    def write(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            path = nasty_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return nasty_path

    return write


@pytest.fixture(autouse=True)
def no_experiment_of_another_test() -> Iterator[None]:
    """MLflow 3 keeps the experiment that was set in the environment, where the next test's processes would find it."""
    yield
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


@pytest.fixture(scope="session")
def emulator() -> Iterator[EmulatorServer]:
    """One emulated workspace for all tests of a worker; what a test changes in it must not disturb the others."""
    from mlflow_azure_backend.emulator import EmulatorServer

    with EmulatorServer(outside=False) as server:
        yield server
