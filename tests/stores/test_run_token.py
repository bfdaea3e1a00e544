"""A run's own token in its job: used instead of a sign-in, renewed for as long as the run lasts, for its workspace only."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.runtime.mlflow_api import ServiceRefusal
from mlflow_azure_backend.runtime.reference import from_tracking_uri
from mlflow_azure_backend.runtime.run_token import RunToken, token_given
from mlflow_azure_backend.runtime.session import session_given
from mlflow_azure_backend.runtime.tokens import NoToken
from mlflow_azure_backend.runtime.tracking import WorkspaceTrackingStore
from tests.emulator.test_data_plane import Client


@pytest.fixture
def environ(
    workspace: EmulatorServer, client: MlflowClient, run: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """A job's variables for the run, also in force for this process."""
    info = client.get_run(run).info
    with Client(workspace) as plain:
        token = plain.get(f"{plain.history}/experimentids/{info.experiment_id}/runs/{run}/token").json()["token"]
    variables = {
        "MLFLOW_TRACKING_TOKEN": token,
        "MLFLOW_RUN_ID": run,
        "MLFLOW_EXPERIMENT_ID": info.experiment_id,
        "AZUREML_RUN_ID": run,
        "AZUREML_RUN_TOKEN": token,
        "AZUREML_RUN_TOKEN_EXPIRY": "1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    return dict(os.environ)


@pytest.fixture
def store(workspace: EmulatorServer, environ: dict[str, str]) -> WorkspaceTrackingStore:
    session = session_given(from_tracking_uri(workspace.tracking_uri), environ)
    assert session is not None
    return WorkspaceTrackingStore(session)


def test_the_run_s_token_is_enough_and_is_renewed(
    workspace: EmulatorServer, store: WorkspaceTrackingStore, run: str, environ: dict[str, str]
) -> None:
    assert store.get_run(run).info.run_id == run
    workspace.fault("expired-token", operation="Runs_Get")
    assert store.get_run(run).info.run_id == run
    renewed = os.environ["MLFLOW_TRACKING_TOKEN"]
    assert renewed == os.environ["AZUREML_RUN_TOKEN"] != environ["AZUREML_RUN_TOKEN"]
    assert float(os.environ["AZUREML_RUN_TOKEN_EXPIRY"]) > time.time() + 3600


def test_a_token_that_ended_and_is_not_renewed_is_one_line(
    workspace: EmulatorServer, store: WorkspaceTrackingStore, run: str
) -> None:
    workspace.fault("expired-token", host="*.api.azureml.ms", times=None)
    with pytest.raises(ServiceRefusal, match="the run's own token has ended and is not renewed") as refused:
        store.get_run(run)
    assert "\n" not in str(refused.value) and "eyJ" not in str(refused.value)
    assert refused.value.error_code == "UNAUTHENTICATED"


def test_a_run_that_says_nothing_for_long_keeps_its_token(
    workspace: EmulatorServer, environ: dict[str, str], run: str
) -> None:
    reference = from_tracking_uri(workspace.tracking_uri)
    address = f"{reference.service('history/v1.0')}/experimentids/{environ['MLFLOW_EXPERIMENT_ID']}/runs/{run}/token"
    first = environ["AZUREML_RUN_TOKEN"]
    kept = RunToken(first, time.time() + 300.2, address, again=0.1)
    assert kept.token() == first
    deadline = time.monotonic() + 60
    while os.environ["AZUREML_RUN_TOKEN"] == first and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert os.environ["AZUREML_RUN_TOKEN"] == kept.token() != first


def test_the_job_s_status_is_the_job_s(store: WorkspaceTrackingStore, run: str) -> None:
    from mlflow.entities import RunStatus

    info = store.update_run_info(run, RunStatus.FINISHED, 1, "renamed")
    assert (info.status, info.run_name) == ("RUNNING", "renamed")
    assert store.update_run_info(run, RunStatus.FINISHED, 1, None).status == "RUNNING"


def test_the_token_is_for_the_job_s_workspace_only(workspace: EmulatorServer, environ: dict[str, str]) -> None:
    own = from_tracking_uri(workspace.tracking_uri)
    assert isinstance(token_given(own, environ), RunToken)
    other = from_tracking_uri(workspace.tracking_uri + "2")
    assert token_given(other, environ) is None
    assert token_given(own, {}) is None


def test_a_token_of_somebody_s_own_is_used_as_it_is(workspace: EmulatorServer, tmp_path: Path) -> None:
    own = from_tracking_uri(workspace.tracking_uri)
    given = token_given(own, {"MLFLOW_TRACKING_TOKEN": "mine"})
    assert given is not None and given.token() == "mine"
    with pytest.raises(NoToken, match="set a new one, or unset it to sign in"):
        given.token(refused="mine")
