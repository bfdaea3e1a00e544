"""What holds on a cluster instead of what cannot hold there, and what only a cluster has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.journal import Journal, state_home
from mlflow_azure_backend.submitted_run import AzureSubmittedRun
from mlflow_azure_backend.workspace.access import manager_of
from mlflow_azure_backend.workspace.finding import find_workspace
from tests.contract.test_contract import shell

SAMPLE = Path(__file__).parents[2] / "sample_projects" / "distributed_train"
Launch = Callable[..., AzureSubmittedRun]
Write = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def compute() -> str:
    return "cluster"


def test_a_secret_is_refused_before_anything_is_sent(
    write_project: Write, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "canary-5f2e")
    folder = write_project({"MLproject": shell("true")})
    with pytest.raises(ExecutionException, match=r"cluster cannot honour secrets \(works on local and docker\)"):
        launch(folder, {"secrets": {"TOKEN": "env:CANARY"}})


def test_a_compute_that_is_not_there_is_named_with_its_nearest(
    write_project: Write, launch: Launch, emulator: EmulatorServer
) -> None:
    manager = manager_of(find_workspace(None, emulator.tracking_uri, Path(), os.environ), os.environ)
    cluster = {"computeType": "AmlCompute", "properties": {"vmSize": "Standard_DS3_v2"}}
    manager.put("/computes/cpu-cluster", {"location": "westeurope", "properties": cluster})
    folder = write_project({"MLproject": shell("true")})
    with pytest.raises(ExecutionException, match="has no compute 'cpu-clutser'; use cpu-cluster, or"):
        launch(folder, {"compute": "cpu-clutser"})


def test_in_the_workspace_the_run_is_the_job(
    write_project: Write, launch: Launch, emulator: EmulatorServer, workspace_environment: str
) -> None:
    script = "import mlflow\nwith mlflow.start_run():\n    mlflow.log_metric('m', 2)\n    mlflow.log_param('p', 1)\n"
    files = {"MLproject": shell("python train.py --a {a}", "a: {type: string, default: ä}"), "train.py": script}
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(emulator.tracking_uri)
    try:
        submitted = launch(write_project(files), {"tags": {"team": "vision"}})
        run = mlflow.get_run(submitted.run_id)
        names = [one.path for one in mlflow.MlflowClient().list_artifacts(submitted.run_id, "snapshot")]
    finally:
        mlflow.set_tracking_uri(before)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"m": 2.0}
    assert run.data.params == {"p": "1", "a": "ä"}
    assert run.data.tags["team"] == "vision"
    assert run.data.tags["mlflow.project.backend"] == "azureml"
    assert "snapshot/snapshot.tar.zst" in names


def test_what_a_job_logs_is_mirrored_into_a_store_that_it_cannot_reach(write_project: Write, launch: Launch) -> None:
    script = (
        "import mlflow\nwith mlflow.start_run():\n    [mlflow.log_metric('m', step, step=step) for step in range(5)]\n"
        "    mlflow.set_tag('t', 'v')\n    mlflow.log_text('deep', 'a folder/é.txt')\n"
    )
    submitted = launch(write_project({"MLproject": shell("python train.py"), "train.py": script}))
    client = mlflow.MlflowClient()
    assert [one.value for one in client.get_metric_history(submitted.run_id, "m")] == [0, 1, 2, 3, 4]
    assert client.get_run(submitted.run_id).data.tags["t"] == "v"
    assert mlflow.artifacts.load_text(f"runs:/{submitted.run_id}/a folder/é.txt") == "deep"


def test_code_that_has_not_changed_is_not_sent_again(
    write_project: Write, launch: Launch, emulator: EmulatorServer
) -> None:
    folder = write_project({"MLproject": shell("cat word.txt"), "word.txt": "sent once"})
    launch(folder)
    emulator.fault("status", status=500, host="*.blob.core.windows.net", method="PUT")
    try:
        submitted = launch(folder)
    finally:
        emulator.clear()
    assert "".join(submitted.logs()) == "sent once"


def test_many_files_travel_as_one_with_their_modes(write_project: Write, launch: Launch) -> None:
    files = {f"many/{number}.txt": str(number) for number in range(150)}
    folder = write_project(
        {"MLproject": shell("cat many/149.txt; ./run.sh"), "run.sh": "#!/bin/sh\necho ran\n", **files}
    )
    (folder / "run.sh").chmod(0o755)
    assert "".join(launch(folder).logs()) == "149ran\n"


def test_ctrl_c_leaves_the_job_alone_and_says_how_to_follow_it(
    write_project: Write, store: str, workspace_environment: str
) -> None:
    folder = write_project({"MLproject": shell("echo started; sleep 3; echo ended")})
    config = f'{{"compute": "serverless", "environment": "{workspace_environment}"}}'
    main = [sys.executable, "-c", "from mlflow_azure_backend.cli import main; main()"]
    with subprocess.Popen(
        [*main, "run", str(folder), "-c", config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "started\n"
        client.send_signal(2)
        _, said = client.communicate(timeout=60)
    assert client.returncode != 0
    assert "goes on; follow it with `mlflow-azure attach" in said
    assert "end it with `mlflow-azure cancel" in said
    listed = subprocess.run([*main, "list", "--json"], capture_output=True, text=True, check=True)
    run_id = json.loads(listed.stdout)[0]["run_id"]
    attached = subprocess.run([*main, "attach", run_id], capture_output=True, text=True, check=False)
    assert (attached.returncode, attached.stdout) == (0, "started\nended\n")


def test_another_machine_that_reaches_the_workspace_can_follow_and_cancel_a_job(
    write_project: Write, launch: Launch, emulator: EmulatorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = launch(write_project({"MLproject": shell("echo started; sleep 600")}), synchronous=False)
    assert next(submitted.logs(follow=True)) == "started\n"
    monkeypatch.setenv("MLFLOW_AZURE_HOME", str(tmp_path / "another machine"))
    main = [sys.executable, "-c", "from mlflow_azure_backend.cli import main; main()"]
    said = subprocess.run([*main, "logs", submitted.run_id], capture_output=True, text=True, check=False)
    assert said.stdout == "started\n", said.stderr
    cancelled = subprocess.run([*main, "cancel", submitted.run_id], capture_output=True, text=True, check=False)
    assert f"run {submitted.run_id} is KILLED" in cancelled.stderr
    nobody = subprocess.run([*main, "status", "0123456789abcdef"], capture_output=True, text=True, check=False)
    assert nobody.returncode == 1
    assert "no run '0123456789abcdef' was started from here" in nobody.stderr
    assert submitted.wait() is False


def test_two_nodes_train_together_and_their_lines_are_told_apart(
    launch: Launch, emulator: EmulatorServer, workspace_environment: str
) -> None:
    manager = manager_of(find_workspace(None, emulator.tracking_uri, Path(), os.environ), os.environ)
    scale = {"minNodeCount": 0, "maxNodeCount": 2, "nodeIdleTimeBeforeScaleDown": "PT120S"}
    cluster = {"computeType": "AmlCompute", "properties": {"vmSize": "Standard_DS3_v2", "scaleSettings": scale}}
    manager.put("/computes/two-nodes", {"location": "westeurope", "properties": cluster})
    config = json.loads((SAMPLE / "cluster.json").read_text())
    submitted = launch(SAMPLE, {**config, "compute": "two-nodes"})
    lines = "".join(submitted.logs()).splitlines()
    assert {"[rank 0] rank 0 of 2", "[rank 1] rank 1 of 2"} <= set(lines)
    metrics = mlflow.get_run(submitted.run_id).data.metrics
    assert metrics["world_size"] == 2
    assert metrics["loss"] < 1


def test_a_job_that_is_refused_in_its_own_workspace_leaves_nothing_anywhere(
    write_project: Write,
    launch: Launch,
    emulator: EmulatorServer,
    workspace_environment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_project({"MLproject": shell("true")})
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(emulator.tracking_uri)
    emulator.fault("status", status=400, operation="Jobs_CreateOrUpdate")
    try:
        with pytest.raises(ExecutionException, match="400"):
            launch(folder)
    finally:
        emulator.clear()
        mlflow.set_tracking_uri(before)
    assert list(here.iterdir()) == []
    assert Journal(state_home(os.environ)).active() == []


def test_a_list_of_runs_whose_workspace_does_not_answer_says_so_once(
    write_project: Write, launch: Launch, emulator: EmulatorServer
) -> None:
    folder = write_project({"MLproject": shell("sleep 600")})
    submitted = [launch(folder, synchronous=False) for _ in range(2)]
    emulator.fault("status", status=403, operation="Runs_GetDetails*", times=None)
    try:
        main = [sys.executable, "-c", "from mlflow_azure_backend.cli import main; main()"]
        listed = subprocess.run([*main, "list"], capture_output=True, text=True, check=True)
    finally:
        emulator.clear()
        for one in submitted:
            one.cancel()
    assert [line.split()[2] for line in listed.stdout.splitlines()] == ["STATUS", "UNKNOWN", "UNKNOWN"]
    assert listed.stderr.count("Forbidden") == 1
