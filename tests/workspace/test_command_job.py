"""The job as ``az ml`` reads it and as the REST API takes it: azure-ai-ml itself is the measure of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import isodate
import pytest
import yaml

from mlflow_azure_backend.command_job import CommandJob, JobData
from mlflow_azure_backend.config import load_config

pytestmark = pytest.mark.filterwarnings("ignore")  # of azure-ai-ml's own about itself

WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
CODE = f"{WORKSPACE}/codes/c/versions/1"
ENVIRONMENT = f"{WORKSPACE}/environments/e/versions/1"
DATA = "azureml://datastores/workspaceblobstore/paths/train/"

CONFIGS: dict[str, dict[str, Any]] = {
    "serverless": {"compute": "serverless"},
    "pytorch": {
        "compute": "gpu",
        "resources": {"instance_count": 2, "shm_size": "2g", "docker_args": "--ipc host"},
        "distribution": {"type": "pytorch", "process_count_per_instance": 4},
        "timeout": "1h30m",
    },
    "mpi": {"compute": "cpu", "resources": {"instance_count": 3}, "distribution": {"type": "mpi"}},
    "tensorflow": {
        "compute": "cpu",
        "resources": {"instance_count": 2},
        "distribution": {"type": "tensorflow", "worker_count": 2, "parameter_server_count": 1},
    },
    "spot": {
        "compute": "serverless",
        "resources": {"instance_type": "Standard_DS3_v2"},
        "queue_settings": {"job_tier": "spot"},
    },
    "managed": {"compute": "cpu", "identity": {"type": "managed", "client_id": "11111111-1111-1111-1111-111111111111"}},
    "user": {"compute": "cpu", "identity": {"type": "user_identity"}},
    "services": {"compute": "cpu", "services": {"lab": {"type": "jupyter_lab"}, "code": {"type": "vs_code"}}},
}


def job_of(config: dict[str, Any]) -> CommandJob:
    loaded = load_config(config, project_folder=None, environ={}).config
    assert loaded is not None
    return CommandJob(
        command="python3 train.py ${{inputs.train}}",
        code=CODE,
        environment=ENVIRONMENT,
        experiment_name="exp",
        display_name="shown",
        compute=config["compute"],
        config=loaded,
        inputs={"train": JobData("uri_folder", DATA, "download")},
        outputs={"kept": JobData("uri_folder", DATA, "rw_mount"), "free": JobData("uri_folder", None)},
        environment_variables={"A": "1"},
        tags={"team": "vision"},
    )


def without_nothing(value: Any) -> Any:
    """Without what is null or empty, at any depth: to the service it is as if it were not there."""
    if isinstance(value, dict):
        kept = {key: without_nothing(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one not in (None, {}, [])}
    return value


@pytest.mark.parametrize("name", CONFIGS)
def test_the_body_is_what_azure_ai_ml_sends_for_the_same_yaml(name: str, tmp_path: Path) -> None:
    from azure.ai.ml import load_job

    job = job_of(CONFIGS[name])
    file = tmp_path / "job.yml"
    compute = None if job.compute == "serverless" else f"azureml:{WORKSPACE}/computes/{job.compute}"
    told = {**job.for_az(), **({} if compute is None else {"compute": compute})}
    file.write_text(yaml.safe_dump({**told, "code": f"azureml:{CODE}", "environment": f"azureml:{ENVIRONMENT}"}))
    loaded: Any = load_job(file)
    loaded.code, loaded.environment = CODE, ENVIRONMENT  # as MLClient resolves them before it sends
    if compute is not None:
        loaded.compute = compute.removeprefix("azureml:")
    theirs: dict[str, Any] = without_nothing(loaded._to_job()._to_rest_object().as_dict()["properties"])
    ours = without_nothing(job.for_rest(WORKSPACE)["properties"])
    for limits in (ours.get("limits"), theirs.get("limits")):
        if limits is not None:
            limits["timeout"] = isodate.parse_duration(limits["timeout"])
    assert ours == {key: value for key, value in theirs.items() if key not in ("properties", "isArchived")}


def test_plan_prints_what_az_ml_reads(nasty_path: Path) -> None:
    """The whole way from a project to YAML that azure-ai-ml takes, without anybody being asked."""
    from azure.ai.ml import load_job

    project = nasty_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "MLproject").write_text(
        "name: p\nentry_points:\n  main:\n    parameters:\n"
        "      data: {type: path, default: data}\n      text: string\n    command: python train.py {data} {text}\n"
    )
    (project / "train.py").write_text("")
    (project / "data" / "a.csv").write_text("1\n")
    variables = {f"AZUREML_ARM_{name}": "x" for name in ("SUBSCRIPTION", "RESOURCEGROUP", "WORKSPACE_NAME")}
    environ = {**os.environ, **variables, "HTTPS_PROXY": "http://127.0.0.1:9"}  # whoever asked would be heard
    environ.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-c", "from mlflow_azure_backend.cli import main; main()", "plan", str(project)]
    done = subprocess.run(
        [*command, "-c", '{"compute": "gpu", "environment": "azureml:e@latest"}', "-P", "text=it's ${{x}}", "--json"],
        env=environ,
        cwd=nasty_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["job"]
    assert "${{inputs.data}}" in told["command"]
    assert "${{x}}" not in told["command"]
    assert told["inputs"]["data"] == {"type": "uri_folder", "path": str(project / "data")}
    file = nasty_path / "job.yml"
    file.write_text(yaml.safe_dump(told))
    loaded: Any = load_job(file)
    assert loaded.compute == "gpu"
