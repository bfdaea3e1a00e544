"""One suite over all targets: a new target is one more word here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from mlflow_azure_backend.submitted_run import AzureSubmittedRun

TARGETS = ["local", pytest.param("docker", marks=pytest.mark.docker)]
Launch = Callable[..., AzureSubmittedRun]


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
    return {"compute": compute}


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
