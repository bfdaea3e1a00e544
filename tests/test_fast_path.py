"""What a run on this machine may import: the rest would make every run wait for what it does not need."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import Write

PROGRAM = """
import sys
from importlib.metadata import entry_points
import mlflow.projects

(point,) = entry_points(group="mlflow.project_backend", name="azureml")
before = set(sys.modules)
point.load()
print(sorted({name.split(".")[0] for name in set(sys.modules) - before} - {"mlflow_azure_backend"}))
print(sorted(name for name in set(sys.modules) - before if name.startswith("mlflow_azure_backend.")))
mlflow.projects.run(sys.argv[1], backend="azureml", env_manager="local", experiment_name="contract")
print(sorted({"azure", "docker", "conda_lock", "rattler", "msal"} & set(sys.modules)))
"""


def test_a_run_on_this_machine_imports_no_clients_of_others(store: str, write_project: Write) -> None:
    project = write_project({"MLproject": "name: p\nentry_points:\n  main:\n    command: 'true'\n"})
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM, project], text=True, stdout=subprocess.PIPE)
    assert done.returncode == 0
    foreign, ours, clients = done.stdout.splitlines()
    assert foreign == "[]"
    assert ours == "['mlflow_azure_backend.backend', 'mlflow_azure_backend.errors']"
    assert clients == "[]"
