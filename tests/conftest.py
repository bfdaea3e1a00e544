"""What every test may ask for: a private home, a tracking store of its own, and projects written on the spot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

Write = Callable[[Mapping[str, str]], Path]

FAULT_SEED = "MLFLOW_AZURE_FAULT_SEED"
"""``all``, or the seed of the tenth of the fault matrix (``tests/faults``) that this run takes."""


def pytest_configure(config: pytest.Config) -> None:
    """Take the same tenth in every run unless a seed is given: a red run must mean that the change broke something."""
    config.addinivalue_line("markers", "always: a case of the fault matrix that every run takes")
    os.environ.setdefault(FAULT_SEED, "1")


def pytest_report_header() -> str:
    """Say how to draw the same cases again."""
    seed = os.environ[FAULT_SEED]
    return f"fault matrix: {'all of it' if seed == 'all' else 'a tenth of it'}, {FAULT_SEED}={seed}"


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
