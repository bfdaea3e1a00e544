"""MLflow's own scenarios of a tracking store, through ours."""

from __future__ import annotations

import math
import re
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.stores import tracking_store

NASTY = "it's \"so\": ünd ☃ \u2028 %20 `a` \\ '' ;--"


def test_an_experiment_is_made_found_renamed_tagged_deleted_and_restored(client: MlflowClient) -> None:
    name = f"an experiment/with a slash, {NASTY} {uuid.uuid4().hex}"
    made = client.create_experiment(name, tags={"team": NASTY})
    assert client.get_experiment(made).name == name
    assert client.get_experiment(made).tags["team"] == NASTY
    found = client.get_experiment_by_name(name)
    assert found is not None and found.experiment_id == made
    with pytest.raises(MlflowException, match="RESOURCE_ALREADY_EXISTS"):
        client.create_experiment(name)
    client.rename_experiment(made, f"{name} 2")
    client.set_experiment_tag(made, "team", "other")
    client.delete_experiment(made)
    assert client.get_experiment(made).lifecycle_stage == "deleted"
    with pytest.raises(MlflowException, match=r"'active' state.*restore it first") as refused:
        client.create_run(made)
    assert "\n" not in str(refused.value)
    client.restore_experiment(made)
    again = client.get_experiment(made)
    assert (again.name, again.tags["team"], again.lifecycle_stage) == (f"{name} 2", "other", "active")


def test_what_is_not_there_is_none_or_one_line(client: MlflowClient) -> None:
    assert client.get_experiment_by_name(uuid.uuid4().hex) is None
    missing: list[Callable[[], object]] = [lambda: client.get_run("unknown"), lambda: client.get_experiment("123456")]
    for ask in missing:
        with pytest.raises(MlflowException) as refused:
            ask()
        assert refused.value.error_code == "RESOURCE_DOES_NOT_EXIST"
        assert "\n" not in str(refused.value)
        assert "/workspaces/" in str(refused.value)


def test_a_run_keeps_what_is_logged(client: MlflowClient, experiment: str) -> None:
    run = client.create_run(experiment, start_time=1_700_000_000_000, tags={"t": NASTY}, run_name=NASTY).info.run_id
    client.log_param(run, "p", NASTY)
    client.log_metric(run, "m", 1.5, timestamp=1_700_000_000_001, step=3)
    client.log_batch(
        run,
        [Metric("m", step / 2, 1_700_000_000_002, step) for step in range(4, 1500)],
        [Param(f"p{number}", str(number)) for number in range(150)],
        [RunTag(f"t{number}", str(number)) for number in range(150)],
    )
    for value in (math.nan, math.inf, -math.inf):
        client.log_metric(run, f"odd {value}", value)
    client.set_tag(run, "t", "new")
    client.delete_tag(run, "t0")
    client.set_terminated(run, "FAILED", end_time=1_700_000_100_000)
    seen = client.get_run(run)
    assert (seen.info.run_name, seen.info.status) == (NASTY, "FAILED")
    assert (seen.info.start_time, seen.info.end_time) == (1_700_000_000_000, 1_700_000_100_000)
    assert (seen.data.params["p"], seen.data.params["p149"]) == (NASTY, "149")
    assert (seen.data.tags["t"], seen.data.tags["t149"], "t0" in seen.data.tags) == ("new", "149", False)
    assert seen.data.metrics["m"] == 1499 / 2
    assert math.isnan(seen.data.metrics["odd nan"]) and seen.data.metrics["odd inf"] > 1e300
    history = client.get_metric_history(run, "m")
    assert sorted((one.step, one.value) for one in history)[:2] == [(3, 1.5), (4, 2.0)]
    assert len(history) == 1497
    assert "/runs/" + run + "/artifacts" in seen.info.artifact_uri


def test_a_param_is_not_overwritten_and_the_limits_are_named(client: MlflowClient, run: str) -> None:
    client.log_param(run, "p", 1)
    client.log_param(run, "p", 1)
    client.log_batch(run, params=[Param(f"p{number}", "1") for number in range(150)])
    wrong: list[Callable[[], object]] = [
        lambda: client.log_param(run, "p", 2),
        lambda: client.log_metric(run, "bad\nname", 1),
        lambda: client.log_batch(run, params=[Param("p", "3")]),
        lambda: client.log_batch(run, params=[Param("p" * 300, "1")]),
        lambda: client.log_batch(run, params=[Param(f"q{number}", "1") for number in range(100)]),
    ]
    for ask in wrong:
        with pytest.raises(MlflowException) as refused:
            ask()
        assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
        assert "Limit" in str(refused.value) or "param" in str(refused.value).lower() or "name" in str(refused.value)


def test_runs_are_searched_page_by_page(client: MlflowClient, experiment: str) -> None:
    made = [client.create_run(experiment, run_name=f"run {number}").info.run_id for number in range(7)]
    for number, one in enumerate(made):
        client.log_metric(one, "m", number)
        client.set_tag(one, "odd tag/with.a-name", NASTY if number % 2 else "even")
    client.delete_run(made[6])
    seen, token = [], None
    while True:
        page = client.search_runs([experiment], order_by=["metrics.m DESC"], max_results=2, page_token=token)
        seen += [one.info.run_id for one in page]
        token = page.token
        if not token:
            break
    assert seen == made[5::-1]
    odd = client.search_runs([experiment], "tags.`odd tag/with.a-name` != 'even' and metrics.m > 1")
    assert {one.info.run_id for one in odd} == {made[3], made[5]}
    assert [one.info.run_id for one in client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)] == [
        made[6]
    ]
    client.restore_run(made[6])
    assert len(client.search_runs([experiment])) == 7


def test_experiments_are_searched_page_by_page(client: MlflowClient) -> None:
    prefix = uuid.uuid4().hex
    made = {client.create_experiment(f"{prefix} {number}") for number in range(5)}
    seen, token = set(), None
    while True:
        page = client.search_experiments(filter_string=f"name LIKE '{prefix}%'", max_results=2, page_token=token)
        seen |= {one.experiment_id for one in page}
        token = page.token
        if not token:
            break
    assert seen == made


def test_many_write_at_once(client: MlflowClient, run: str) -> None:
    def write(writer: int) -> None:
        for step in range(20):
            client.log_metric(run, f"m{writer}", step, step=step)
            client.log_metric(run, "shared", writer, timestamp=1_700_000_000_000, step=step * 8 + writer)
        client.log_param(run, f"p{writer}", writer)

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert len(client.get_metric_history(run, "shared")) == 160
    assert [len(client.get_metric_history(run, f"m{writer}")) for writer in range(8)] == [20] * 8
    assert len(client.get_run(run).data.params) == 8


def test_the_fluent_calls_of_a_training_script(client: MlflowClient) -> None:
    name = f"an experiment {uuid.uuid4().hex}"
    mlflow.set_experiment(name)
    with mlflow.start_run(run_name="outer", tags={"colour": "blue"}) as outer:
        mlflow.log_params({"alpha": 0.3, "nasty": NASTY})
        mlflow.log_metrics({"loss": 0.5}, step=1)
        mlflow.log_metrics({"late": 3.0, "later": 4.0}, synchronous=False)
        mlflow.log_param("asynchronous", "yes", synchronous=False)
        mlflow.flush_async_logging()
        with mlflow.start_run(nested=True, run_name="inner") as inner:
            mlflow.log_metric("loss", 0.1)
    assert client.get_run(inner.info.run_id).data.tags["mlflow.parentRunId"] == outer.info.run_id
    seen = client.get_run(outer.info.run_id)
    assert seen.info.status == "FINISHED"
    assert seen.data.metrics == {"loss": 0.5, "late": 3.0, "later": 4.0}
    assert seen.data.params == {"alpha": "0.3", "nasty": NASTY, "asynchronous": "yes"}
    table = mlflow.search_runs(experiment_names=[name], filter_string="tags.colour = 'blue'")
    assert list(table["run_id"]) == [outer.info.run_id]
    with pytest.raises(ValueError, match="mine"), mlflow.start_run() as failing:
        raise ValueError("mine")
    assert client.get_run(failing.info.run_id).info.status == "FAILED"
    with mlflow.start_run(failing.info.run_id):
        mlflow.set_tag("resumed", "yes")
    assert client.get_run(failing.info.run_id).info.status == "FINISHED"


def test_system_metrics_are_logged(client: MlflowClient, experiment: str) -> None:
    mlflow.set_system_metrics_sampling_interval(0.05)
    mlflow.set_system_metrics_samples_before_logging(1)
    try:
        with mlflow.start_run(experiment_id=experiment, log_system_metrics=True) as run:
            logged: dict[str, float] = {}
            deadline = time.monotonic() + 120
            while not logged and time.monotonic() < deadline:
                logged = client.get_run(run.info.run_id).data.metrics
    finally:
        mlflow.set_system_metrics_sampling_interval(None)
        mlflow.set_system_metrics_samples_before_logging(None)
    assert "system/cpu_utilization_percentage" in logged


def test_requests_name_us_and_mlflow(workspace: EmulatorServer, run: str) -> None:
    sent: list[str] = []

    class Listening(HTTPAdapter):
        def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
            sent.append(f"{request.headers['User-Agent']} {request.headers['x-ms-client-request-id']}")
            return super().send(request, *arguments, **options)

    store = tracking_store(workspace.tracking_uri)
    transport = store.api._session.transport
    before = transport._session.adapters["https://"]
    transport._session.mount("https://", Listening())
    try:
        store.get_run(run)
    finally:
        transport._session.mount("https://", before)
    (line,) = sent
    assert re.fullmatch(r"mlflow-azure-backend python/3\.\S+ mlflow-python-client/\S+ [0-9a-f-]{36}", line)
