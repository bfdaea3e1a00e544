"""Jobs: created under a name that makes repeats safe, shown, listed and cancelled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlflow_azure_backend.emulator import long_running
from mlflow_azure_backend.emulator.azure_errors import not_emulated, user_error
from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.execution import Execution
from mlflow_azure_backend.emulator.jobs import Job, moment
from mlflow_azure_backend.emulator.routing import ARM, AUDIENCE_ARM, WORKSPACE, Known, Service
from mlflow_azure_backend.emulator.services import computes
from mlflow_azure_backend.emulator.services.arm_workspaces import ML_API_VERSIONS, check_workspace
from mlflow_azure_backend.emulator.specification import JOB

service = Service("Jobs", host=ARM, audiences=(AUDIENCE_ARM,), prefix=WORKSPACE, api_versions=ML_API_VERSIONS)

_PUT = (
    "recordings test_command_job_register_output (2022-12-01-preview); bodies of the 2024-01 and 2025-01 previews from "
    "azure-ai-ml 1.35; the refusal of a used name from azure-docs#122250 and azure-sdk-for-python#47389"
)
_PUT_RISK = (
    "the refusal of a used name was seen for pipelines: which names it gives to the fields of a command job, and which "
    "differences it passes over, is inferred. A client must read from the job itself whether it is its own"
)
_GET = "recordings test_command_job_register_output and test_command_job_local (the error)"
_GET_RISK = (
    "the order of the statuses, and what a status is after a preemption or a lost node, is inferred: a client must "
    "take an unknown word, and any order, for a job that goes on"
)
_CANCEL = (
    "azure-ai-ml 1.35 as it polls; specification 2024-10-01, Jobs_Cancel: 200, or 202 with Location and Retry-After"
)
_CANCEL_RISK = (
    "no recording of a cancel is known: whether there is an Azure-AsyncOperation header, what the operation ends with, "
    "how long CancelRequested lasts, and what is answered for a job that is over, may be otherwise. A client must "
    "take any success and then read the job's status"
)
_MAY_CHANGE = {"description", "tags", "displayName", "properties", "isArchived"}
_ABSENT = (
    "description",
    "computeId",
    "identity",
    "componentId",
    "codeId",
    "distribution",
    "autologgerSettings",
    "limits",
    "queueSettings",
)
_EXPERIMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}")


def _find(call: Call) -> Job:
    job = call.world.jobs.get(call.path["name"])
    if job is None:
        raise user_error(404, "Job {jobId} not found.", "NotFound", "JobNotFound", jobId=call.path["name"])
    return job


def _shown(call: Call, job: Job) -> dict[str, Any]:
    """The resource."""
    created = moment(job.created)
    return {
        "id": f"{call.world.settings.workspace}/jobs/{job.name}",
        "name": job.name,
        "type": "Microsoft.MachineLearningServices/workspaces/jobs",
        "properties": {**job.properties, "status": call.world.orders_for(job.name).status or job.status},
        "systemData": {
            "createdAt": None if created is None else created.isoformat(),
            "createdBy": job.user,
            "createdByType": "Application",
        },
    }


def _properties(call: Call, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What was asked for with what the service adds."""
    settings = call.world.settings
    group = f"/subscriptions/{settings.subscription_id}/resourcegroups/{settings.resource_group}"
    wsid = f"{group}/workspaces/{settings.workspace_name}"
    nothing = {"port": None, "status": None, "errorMessage": None, "properties": None, "nodes": None}
    services = {
        "Tracking": {"jobServiceType": "Tracking", "endpoint": f"{settings.tracking_uri}?", **nothing},
        "Studio": {"jobServiceType": "Studio", "endpoint": f"https://ml.azure.com/runs/{name}?wsid={wsid}", **nothing},
    }
    folder = {**dict.fromkeys(("description", "uri", "assetName", "assetVersion")), "mode": "ReadWriteMount"}
    default = {
        **folder,
        "uri": f"azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.{name}",
        "jobOutputType": "uri_folder",
    }
    absent = dict.fromkeys(_ABSENT)
    given = _given(asked)
    resources = {"instanceCount": 1, "instanceType": None, "properties": None, "shmSize": "2g", "dockerArgs": None}
    return {
        **absent,
        "experimentName": "Default",
        "displayName": name,
        "isArchived": False,
        "environmentVariables": {},
        "inputs": {},
        "parameters": {},
        **given,
        "tags": given.get("tags") or {},
        "properties": {**(given.get("properties") or {}), "_azureml.ComputeTargetType": "amlctrain"},
        "services": {**services, **(given.get("services") or {})},
        "outputs": {
            **{key: {**folder, **_given(one)} for key, one in _given(given.get("outputs") or {}).items()},
            "default": default,
        },
        "resources": {**resources, **_given(given.get("resources") or {})},
    }


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return value


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in asked.items() if value is not None}


def _check(call: Call, asked: dict[str, Any]) -> None:
    experiment = asked.get("experimentName") or "Default"
    if not _EXPERIMENT.fullmatch(experiment):
        words = (
            "Experiment name must be 1-256 characters, start with a letter or a number, and can only contain letters, "
            "numbers, underscores, and dashes."
        )
        raise user_error(400, words, "BadArgument")
    resources = _given(asked.get("resources") or {})
    if "IsLocal" in resources.get("properties", {}):  # recording test_command_job_local
        why = 'asks for compute "local", which is not emulated'
        raise not_emulated(call.request.method, call.request.host, call.request.path, why)
    nodes = resources.get("instanceCount", 1)
    if nodes < 1:
        raise user_error(400, "The instance count {nodes} must be at least 1.", "BadArgument", nodes=str(nodes))
    if asked.get("computeId"):
        computes.check_job(call, asked["computeId"], nodes)


def _update(call: Call, job: Job, asked: dict[str, Any]) -> Job:
    """The job with what may be changed of it; tags and properties are added to those that it has.

    What is refused and how it is said is from azure-docs#122250 and azure-sdk-for-python#47389, where the fields of a
    pipeline are named; that tags are merged from azure-sdk-for-python#30671.

    Raises:
        AzureError: 400, something else is not as it was.
    """
    # A client that sends back what it was shown, as archiving does, leaves out what is null.
    known = [_without_nulls(one) for one in (job.asked, job.properties)]
    new = _without_nulls(asked)
    changed = [
        key
        for key in {*job.asked, *asked} - _MAY_CHANGE - {"status"}
        if new.get(key) not in [one.get(key) for one in known]
    ]
    if changed:
        words = (
            "A job with this name already exists. If you are trying to create a new job, use a different name. If you "
            "are trying to update an existing job, the existing job's{property} cannot be changed. Only description, "
            "tags, displayName, properties, and isArchived can be updated."
        )
        named = ", ".join(f" {key[0].upper()}{key[1:]}" for key in sorted(changed))
        raise user_error(400, words, "Immutable", "JobPropertyImmutable", property=named)
    changes = {key: value for key, value in asked.items() if key in _MAY_CHANGE and value is not None}
    for key in ("tags", "properties"):
        if key in changes:
            changes[key] = {**job.properties[key], **changes[key]}
    job.properties |= changes
    job.asked |= changes
    call.world.jobs.add(job)
    return job


@service.operation(
    "Jobs_CreateOrUpdate", "PUT", "/jobs/{name}", known=Known.RECORDED, source=_PUT, risk=_PUT_RISK, body=JOB
)
async def put_job(call: Call) -> Answer:
    """Make a job; the same request again answers with the job that is there, another one under its name is refused."""
    check_workspace(call)
    world, name, asked = call.world, call.path["name"], call.body["properties"]
    old = world.jobs.get(name)
    if old is not None:
        return Answer(_shown(call, _update(call, old, asked)), 200)
    _check(call, asked)
    user = world.settings.client_id
    created = world.clock.now().timestamp()
    job = Job(name, asked, _properties(call, name, asked), "Starting", created, user)
    world.orders_for(name).vanished = False
    world.jobs.add(job)
    world.carry_out(Execution(world, job))
    location = f"{call.origin}{call.request.path}?api-version={call.query['api-version']}"
    return Answer(_shown(call, job), 201, {"Location": location})


@service.operation("Jobs_Get", "GET", "/jobs/{name}", known=Known.RECORDED, source=_GET, risk=_GET_RISK)
async def get_job(call: Call) -> Answer:
    """A job."""
    check_workspace(call)
    return Answer(_shown(call, _find(call)))


@service.operation(
    "Jobs_List", "GET", "/jobs", known=Known.SPECIFIED, source="specification 2024-10-01, Jobs_List; all on one page"
)
async def list_jobs(call: Call) -> Answer:
    """All jobs, the newest first."""
    check_workspace(call)
    return Answer({"value": [_shown(call, job) for job in reversed(call.world.jobs.all())], "nextLink": None})


@service.operation(
    "Jobs_Cancel", "POST", "/jobs/{name}/cancel", known=Known.SPECIFIED, source=_CANCEL, risk=_CANCEL_RISK
)
async def cancel_job(call: Call) -> Answer:
    """Ask that a job be cancelled; its command's whole tree is ended. One that is over stays as it is."""
    check_workspace(call)
    job = _find(call)
    if job.is_final:
        return Answer(status=200)
    call.world.jobs.move(job.name, "CancelRequested")
    task = call.world.jobs.work.get(job.name)
    if task is not None:
        task.cancel()
    return Answer(status=202, headers=long_running.start(call, "job", 0))
