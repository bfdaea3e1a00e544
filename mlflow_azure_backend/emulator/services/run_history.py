"""Run history: a run with its logs' addresses, its children, its experiment, and the renewal of its token."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from mlflow_azure_backend.emulator.azure_errors import data_plane_error, not_emulated
from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.experiments import experiment_id
from mlflow_azure_backend.emulator.output_assets import outputs_in_history
from mlflow_azure_backend.emulator.routing import (
    AUDIENCE_ARM,
    AUDIENCE_ML,
    AUDIENCE_RUN,
    DATA_PLANE,
    WORKSPACE,
    Known,
    Service,
)
from mlflow_azure_backend.emulator.runs import Run, children_of, find_run, find_run_named
from mlflow_azure_backend.emulator.services.arm_workspaces import check_workspace
from mlflow_azure_backend.emulator.storage import ARTIFACTS

service = Service(
    "Run history",
    host=DATA_PLANE,
    prefix=f"/history/v1.0{WORKSPACE}",
    audiences=(AUDIENCE_ARM, AUDIENCE_ML, AUDIENCE_RUN),
)

_RUN = "recording test_pipeline_job_child_run_download: a run document complete; how it nests"
_DETAILS = "output of get_details() in a public notebook, October 2022: logFiles and the form of their addresses"
_DETAILS_RISK = (
    "when a log first appears, how far behind the process its blob is, and the names of the logs of later attempts are "
    "inferred: a client must read every log that is listed, also one that appears late, and read on after the job's end"
)
_CLIENT = "azureml-mlflow 1.62 and azure-ai-ml 1.35 as they ask and what they read"
_PATHS = {
    "": "/runs/{run}",
    "ByExperimentName": "/experiments/{experiment}/runs/{run}",
    "ByExperimentId": "/experimentids/{experiment_id}/runs/{run}",
}
_MODIFIED = {
    "hidden": "isArchived",
    "displayName": "displayName",
    "description": "description",
    "tags": "tags",
    "properties": "properties",
}
"""What of a run can be changed, and what that is of its job."""
_LOG_FOLDERS = ("user_logs/", "system_logs/", "logs/", "azureml-logs/")


async def get_run(call: Call) -> Answer:
    """A run."""
    check_workspace(call)
    return Answer(_document(await find_run(call)))


async def get_details(call: Call) -> Answer:
    """A run with addresses to read its logs; each log has a signature of its own that only reads."""
    check_workspace(call)
    run = await find_run(call)
    folder = f"ExperimentRun/dcid.{run.name}/"
    storage = call.world.storage
    names = [name.removeprefix(folder) async for name, _ in storage.names(ARTIFACTS, folder)]
    logs = {name: storage.signed_url(ARTIFACTS, folder + name) for name in names if name.startswith(_LOG_FOLDERS)}
    shared = {key: value for key, value in _document(run).items() if key not in _NOT_IN_DETAILS}
    return Answer({**shared, "createdTimeUtc": _instant(run.created), "logFiles": logs, "jobCost": None})


async def get_children(call: Call) -> Answer:
    """The runs whose ``mlflow.parentRunId`` is this run."""
    check_workspace(call)
    runs = await children_of(call, await find_run(call))
    return Answer({"value": [_document(run) for run in runs], "continuationToken": None, "nextLink": None})


async def get_token(call: Call) -> Answer:
    """A new token for a run's code, for what bears the old one while it holds."""
    check_workspace(call)
    run = await find_run(call)
    lifetime = timedelta(seconds=call.world.settings.run_token_lifetime)
    text, expires = call.world.tokens.issue(AUDIENCE_RUN, lifetime, run_id=run.name)
    ends = datetime.fromtimestamp(expires, tz=call.world.clock.now().tzinfo)
    return Answer({"token": text, "expiryTimeUtc": ends.isoformat()})


for _suffix, _path in _PATHS.items():
    service.operation(f"Runs_Get{_suffix}", "GET", _path, known=Known.RECORDED, source=_RUN)(get_run)
    service.operation(
        f"Runs_GetDetails{_suffix}",
        "GET",
        f"{_path}/details",
        known=Known.RECORDED,
        source=_DETAILS,
        risk="" if _suffix else _DETAILS_RISK,
    )(get_details)
    service.operation(f"Runs_GetChild{_suffix}", "GET", f"{_path}/children", known=Known.RECORDED, source=_RUN)(
        get_children
    )
    if _suffix:
        service.operation(f"Run_GetToken{_suffix}", "GET", f"{_path}/token", known=Known.SPECIFIED, source=_CLIENT)(
            get_token
        )


@service.operation(
    "Runs_AddOrModifyByExperimentName",
    "PATCH",
    _PATHS["ByExperimentName"],
    known=Known.SPECIFIED,
    source="azure-ai-ml 1.35, _restclient/runhistory; azure-sdk-for-python#47819: tags and properties are merged",
)
async def modify_run(call: Call) -> Answer:
    """Change what people read of a job's run, which is the job's as well; ``hidden`` archives it."""
    check_workspace(call)
    await find_run(call)
    job, asked = call.world.jobs.get(call.path["run"]), call.body if isinstance(call.body, Mapping) else {}
    if job is None or set(asked) - {*_MODIFIED, "runId"}:
        what = "of a run that is no job's" if job is None else f"of {min(set(asked) - set(_MODIFIED))}"
        raise not_emulated(call.request.method, call.request.host, call.request.path, f"{what} is not emulated")
    for key, value in asked.items():
        if key in _MODIFIED and value is not None:
            name = _MODIFIED[key]
            job.properties[name] = {**job.properties[name], **value} if isinstance(value, Mapping) else value
    call.world.jobs.add(job)
    return Answer(_document(await find_run(call)))


@service.operation("Runs_GetRunData", "POST", "/rundata", known=Known.RECORDED, source=_RUN)
async def get_run_data(call: Call) -> Answer:
    """A run with what it was defined by; clients find the named outputs of a job here."""
    check_workspace(call)
    name = (call.body or {}).get("runId")
    if not name:
        raise data_plane_error(400, "The RunId field is required.", "BadArgument")
    run = await find_run_named(call, name)
    job = call.world.jobs.get(run.name)
    outputs = {} if job is None else outputs_in_history(call.world.settings, job)
    metadata = {**_document(run), "outputs": outputs}
    return Answer({"runMetadata": metadata, "runDefinition": None, "jobSpecification": None, "systemSettings": None})


@service.operation(
    "Experiments_GetByNameInHistory", "GET", "/experiments/{experiment}", known=Known.SPECIFIED, source=_CLIENT
)
@service.operation(
    "Experiments_GetByIdInHistory", "GET", "/experimentids/{experiment_id}", known=Known.SPECIFIED, source=_CLIENT
)
async def get_experiment(call: Call) -> Answer:
    """An experiment, by its name or its id."""
    check_workspace(call)
    wanted = call.path.get("experiment_id") or str(experiment_id(call.path["experiment"]))
    reply = await call.world.tracking.ask("GET", "/api/2.0/mlflow/experiments/get", query=f"experiment_id={wanted}")
    if reply.status != 200:
        message = f"Experiment {call.path.get('experiment', wanted)} was not found"
        raise data_plane_error(404, message, "NotFoundError")
    told = reply.json()["experiment"]
    return Answer(
        {
            "experimentId": told["experiment_id"],
            "name": told["name"],
            "description": None,
            "createdUtc": _instant(datetime.fromtimestamp(int(told["creation_time"]) / 1000, timezone.utc)),
            "tags": {one["key"]: one["value"] for one in told.get("tags", [])},
            "archivedTime": None,
            "retainForLifetimeOfWorkspace": False,
            "artifactLocation": told["artifact_location"],
        }
    )


_NOT_IN_DETAILS = {
    "createdUtc",
    "token",
    "tokenExpiryTimeUtc",
    "cancelationReason",
    "experimentId",
    "displayName",
    "name",
    "dataContainerId",
    "description",
    "hidden",
    "runType",
    "scriptName",
    "jobSpecification",
    "primaryMetricName",
    "inputs",
    "outputs",
}


def _document(run: Run) -> dict[str, Any]:
    duration = None if run.started is None or run.ended is None else _span(run.ended - run.started)
    return {
        "runNumber": int(run.created.timestamp()),
        "rootRunId": run.tags.get("mlflow.rootRunId", run.name),
        "createdUtc": _instant(run.created),
        "createdBy": {"userObjectId": run.user, "userName": run.user},
        "userId": run.user,
        "token": None,
        "tokenExpiryTimeUtc": None,
        "error": run.error,
        "warnings": None,
        "revision": 1,
        "statusRevision": 1,
        "runUuid": run.name,
        "lastStartTimeUtc": None,
        "currentComputeTime": None if duration else "00:00:00",
        "computeDuration": duration,
        "duration": duration,
        "cancelationReason": None,
        "currentAttemptId": None,
        "runId": run.name,
        "parentRunId": run.parent,
        "experimentId": run.experiment_id,
        "status": run.status,
        "startTimeUtc": None if run.started is None else _instant(run.started),
        "endTimeUtc": None if run.ended is None else _instant(run.ended),
        "displayName": run.display_name,
        "name": None,
        "dataContainerId": f"dcid.{run.name}",
        "description": None,
        "hidden": run.hidden,
        "runType": run.kind,
        "runTypeV2": {"orchestrator": "Execution", "traits": [], "attribution": None, "computeType": _type_of(run)},
        "properties": dict(run.properties),
        "parameters": {},
        "scriptName": None,
        "target": run.target,
        "tags": dict(run.tags),
        "settings": {},
        "services": {},
        "inputDatasets": [],
        "outputDatasets": [],
        "runDefinition": None,
        "jobSpecification": None,
        "primaryMetricName": None,
        "computeRequest": None if run.target is None else {"nodeCount": run.nodes, "gpuCount": 0},
        "compute": _compute(run),
        "inputs": None,
        "outputs": {},
    }


def _type_of(run: Run) -> str | None:
    return None if run.target is None else "AmlcTrain"


def _compute(run: Run) -> dict[str, Any] | None:
    if run.target is None:
        return None
    absent = dict.fromkeys(("vmSize", "instanceType", "priority", "region"))
    known = {"target": run.target, "targetType": "amlcompute", "instanceCount": run.nodes, "gpuCount": 0}
    return {**absent, **known}


def _instant(moment: datetime) -> str:
    return moment.isoformat()


def _span(length: timedelta) -> str:
    """A .NET TimeSpan, ``[days.]hours:minutes:seconds.fraction``, as the recordings have it."""
    minutes, seconds = divmod(length.total_seconds() % 86400, 60)
    hours, minutes = divmod(int(minutes), 60)
    days = f"{length.days}." if length.days else ""
    return f"{days}{hours:02}:{minutes:02}:{seconds:010.7f}"
