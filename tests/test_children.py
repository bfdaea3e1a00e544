"""Runs that a job starts belong to the run of that job, through our backend when it is asked for, and end with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from mlflow_azure_backend.delegate import PYTHON_VARIABLE
from mlflow_azure_backend.environment.lock import EnvironmentLock, LockedPackage
from mlflow_azure_backend.environment.plugin import with_plugin

Write = Callable[[Mapping[str, str]], Path]
OURS = str(Path(sys.executable).parent / "mlflow-azure")
SAMPLE = Path(__file__).parent.parent / "sample_projects" / "multi_step"
LOCK = EnvironmentLock("python", "", "3.11.7", "cpython", (LockedPackage("mlflow-skinny", "3.0"),), "")
STEP = '  step:\n    command: "echo in the step; sleep ${{SECONDS_OF_STEP:-0}}"\n'
ENVIRONMENT = {"python_env.yaml": "dependencies: [mlflow-skinny, sqlalchemy, alembic]\n"}


def project(program: str) -> dict[str, str]:
    """A project whose main program runs the step of the same project."""
    return {"MLproject": f"entry_points:\n  main:\n    command: python main.py\n{STEP}", "main.py": program}


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([OURS, *arguments], capture_output=True, text=True, timeout=250)


def family() -> tuple[Run, list[Run]]:
    """The run that nobody started but us, and its children in the order of their making."""
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("contract").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1
    return parent, sorted(children, key=lambda run: run.info.start_time)


@pytest.mark.parametrize("backend", ["local", "azureml"])
def test_the_steps_of_an_unmodified_project_are_children(store: str, backend: str) -> None:
    done = ask(
        *("run", str(SAMPLE), "--experiment-name", "contract", "--env-manager", "local", "-P", f"backend={backend}")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parent, (prepared, trained) = family()
    assert [run.info.status for run in (parent, prepared, trained)] == ["FINISHED"] * 3
    assert parent.data.metrics == trained.data.metrics == {"r2": pytest.approx(0.5016, abs=1e-3)}
    assert prepared.data.metrics == {"patients": 442}
    assert prepared.info.run_id in trained.data.params["patients"]
    assert prepared.data.tags["mlflow.project.backend"] == backend


@pytest.mark.package_index
def test_the_steps_reach_our_backend_from_an_environment_without_it(store: str) -> None:
    done = ask("run", str(SAMPLE), "--experiment-name", "contract", "-P", "backend=azureml")
    assert done.returncode == 0, done.stdout + done.stderr
    parent, children = family()
    assert [run.info.run_name for run in children] == ["prepare", "train"]
    for run in (parent, *children):
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow_azure.environment"] == parent.data.tags["mlflow_azure.environment"]
    logs = ask("logs", parent.info.run_id).stdout
    assert "442 patients" in logs


def test_a_program_that_has_joined_no_run_is_a_parent_all_the_same(store: str, write_project: Write) -> None:
    program = "import mlflow\nmlflow.projects.run('.', 'step', backend='azureml', env_manager='local')\n"
    done = ask("run", str(write_project(project(program))), "--experiment-name", "contract")
    assert done.returncode == 0, done.stdout + done.stderr
    _, (step,) = family()
    assert step.info.status == "FINISHED"


@pytest.mark.package_index
def test_a_mistake_and_a_failure_reach_the_program_through_the_delegate(store: str, write_project: Write) -> None:
    program = """import mlflow
for entry_point in ("stpe", "fail"):
    try:
        mlflow.projects.run(".", entry_point, backend="azureml", env_manager="local")
    except mlflow.exceptions.ExecutionException as error:
        print("caught:", error)
submitted = mlflow.projects.run(".", "step", backend="azureml", env_manager="local", synchronous=False)
print(submitted.wait(), submitted.get_status())
"""
    files = project(program)
    files["MLproject"] = "python_env: python_env.yaml\n" + files["MLproject"] + "  fail:\n    command: exit 7\n"
    done = ask("run", str(write_project({**files, **ENVIRONMENT})), "--experiment-name", "contract")
    assert done.returncode == 0, done.stdout + done.stderr
    caught = [line for line in done.stdout.splitlines() if line.startswith("caught:")]
    assert "stpe" in caught[0]
    assert "failed" in caught[1]
    assert "True FINISHED" in done.stdout
    _, (failed, step) = family()
    assert (failed.info.status, step.info.status) == ("FAILED", "FINISHED")
    assert failed.data.tags["mlflow_azure.exit_code"] == "7"


def interrupt_in_the_step(folder: Path) -> None:
    """Run a project, and interrupt it when its step runs."""
    environment = {**os.environ, "SECONDS_OF_STEP": "600"}
    command = [OURS, "run", str(folder), "--experiment-name", "contract"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as client:
        assert client.stdout is not None
        assert b"in the step\n" in client.stdout
        # As Ctrl-C, which a test that itself runs in the background could not send: there it is ignored.
        client.send_signal(signal.SIGTERM)
        client.stdout.read()
    assert client.returncode == 130


def is_alive(run: Run, home: Path) -> bool:
    key = (home / "ids" / run.info.run_id).read_text()
    supervisor = json.loads((home / "runs" / key / "supervisor.json").read_text())
    return Path(f"/proc/{supervisor['child_pid']}").exists()


def test_an_interruption_ends_the_whole_tree(store: str, home: Path, write_project: Write) -> None:
    program = "import mlflow\nmlflow.projects.run('.', 'step', backend='azureml', env_manager='local')\n"
    interrupt_in_the_step(write_project(project(program)))
    parent, (step,) = family()
    assert (parent.info.status, step.info.status) == ("KILLED", "KILLED")
    assert not is_alive(parent, home)
    assert not is_alive(step, home)


@pytest.mark.package_index
def test_an_interruption_ends_the_whole_tree_through_the_delegate(store: str, home: Path, write_project: Write) -> None:
    program = "import mlflow\nmlflow.projects.run('.', 'step', backend='azureml', env_manager='local')\n"
    files = project(program)
    files["MLproject"] = "python_env: python_env.yaml\n" + files["MLproject"]
    interrupt_in_the_step(write_project({**files, **ENVIRONMENT}))
    parent, (step,) = family()
    assert (parent.info.status, step.info.status) == ("KILLED", "KILLED")
    assert not is_alive(step, home)


def test_the_plugin_comes_last_and_once(tmp_path: Path) -> None:
    variables = {"PYTHONPATH": f"mine{os.pathsep}yours", "PATH": "/bin"}
    once = with_plugin(variables, LOCK, cache=tmp_path / "cache")
    *before, plugin = once["PYTHONPATH"].split(os.pathsep)
    assert before == ["mine", "yours"]
    assert once["PATH"] == "/bin"
    assert once[PYTHON_VARIABLE] == sys.executable
    assert with_plugin(once, LOCK, cache=tmp_path / "cache") == once
    assert zipfile.ZipFile(plugin).testzip() is None
    whole = Path(plugin).read_bytes()
    Path(plugin).write_bytes(whole[:100])
    with_plugin(variables, LOCK, cache=tmp_path / "cache")
    assert Path(plugin).read_bytes() == whole
    assert Path(plugin).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "lock",
    [
        replace(LOCK, kind="current"),
        replace(LOCK, packages=()),
        replace(LOCK, packages=(*LOCK.packages, LockedPackage("mlflow-azure-backend", "0.1.0"))),
    ],
)
def test_an_environment_that_has_our_package_or_no_mlflow_gets_no_plugin(tmp_path: Path, lock: EnvironmentLock) -> None:
    assert with_plugin({"PATH": "/bin"}, lock, cache=tmp_path / "cache") == {"PATH": "/bin"}
    assert not (tmp_path / "cache").exists()
