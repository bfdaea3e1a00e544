"""MLproject runs on this machine with a workspace as the tracking store: the mission page's own scenario."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import ExecutionException

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.runtime.reference import from_tracking_uri
from tests.conftest import Write

MLPROJECT = """
name: an example
entry_points:
  main:
    parameters:
      alpha: {type: float, default: 0.5}
    command: "python train.py {alpha}"
  fails:
    command: "python fail.py"
  quiet:
    command: "echo it ran"
"""
TRAIN = """
import pathlib, sys
import mlflow
print("alpha", sys.argv[1], "\\u2603")
mlflow.log_metric("loss", 1 - float(sys.argv[1]))
pathlib.Path("outputs").mkdir(exist_ok=True)
pathlib.Path("outputs/model.txt").write_text("a model")
pathlib.Path("plot.txt").write_text("a plot")
mlflow.log_artifact("plot.txt")
"""
FILES = {"MLproject": MLPROJECT, "train.py": TRAIN, "fail.py": "open('missing.csv')\n"}


@pytest.fixture
def project(write_project: Write) -> Path:
    return write_project(FILES)


def text(run: mlflow.entities.Run, path: str) -> str:
    read: str = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{path}")
    return read


def test_the_scenario_of_the_mission(
    workspace: EmulatorServer, client: MlflowClient, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mlflow.set_tracking_uri("azureml://")
    submitted = mlflow.projects.run(
        uri=str(project),
        parameters={"alpha": 0.3},
        backend="azureml",
        backend_config={"USE_CONDA": False},
        experiment_name="a mission",
    )
    assert submitted.get_status() == "FINISHED"
    run = client.get_run(submitted.run_id)
    assert run.info.status == "FINISHED"
    assert (run.data.params, run.data.metrics) == ({"alpha": "0.3"}, {"loss": 0.7})
    assert client.get_experiment(run.info.experiment_id).name == "a mission"
    assert run.data.tags["mlflow.project.backend"] == "azureml"
    paths = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert "plot.txt" in paths
    assert text(run, "outputs/model.txt") == "a model"
    page = from_tracking_uri(workspace.tracking_uri).studio_page(run.info.run_id)
    log = text(run, "logs/std_log.txt").splitlines()
    assert log[0] == "alpha 0.3 \u2603"
    assert log[1:] == [f"🏃 View run {run.info.run_name} at: {page}"]
    kept = {one.path for one in client.list_artifacts(run.info.run_id, "snapshot")}
    assert {"snapshot/snapshot.tar.zst", "snapshot/order.json"} <= kept, kept
    assert "alpha 0.3 \u2603" in capfd.readouterr().out


def test_a_printed_error_is_in_the_workspace(workspace: EmulatorServer, client: MlflowClient, project: Path) -> None:
    with pytest.raises(ExecutionException):
        mlflow.projects.run(
            str(project), "fails", backend="azureml", backend_config={"USE_CONDA": False}, experiment_name="failing"
        )
    experiment = client.get_experiment_by_name("failing")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    assert "missing.csv" in text(run, "logs/std_log.txt")


def test_the_command_line_streams_and_fails_with_the_job(
    workspace: EmulatorServer, client: MlflowClient, project: Path
) -> None:
    script = Path(sys.executable).parent / "mlflow-azure"
    environ = {**os.environ, "MLFLOW_TRACKING_URI": "azureml://"}
    argv = [str(script), "run", str(project), "--experiment-name", "by command", "-P", "alpha=0.25"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    experiment = client.get_experiment_by_name("by command")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics == {"loss": 0.75}


def test_a_workspace_that_is_away_at_the_start_or_the_end_loses_no_run(
    workspace: EmulatorServer, client: MlflowClient, project: Path, tmp_path: Path
) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        script = str(Path(sys.executable).parent / "mlflow-azure")
        environ = {**os.environ, "MLFLOW_TRACKING_URI": workspace.tracking_uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "4"}
        return subprocess.run([script, *words], env=environ, capture_output=True, text=True)

    client.search_experiments(max_results=1)  # the emulated service has loaded MLflow
    command = ("run", str(project), "-e", "quiet", "--experiment-name", "away")
    workspace.fault("status", path="*/mlflow/*", times=None)
    away = run(*command)
    assert (away.returncode, "the tracking store refused" in away.stderr, "Traceback" in away.stderr) == (
        1,
        True,
        False,
    )
    assert "it ran" not in away.stdout
    workspace.clear()
    workspace.fault("status", operation="Runs_Update", times=None)
    undelivered = run(*command)
    assert (undelivered.returncode, "mlflow-azure sync" in undelivered.stderr) == (0, True), undelivered.stderr
    workspace.clear()
    assert run("sync").returncode == 0
    experiment = client.get_experiment_by_name("away")
    assert experiment is not None
    assert [one.info.status for one in client.search_runs([experiment.experiment_id])] == ["FINISHED"]
