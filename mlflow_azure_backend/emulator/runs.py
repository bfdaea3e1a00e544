"""The workspace's runs: those of jobs, which the jobs decide about, and those that MLflow clients made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from mlflow_azure_backend.emulator.azure_errors import AzureError, data_plane_error
from mlflow_azure_backend.emulator.call import Call
from mlflow_azure_backend.emulator.experiments import experiment_id
from mlflow_azure_backend.emulator.jobs import Job, moment

_WORD_OF_MLFLOW = {
    "RUNNING": "Running",
    "SCHEDULED": "Queued",
    "FINISHED": "Completed",
    "FAILED": "Failed",
    "KILLED": "Canceled",
}
"""Run history's word for a status that an MLflow client wrote; inferred."""


@dataclass(frozen=True)
class Run:
    """A run as run history shows it.

    Attributes:
        name: Its id; a job's run has the job's name.
        experiment_id: A number, as text.
        display_name: What people read.
        status: One of Azure's words for a job's status.
        created: When it was made.
        started: When its code started; None: it did not.
        ended: When it came to its end; None: it did not.
        user: Who made it.
        tags: Its tags.
        properties: Its properties, which only the service sets.
        target: The compute's name; None: no compute is known.
        nodes: How many of it; 0: no compute is known.
        hidden: Whether it is archived.
        parent: The run that it is a child of; None: it is none.
        kind: Run history's ``runType``.
        error: Why it failed, in run history's form; None: it did not, or it is not known.
    """

    name: str
    experiment_id: str
    display_name: str
    status: str
    created: datetime
    started: datetime | None
    ended: datetime | None
    user: str
    tags: Mapping[str, str]
    properties: Mapping[str, str]
    target: str | None
    nodes: int
    hidden: bool
    parent: str | None
    kind: str
    error: Mapping[str, Any] | None


async def find_run(call: Call) -> Run:
    """The run that the path names, in the experiment that it names, if it names one.

    Raises:
        AzureError: 404, there is no such run.
    """
    run = await find_run_named(call, call.path["run"])
    # Clients put the id that artifact URIs carry where the path's template says name.
    wanted = call.path.get("experiment_id", call.path.get("experiment", run.experiment_id))
    if run.experiment_id not in {wanted, str(experiment_id(wanted))}:
        raise _not_found(run.name)
    return run


async def find_run_named(call: Call, name: str) -> Run:
    """The run of this name.

    Raises:
        AzureError: 404, there is no such run.
    """
    job = call.world.jobs.get(name)
    orders = call.world.orders.get(name)
    if orders is not None and orders.vanished:
        raise _not_found(name)
    if job is not None:
        return _of_job(job, (orders and orders.status) or job.status)
    query = urlencode({"run_id": name})
    reply = await call.world.tracking.ask("GET", "/api/2.0/mlflow/runs/get", query=query)
    if reply.status != 200:
        raise _not_found(name)
    return _from_mlflow(reply.json()["run"])


async def children_of(call: Call, run: Run) -> list[Run]:
    """The runs of the same experiment that say that ``run`` is their parent."""
    quoted = run.name.replace("'", "")  # no run's id has one
    asked = {
        "experiment_ids": [run.experiment_id],
        "filter": f"tags.`mlflow.parentRunId` = '{quoted}'",
        "max_results": 1000,
    }
    reply = await call.world.tracking.ask("POST", "/api/2.0/mlflow/runs/search", body=json.dumps(asked).encode())
    return [_from_mlflow(told) for told in reply.json().get("runs", [])]


def _of_job(job: Job, status: str) -> Run:
    return Run(
        name=job.name,
        experiment_id=str(experiment_id(job.experiment)),
        display_name=job.properties["displayName"],
        status=status,
        created=datetime.fromtimestamp(job.created, timezone.utc),
        started=moment(job.started),
        ended=moment(job.ended),
        user=job.user,
        tags=job.properties["tags"],
        properties=job.properties["properties"],
        target=job.compute or "serverless",
        hidden=bool(job.properties["isArchived"]),
        nodes=job.properties["resources"]["instanceCount"],
        parent=None,
        kind="azureml.scriptrun",
        error=None if job.error is None else {"error": job.error},
    )


def _from_mlflow(told: Mapping[str, Any]) -> Run:
    info = told["info"]
    tags = {one["key"]: one["value"] for one in told["data"].get("tags", [])}
    started = _moment(info.get("start_time")) or datetime.fromtimestamp(0, timezone.utc)
    return Run(
        name=info["run_id"],
        experiment_id=info["experiment_id"],
        display_name=info.get("run_name", ""),
        status=_WORD_OF_MLFLOW[info["status"]],
        created=started,
        started=started,
        ended=_moment(info.get("end_time")),
        user=info.get("user_id", ""),
        tags=tags,
        properties={},
        target=None,
        hidden=False,
        nodes=0,
        parent=tags.get("mlflow.parentRunId"),
        kind="azureml.mlflow",
        error=None,
    )


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(int(milliseconds) / 1000, timezone.utc)


def _not_found(name: str) -> AzureError:
    """Run history's words: AutoML-vNext-Preview#3."""
    return data_plane_error(404, f"Run {name} was not found", "NotFoundError")
