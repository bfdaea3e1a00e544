"""Faults of the network and the service, row by row of the reliability goals: nothing lost, nothing twice, one line."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from mlflow_azure_backend.emulator import EmulatorServer

LOST = ["reset-after", "truncated", "status"]
"""An answer that does not come: after the call was carried out, in the middle of it, and before it was."""


def lose(workspace: EmulatorServer, kind: str, operation: str, times: int = 1) -> None:
    workspace.fault(kind, operation=operation, times=times)


@pytest.mark.parametrize("kind", LOST)
def test_a_lost_answer_makes_no_second_run(
    workspace: EmulatorServer, client: MlflowClient, experiment: str, kind: str
) -> None:
    lose(workspace, kind, "Runs_Create")
    made = client.create_run(experiment, run_name="one", tags={"a": "b"})
    assert [one.info.run_id for one in client.search_runs([experiment])] == [made.info.run_id]
    assert (made.info.run_name, made.data.tags["a"]) == ("one", "b")


@pytest.mark.parametrize("kind", LOST)
def test_a_lost_answer_makes_no_second_experiment(workspace: EmulatorServer, client: MlflowClient, kind: str) -> None:
    name = f"an experiment/{uuid.uuid4().hex}"
    lose(workspace, kind, "Experiments_Create", times=2)
    made = client.create_experiment(name)
    assert client.get_experiment(made).name == name
    with pytest.raises(MlflowException, match="RESOURCE_ALREADY_EXISTS"):
        client.create_experiment(name)


@pytest.mark.parametrize("kind", LOST)
def test_a_lost_answer_makes_no_second_model_or_version(
    workspace: EmulatorServer, client: MlflowClient, run: str, kind: str
) -> None:
    name = f"a model {uuid.uuid4().hex}"
    source = f"{client.get_run(run).info.artifact_uri}/model"
    lose(workspace, kind, "RegisteredModels_Create")
    assert client.create_registered_model(name, tags={"a": "b"}).tags == {"a": "b"}
    with pytest.raises(MlflowException, match="ALREADY_EXISTS"):
        client.create_registered_model(name)
    lose(workspace, kind, "ModelVersions_Create")
    assert client.create_model_version(name, source, run).version == "1"
    assert len(client.search_model_versions(f"name = '{name}'")) == 1


@pytest.mark.parametrize("kind", LOST)
def test_nothing_that_is_logged_is_lost(workspace: EmulatorServer, client: MlflowClient, run: str, kind: str) -> None:
    for operation in ("Runs_LogMetric", "Runs_LogBatch", "Runs_LogParameter"):
        lose(workspace, kind, operation)
    client.log_metric(run, "m", 1.0, timestamp=1, step=1)
    client.log_batch(run, [Metric("m", 2.0, 2, 2)], [Param("p", "1")])
    client.log_param(run, "q", "2")
    lose(workspace, kind, "Runs_SetTag")
    client.set_tag(run, "t", "u")
    lose(workspace, kind, "Runs_Update")
    client.set_terminated(run)
    seen = client.get_run(run)
    assert (seen.data.params, seen.data.tags["t"], seen.info.status) == ({"p": "1", "q": "2"}, "u", "FINISHED")
    assert [(one.step, one.value) for one in client.get_metric_history(run, "m")] == [(1, 1.0), (2, 2.0)]


@pytest.mark.parametrize("kind", LOST)
def test_what_is_taken_away_stays_away(
    workspace: EmulatorServer, client: MlflowClient, experiment: str, run: str, kind: str
) -> None:
    client.set_tag(run, "t", "u")
    for operation in ("Runs_DeleteTag", "Runs_Delete", "Experiments_Delete", "Experiments_Restore"):
        lose(workspace, kind, operation)
    client.delete_tag(run, "t")
    assert "t" not in client.get_run(run).data.tags
    with pytest.raises(MlflowException, match="No tag with name"):
        client.delete_tag(run, "t")
    client.delete_run(run)
    client.delete_experiment(experiment)
    assert client.get_experiment(experiment).lifecycle_stage == "deleted"
    client.restore_experiment(experiment)
    assert client.get_experiment(experiment).lifecycle_stage == "active"


@pytest.mark.parametrize(("status", "retry_after"), [(429, 1), (500, None), (503, None)])
def test_a_busy_service_is_waited_for(
    workspace: EmulatorServer,
    client: MlflowClient,
    experiment: str,
    caplog: pytest.LogCaptureFixture,
    status: int,
    retry_after: float | None,
) -> None:
    workspace.fault("status", status=status, retry_after=retry_after, path="*/mlflow/*", times=3)
    began = time.monotonic()
    client.create_run(experiment, run_name="one")
    assert retry_after is None or time.monotonic() - began >= 3 * retry_after
    assert len(client.search_runs([experiment])) == 1
    told = [one.getMessage() for one in caplog.records if one.name.startswith("mlflow_azure_backend")]
    assert len(told) == len({line.partition(";")[0] for line in told}) <= 2  # creating, and looking for it
    assert all(str(status) in line and "trying again in" in line for line in told)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("status", r"503 .*runs/get, request [0-9a-f-]+\); try again later"),
        ("reset-before", "connection to .* was lost or refused"),
        ("hang", "does not answer in time"),
        ("garbage", "lost or refused|cannot be read"),
        ("garbage-after", "no JSON: .*something between here and Azure"),
        ("forbidden", r"403 Identity\(object id: .*ask for a role on the workspace"),
        ("unreachable", "the proxy does not let us through"),
    ],
)
def test_what_does_not_pass_is_one_line_in_bounded_time(
    workspace: EmulatorServer,
    client: MlflowClient,
    run: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    words: str,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    target = {"host": "*.api.azureml.ms"} if kind == "unreachable" else {"operation": "Runs_Get"}
    if kind == "unreachable":
        drop_connections()
    workspace.fault(kind, times=None, **target)
    began = time.monotonic()
    with pytest.raises(MlflowException, match=words) as refused:
        client.get_run(run)
    assert time.monotonic() - began < 60
    assert "\n" not in str(refused.value)
    assert "westeurope.api.azureml.ms" in str(refused.value)
    workspace.clear()
    assert client.get_run(run).info.run_id == run


def drop_connections() -> None:
    """Let the next request open a connection of its own."""
    from mlflow_azure_backend.runtime import session

    for one in session._known.values():
        one.transport.close()


def test_a_refused_token_is_renewed_once(workspace: EmulatorServer, client: MlflowClient, run: str) -> None:
    workspace.control("POST", "/tokens/revoke")
    assert client.get_run(run).info.run_id == run
    workspace.fault("expired-token", operation="Runs_Get")
    assert client.get_run(run).info.run_id == run
    workspace.fault("expired-token", operation="Runs_Get", times=None)
    with pytest.raises(MlflowException, match=r"401 .*sign in again: az login") as refused:
        client.get_run(run)
    assert refused.value.error_code == "UNAUTHENTICATED"


def test_no_token_is_written_down(
    workspace: EmulatorServer,
    client: MlflowClient,
    run: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow_azure_backend.runtime import session

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    problems: list[str] = []
    with caplog.at_level(logging.DEBUG):
        ask: list[Callable[[], object]] = [lambda: client.get_run(run), lambda: client.log_metric(run, "m", 1)]
        for kind in ("expired-token", "status", "reset-before", "garbage-after"):
            workspace.fault(kind, path="*/mlflow/*", times=None)
            for one in ask:
                with pytest.raises(MlflowException) as refused:
                    one()
                problems.append(repr(refused.value) + str(refused.value))
            workspace.clear()
    tokens = {one.transport.bearer("https://x") for one in session._known.values()}
    written = caplog.text + "".join(problems)
    assert all(token and token not in written for token in tokens)
    assert "eyJ" not in written
