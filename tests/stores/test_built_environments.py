"""Jobs in environments that have an MLflow and nothing of ours, on this machine, with a workspace as tracking store."""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.runtime.clouds import PUBLIC
from mlflow_azure_backend.runtime.host_token import PYTHON_VARIABLE, token_of_host
from mlflow_azure_backend.runtime.reference import from_tracking_uri
from mlflow_azure_backend.runtime.session import shared_session
from mlflow_azure_backend.runtime.tokens import NoToken
from mlflow_azure_backend.runtime.tracking import WorkspaceTrackingStore
from tests.conftest import Write

HERE = {PYTHON_VARIABLE: sys.executable}


def test_the_interpreter_that_has_us_gives_tokens(workspace: EmulatorServer, run: str) -> None:
    tokens = token_of_host(PUBLIC, HERE)
    assert tokens is not None and token_of_host(PUBLIC, {}) is None
    first = tokens.token()
    assert tokens.token() == first
    session = shared_session(from_tracking_uri(workspace.tracking_uri), "a test", lambda: tokens)
    assert WorkspaceTrackingStore(session).get_run(run).info.run_id == run
    assert tokens.token(refused=first) != first


def test_why_there_is_no_token_is_one_line(workspace: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    tokens = token_of_host(PUBLIC, HERE)
    assert tokens is not None
    with pytest.raises(NoToken, match=r"AADSTS7000215.*sign in: az login") as refused:
        tokens.token()
    assert "\n" not in str(refused.value)
    missing = token_of_host(PUBLIC, {PYTHON_VARIABLE: "/nowhere/python"})
    assert missing is not None
    with pytest.raises(NoToken, match="/nowhere/python gives no token"):
        missing.token()


@pytest.mark.package_index
@pytest.mark.timeout(600)
def test_a_job_in_an_environment_of_its_own_reaches_the_workspace(
    home: Path, tmp_path: Path, write_project: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = write_project(
        {
            "MLproject": "name: p\npython_env: python_env.yaml\nentry_points:\n  main:\n    command: python train.py\n",
            "python_env.yaml": f"python: '{sys.version_info[0]}.{sys.version_info[1]}'\ndependencies: [mlflow-skinny]\n",
            "train.py": """
import importlib.util
import mlflow
assert importlib.util.find_spec("azure") is None and importlib.util.find_spec("mlflow_azure_backend") is None
mlflow.log_metric("loss", 0.5)
mlflow.log_text("from inside", "inside.txt")
""",
        }
    )
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    with EmulatorServer() as reaching_the_index:
        for name, value in reaching_the_index.environment().items():
            monkeypatch.setenv(name, value)
        mlflow.set_tracking_uri(reaching_the_index.tracking_uri)
        submitted = mlflow.projects.run(str(project), backend="azureml", experiment_name="an environment of its own")
        run = MlflowClient().get_run(submitted.run_id)
        assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 0.5})
        assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/inside.txt") == "from inside"
    mlflow.set_tracking_uri(before)
