"""One suite over all targets: a new target is one more word here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.submitted_run import AzureSubmittedRun
from mlflow_azure_backend.workspace.access import manager_of
from mlflow_azure_backend.workspace.finding import find_workspace

TARGETS = ["local", pytest.param("docker", marks=pytest.mark.docker), "cluster"]
Launch = Callable[..., AzureSubmittedRun]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a target cannot have; the marker says why, and ``test_cluster.py`` what holds there instead."""
    left_out = [item for item in items if (mark := item.get_closest_marker("not_on")) and _compute(item) in mark.args]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _compute(item: pytest.Item) -> Any:
    return (
        item.callspec.params.get("compute") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
    )


@pytest.fixture(params=TARGETS)
def compute(request: pytest.FixtureRequest) -> str:
    """The value of ``compute`` in the backend configuration."""
    name: str = request.param
    return name


@pytest.fixture
def target_config(compute: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the target under test needs so that a project without an environment finds this one."""
    if compute == "docker":
        config: dict[str, Any] = request.getfixturevalue("own_python_in_docker")
        return config
    if compute == "cluster":
        return {"compute": "serverless", "environment": request.getfixturevalue("workspace_environment")}
    return {"compute": compute}


@pytest.fixture
def workspace_environment(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Leads this process to the emulated workspace; an environment there that has MLflow's client."""
    for name, value in emulator.environment(os.environ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CI", raising=False)  # there Ctrl-C cancels, and a client that dies leaves nothing
    reference = find_workspace(None, emulator.tracking_uri, Path(), os.environ)
    manager = manager_of(reference, os.environ)
    path = "/environments/contract/versions/1"
    if manager.get(path) is None:
        conda = f"dependencies: [python=3.11, pip, {{pip: [mlflow-skinny=={mlflow.__version__}]}}]"
        manager.put(
            path, {"properties": {"image": "mcr.microsoft.com/azureml/openmpi5.0-ubuntu24.04", "condaFile": conda}}
        )
    return "azureml:contract:1"


@pytest.fixture
def launch(store: str, target_config: dict[str, Any]) -> Launch:
    """``mlflow.projects.run`` with our backend on the target under test."""

    def run(folder: Path, config: Mapping[str, Any] | None = None, **options: Any) -> AzureSubmittedRun:
        options.setdefault("experiment_name", "contract")
        submitted = mlflow.projects.run(
            str(folder), backend="azureml", backend_config={**target_config, **(config or {})}, **options
        )
        assert isinstance(submitted, AzureSubmittedRun)
        return submitted

    return run


@pytest.fixture
def only_run(store: str) -> Callable[[], Run]:
    """The one run of the experiment; fails when there are none or several."""

    def find() -> Run:
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name("contract")
        (run,) = client.search_runs([experiment.experiment_id])
        return run

    return find


@pytest.fixture
def artifact(store: str) -> Callable[[str, str], bytes]:
    """The bytes of one artifact of a run."""

    def read(run_id: str, path: str) -> bytes:
        return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path)).read_bytes()

    return read
