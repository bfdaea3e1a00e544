"""From a request to a command job: its code, environment and data are put into the workspace, and it refers to them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from mlflow_azure_backend.command_job import SERVERLESS, CommandJob, JobData
from mlflow_azure_backend.compute.base import Progress
from mlflow_azure_backend.config import Environment, NewCompute
from mlflow_azure_backend.environment.conda.channels import rattler_config
from mlflow_azure_backend.inputs import INPUT_VARIABLE, fetch_remote_paths
from mlflow_azure_backend.job import RUN_VARIABLE, JobRequest, PreparedJob
from mlflow_azure_backend.journal import RunRecord
from mlflow_azure_backend.project import Argument, ParameterType, is_remote, render_command
from mlflow_azure_backend.runtime.order import ORDER_VARIABLE, JobOrder, from_json
from mlflow_azure_backend.workspace import computes, environments, travelling
from mlflow_azure_backend.workspace.access import manager_of, storage
from mlflow_azure_backend.workspace.arm import ResourceManager
from mlflow_azure_backend.workspace.code import ensure_code
from mlflow_azure_backend.workspace.data import DATASTORE, ensure_data

KEPT_IN: Final = "mlflow_azure_environments"
"""The job's output that is the folder of packed environments."""
_PLACES: Final = "/tmp/mlflow-azure/inputs/{}"  # noqa: S108 - on a node, which is the job's alone
"""Where the runtime links the inputs that stand in the command."""
_SCHEMES: Final = frozenset({"azureml", "https", "http", "wasbs", "wasb", "abfss", "abfs", "adl"})
"""Of addresses that Azure ML's nodes read themselves."""


@dataclass(frozen=True, slots=True)
class _Data:
    """What the job reads.

    Attributes:
        inputs: Of the job, by name.
        names: By a ``path`` parameter, the name of the input that it became.
        places: By a ``path`` parameter, where the command expects it.
    """

    inputs: Mapping[str, JobData]
    names: Mapping[str, str]
    places: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Site:
    """What the job finds where it runs.

    Attributes:
        order: For the runtime.
        image: The image of its environment; None for one that is registered.
        registered: The workspace's environment as the user named it; None for an image.
        files: What travels beside the project, by path.
        outputs: What it needs besides the user's.
    """

    order: JobOrder
    image: str | None = None
    registered: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    outputs: Mapping[str, JobData] = field(default_factory=dict)


def prepare_job(request: JobRequest, environ: Mapping[str, str], progress: Progress) -> PreparedJob:
    """Make everything in the workspace that the job refers to; nothing of it is paid for by the hour.

    Raises:
        BackendError: What is wrong, in one line; then there is no job.
    """
    if request.workspace is None:
        raise ValueError("a job for a cluster has a workspace")
    progress("signing in")
    manager = manager_of(request.workspace, environ)
    workspace = manager.located()
    progress("looking for the compute")
    compute = _compute(manager, request)
    site = _site(request, environ)
    fetched = fetch_remote_paths(_unknown_to_azure(request), request.options.storage_dir, progress)
    data = _data(request, fetched, lambda path: ensure_data(manager, storage(), path, progress))
    brought = {travelling.RUNTIME_FILE: travelling.runtime_zip(), **site.files}
    code, _ = ensure_code(manager, storage(), request.snapshot, brought, progress)
    if site.registered is not None:
        environment = environments.registered(manager, site.registered)
    else:
        environment = environments.of_image(manager, str(site.image))
    job = _job(request, site, data, code=code, environment=environment, compute=compute)
    return PreparedJob(job.command, {}, True, 0.0, workspace=workspace, command_job=job)


def planned_job(request: JobRequest, environ: Mapping[str, str]) -> dict[str, Any]:
    """The job as ``az ml job create -f`` reads it; asks nobody. Its files and data are those of this machine.

    Raises:
        BackendError: What is wrong, in one line.
    """
    site, asked = _site(request, environ), request.config.compute
    compute = asked.name if isinstance(asked, NewCompute) else asked
    job = _job(request, site, _data(request, {}, str), code=str(request.source.folder), environment="", compute=compute)
    return {**job.for_az(), "environment": site.registered or {"image": site.image}}


def _job(request: JobRequest, site: _Site, data: _Data, *, code: str, environment: str, compute: str) -> CommandJob:
    outputs = {name: JobData(one.type, one.path, one.mode) for name, one in request.config.outputs.items()}
    places = {place: f"{INPUT_VARIABLE}{data.names[parameter]}" for parameter, place in data.places.items()}
    order = replace(site.order, places=places)
    return CommandJob(
        command=command_text(render_command(request.entry_point, request.arguments, data.places), data.inputs),
        code=code,
        environment=environment,
        experiment_name="",
        display_name=request.config.display_name,
        compute=compute,
        config=request.config,
        inputs=data.inputs,
        outputs={**outputs, **site.outputs},
        environment_variables={**request.config.environment_variables, ORDER_VARIABLE: order.to_json()},
        tags=request.config.tags,
    )


def named_job(job: CommandJob, record: RunRecord, experiment: str, tags: Mapping[str, str]) -> CommandJob:
    """The job with what is known once its run is: names, tags, and what must hold inside the command."""
    order = from_json(job.environment_variables[ORDER_VARIABLE])
    order = replace(order, variables={**order.variables, RUN_VARIABLE: str(record.run_id)})
    if record.tracks == "joins":
        order = replace(order, tracking_uri=record.tracking.uri, run_id=record.run_id)
    return replace(
        job,
        experiment_name=experiment_name(experiment),
        display_name=job.display_name or record.run_name,
        environment_variables={**job.environment_variables, ORDER_VARIABLE: order.to_json()},
        tags=dict(tags),
    )


def experiment_name(name: str) -> str:
    """A name as Azure ML takes it: letters, digits, underscores and dashes; other characters become dashes."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", name).lstrip("_-")[:255] or "Default"


def command_text(command: str, inputs: Iterable[str]) -> str:
    """What each node runs: the project's command, and where Azure ML has put each input.

    Args:
        command: POSIX shell text.
        inputs: Their names.
    """
    # A value of the user's that looks like Azure ML's words must not be taken for them; in quotes this reads the same.
    text = travelling.job_command(command).replace("${{", "$''{{")
    return " ".join((text, *(f'{INPUT_VARIABLE}{name}="${{{{inputs.{name}}}}}"' for name in sorted(inputs))))


def _compute(manager: ResourceManager, request: JobRequest) -> str:
    asked = request.config.compute
    if isinstance(asked, NewCompute):
        computes.ensure_compute(manager, asked)
        return asked.name
    if asked != SERVERLESS:
        computes.check_compute(manager, asked, request.config.resources.instance_count)
    return asked


def _site(request: JobRequest, environ: Mapping[str, str]) -> _Site:
    """The environment: one of the workspace's, an image as it is, or a lock that is installed at the job's start."""
    asked, lock = request.config.environment, request.environment
    if isinstance(asked, str):
        return _Site(JobOrder(), registered=asked)
    if lock.image is not None:
        return _Site(JobOrder(), image=lock.image)
    base = asked.image if isinstance(asked, Environment) else None
    kept = f"azureml://datastores/{DATASTORE}/paths/mlflow-azure/environments/{lock.key}/"
    return _Site(
        JobOrder(environment=travelling.locked_environment(lock, kept_in=KEPT_IN)),
        image=base or environments.STOCK_IMAGE,
        files=travelling.lock_files(lock, request.source.folder, rattler_config(environ)),
        outputs={KEPT_IN: JobData("uri_folder", kept, "rw_mount")},
    )


def _unknown_to_azure(request: JobRequest) -> list[Argument]:
    """The remote ``path`` parameters that no node could read: they are fetched to this machine and sent from here."""
    remote = [one for one in request.arguments if one.type is ParameterType.PATH and is_remote(one.given)]
    return [one for one in remote if urlsplit(one.given).scheme not in _SCHEMES]


def _data(request: JobRequest, fetched: Mapping[str, str], bring: Callable[[Path], str]) -> _Data:
    """What the job reads.

    Args:
        request: The job.
        fetched: The local copies of remote ``path`` parameters that Azure ML does not read itself.
        bring: Says where the workspace has, or will have, a file or folder of this machine.
    """

    def data_of(path: str, kind: str | None, mode: str | None = None) -> JobData:
        if is_remote(path):
            return JobData(kind or ("uri_folder" if path.endswith("/") else "uri_file"), path, mode)
        return JobData(kind or ("uri_folder" if Path(path).is_dir() else "uri_file"), bring(Path(path)), mode)

    inputs = {name: data_of(one.path, one.type, one.mode) for name, one in request.config.inputs.items()}
    root, names, places = _PLACES.format(hashlib.sha256(request.submission_id.encode()).hexdigest()[:16]), {}, {}
    for argument in request.arguments:
        if argument.type is ParameterType.PATH:
            path = fetched.get(argument.name, argument.given if is_remote(argument.given) else argument.value)
            name = names[argument.name] = re.sub(r"\W", "_", argument.name)
            inputs[name] = data_of(path, None)
            places[argument.name] = f"{root}/{name}/{_last_part(path)}"
    return _Data(inputs, names, places)


def _last_part(path: str) -> str:
    """The name of a file or folder, by which a program may know what it is."""
    address = urlsplit(path)
    return (unquote(address.path) if is_remote(path) else path).rstrip("/").rpartition("/")[2] or "data"
