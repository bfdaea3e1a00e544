"""A process that submits a folder as a job of a workspace: by us, or by azure-ai-ml.

Reads a folder as a line of JSON; answers each with the seconds that the submission took on the clock and on the processor.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import uuid
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
IMAGE = "mcr.microsoft.com/azureml/openmpi5.0-ubuntu24.04:latest"


def ours(folder: str) -> None:
    """From the project's folder to the service's answer, as a run does it, but for the run in a tracking store."""
    order = Order(folder, "main", None, {}, {"compute": "serverless", "environment": {"image": IMAGE}}, Path.cwd())
    with tempfile.TemporaryDirectory() as checkout:
        request = plan_job(order, uuid.uuid4().hex, Path(checkout) / "c", os.environ, Silence())
    prepared = prepare_job(request, os.environ, lambda _: None)
    assert prepared.command_job is not None
    assert prepared.workspace is not None
    body = replace(prepared.command_job, experiment_name="bench").for_rest(prepared.workspace.arm_id)
    put_job(manager_of(prepared.workspace, os.environ), uuid.uuid4().hex, body)


def theirs(folder: str) -> None:
    """What `az ml job create` does."""
    client.jobs.create_or_update(
        command(code=folder, command="true", environment=Environment(image=IMAGE), experiment_name="bench")
    )


if sys.argv[1] == "ours":
    from dataclasses import replace

    from mlflow_azure_backend.compute.cluster_job import prepare_job
    from mlflow_azure_backend.planning import Order, Silence, plan_job
    from mlflow_azure_backend.workspace.access import manager_of
    from mlflow_azure_backend.workspace.jobs import put_job

    submit = ours
else:
    from azure.ai.ml import MLClient, command
    from azure.ai.ml.entities import Environment
    from azure.identity import DefaultAzureCredential

    client = MLClient.from_config(DefaultAzureCredential(), path=sys.argv[2])
    submit = theirs

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # azure-ai-ml prints a progress bar
for line in sys.stdin:
    asked = json.loads(line)
    wall, cpu = time.perf_counter(), time.process_time()
    submit(asked)
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), file=answers, flush=True)
