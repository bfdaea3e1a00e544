"""Rows 4-9, 15, 16 and 40 for jobs of a workspace: the client dies around the PUT, and the service errs at every route.

The workspace is the emulated one, whose faults are ordered; the tracking store is a database that the job cannot reach,
so that both ends, the workspace's and ours, must come out right.
"""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.workspace.access import manager_of
from mlflow_azure_backend.workspace.finding import find_workspace
from tests.faults.checker import check_lines, check_nothing_left, check_private
from tests.faults.world import Client, World, until

POINTS = ("cluster.after_put",)
IMAGE = "mcr.microsoft.com/azureml/openmpi5.0-ubuntu24.04:latest"
SAID = b"one\ntwo\r\xc3\xa4\nthree"
COMMAND = r"printf 'one\ntwo\r\303\244\nthree'"


class Workspace:
    """The emulated workspace, and a world whose clients reach it."""

    def __init__(self, emulator: EmulatorServer, world: World) -> None:
        self.emulator = emulator
        self.world = world
        variables = emulator.environment()
        del variables["MLFLOW_TRACKING_URI"]
        world.environment |= variables
        world.canaries += [variables["AZURE_CLIENT_SECRET"]]
        self._manager = manager_of(find_workspace(None, emulator.tracking_uri, Path(), {}), variables)
        self._variables = variables

    def project(self, command: str) -> None:
        declared = {"name": "faults", "entry_points": {"main": {"command": command}}}
        self.world.write_project("", mlproject=json.dumps(declared), files={"unique": uuid.uuid4().hex})

    def run(self, config: dict[str, Any] | None = None, **variables: str) -> Client:
        asked = {"compute": "serverless", "environment": {"image": IMAGE}, **(config or {})}
        return self.world.run("-c", json.dumps(asked), **variables)

    def jobs(self) -> list[str]:
        """Names of the jobs of this world's runs."""
        ids = {run_id for run_id, _ in self.world.runs()}
        return [job["name"] for job in self._manager.get("/jobs")["value"] if job["name"] in ids]

    def ended(self) -> bool:
        """Whether the one job of this world has ended."""
        (name,) = self.jobs()
        return self._manager.get(f"/jobs/{name}")["properties"]["status"] in ("Completed", "Failed", "Canceled")

    def check(self, *, status: str, jobs: int = 1, says: tuple[str, ...] | None = None) -> None:
        assert [status for _, status in self.world.runs()] == [status]
        assert len(self.jobs()) == jobs
        if status == "FINISHED":
            logs = list(self.world.store.rglob("std_log.txt"))
            assert [path.read_bytes() for path in logs] == [SAID]
        check_lines(self.world, says)
        check_nothing_left(self.world)
        check_private(self.world)


@pytest.fixture
def workspace(emulator: EmulatorServer, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    yield Workspace(emulator, world)
    emulator.clear()


@pytest.mark.always
def test_a_client_that_dies_before_it_has_the_answer_to_the_put_leaves_one_job_that_is_found(
    workspace: Workspace,
) -> None:
    workspace.project(COMMAND)
    client = workspace.run(MLFLOW_AZURE_FAULT="cluster.after_put:kill")
    assert client.wait() == -signal.SIGKILL
    until(workspace.ended)
    assert workspace.world.start("mlflow-azure", "sync").wait() == 0
    workspace.check(status="FINISHED")


def test_our_own_mistake_after_the_put_ends_the_job(workspace: Workspace) -> None:
    workspace.project("sleep 600")
    client = workspace.run(MLFLOW_AZURE_FAULT="cluster.after_put:raise")
    assert client.wait() == 1
    until(workspace.ended)
    workspace.check(status="KILLED", says=("fault ordered at cluster.after_put",))


def test_a_client_that_dies_before_the_put_leaves_no_job_and_an_ended_run(workspace: Workspace) -> None:
    workspace.project(COMMAND)
    assert workspace.run(MLFLOW_AZURE_FAULT="launching.after_handle:kill").wait() == -signal.SIGKILL
    assert workspace.world.start("mlflow-azure", "sync").wait() == 0
    workspace.check(status="FAILED", jobs=0)


def test_the_log_is_whole_over_both_sessions_of_a_follow_that_was_killed(workspace: Workspace) -> None:
    workspace.project(f"{COMMAND}; sleep 2")
    assert workspace.run(MLFLOW_AZURE_FAULT="submitted_run.streaming:kill").wait() == -signal.SIGKILL
    ((run_id, _),) = workspace.world.runs()
    attached = workspace.world.start("mlflow-azure", "attach", run_id)
    assert attached.wait() == 0, attached.err
    assert attached.out == SAID
    workspace.check(status="FINISHED")


ROUTES = {
    "the job": {"operation": "Jobs_CreateOrUpdate"},
    "its details": {"operation": "Runs_GetDetails*"},
    "the code": {"operation": "CodeVersions_*"},
    "the environment": {"operation": "EnvironmentVersions_*"},
    "the workspace": {"operation": "Workspaces_Get"},
    "writing a file": {"host": "*.blob.core.windows.net", "method": "PUT"},
    "reading the log": {"host": "*.blob.core.windows.net", "method": "GET"},
}
FAULTS: dict[str, dict[str, Any]] = {
    "busy": {"kind": "status", "status": 503, "times": 3},
    "throttled": {"kind": "status", "status": 429, "retry_after": 1, "times": 2},
    "lost answer": {"kind": "reset-after", "times": 1},
    "lost request": {"kind": "reset-before", "times": 2},
    "cut answer": {"kind": "truncated", "times": 1},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("route", ROUTES)
def test_a_service_that_errs_for_a_while_costs_time_only(workspace: Workspace, route: str, fault: str) -> None:
    workspace.project(COMMAND)
    workspace.emulator.fault(**FAULTS[fault], **ROUTES[route])
    client = workspace.run()
    assert client.wait() == 0, client.err
    assert client.out == SAID
    workspace.check(status="FINISHED")


@pytest.mark.always
def test_an_answer_to_the_put_that_is_lost_makes_no_second_job(workspace: Workspace) -> None:
    workspace.project(COMMAND)
    workspace.emulator.fault("reset-after", operation="Jobs_CreateOrUpdate", times=1)
    client = workspace.run()
    assert client.wait() == 0, client.err
    workspace.check(status="FINISHED")


@pytest.mark.always
def test_who_looks_while_the_job_is_being_put_does_not_take_it_for_lost(workspace: Workspace) -> None:
    workspace.project(COMMAND)
    number = workspace.emulator.fault("status", status=503, operation="Jobs_CreateOrUpdate", times=None)
    client = workspace.run()
    until(lambda: any(fault["struck"] for fault in workspace.emulator.faults()))
    ((run_id, _),) = workspace.world.runs()
    looked = workspace.world.start("mlflow-azure", "status", run_id)
    assert looked.wait() == 0, looked.err
    workspace.emulator.clear(number)
    assert client.wait() == 0, client.err
    assert client.out == SAID
    workspace.check(status="FINISHED")


@pytest.mark.parametrize("operation", ["Jobs_CreateOrUpdate", "Runs_GetDetails*"])
def test_a_token_that_ends_is_renewed_once(workspace: Workspace, operation: str) -> None:
    workspace.project(COMMAND)
    workspace.emulator.fault("expired-token", operation=operation, times=1)
    client = workspace.run()
    assert client.wait() == 0, client.err
    workspace.check(status="FINISHED")


def test_one_submission_id_from_four_processes_at_once_is_one_job(workspace: Workspace) -> None:
    workspace.project(COMMAND)
    clients = [workspace.run({"submission_id": "mine"}) for _ in range(4)]
    assert [client.wait() for client in clients] == [0] * 4, [client.err for client in clients]
    workspace.check(status="FINISHED")


def test_a_refused_submission_leaves_nothing_that_is_paid_for(workspace: Workspace) -> None:
    workspace.project(COMMAND)
    workspace.emulator.fault("forbidden", operation="Jobs_CreateOrUpdate", times=None)
    client = workspace.run()
    assert client.wait() == 1
    assert "ask for a role on the workspace" in client.err
    workspace.emulator.clear()
    workspace.check(status="FAILED", jobs=0, says=("403",))
