"""Tests against one emulated workspace: this process is led to it, and MLflow tracks there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_azure_backend.emulator import EmulatorServer


@pytest.fixture
def workspace(
    emulator: EmulatorServer, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmulatorServer]:
    """The emulated workspace, in force for this process and its children; ordered faults end with the test."""
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(emulator.tracking_uri)
    yield emulator
    while mlflow.active_run() is not None:
        mlflow.end_run()
    emulator.clear()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def client(workspace: EmulatorServer) -> MlflowClient:
    """MLflow's client of the workspace."""
    return MlflowClient(workspace.tracking_uri)


@pytest.fixture
def experiment(client: MlflowClient) -> str:
    """The id of an experiment of the test's own."""
    made: str = client.create_experiment(f"an experiment {uuid.uuid4().hex}")
    return made


@pytest.fixture
def run(client: MlflowClient, experiment: str) -> str:
    """The id of a run of the test's own."""
    made: str = client.create_run(experiment).info.run_id
    return made
