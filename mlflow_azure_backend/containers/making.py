"""A job's container: created with all that it may use and see, found and removed by its labels."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Mapping
from typing import Any, Final

from docker.errors import APIError, NotFound

from mlflow_azure_backend.containers.arguments import gpu_request, read_arguments
from mlflow_azure_backend.containers.attendant import ENTRY
from mlflow_azure_backend.containers.building import bake
from mlflow_azure_backend.containers.engine import HOME_LABEL, RUN_LABEL, Engine, engine_errors
from mlflow_azure_backend.containers.mounts import (
    CODE,
    bind,
    is_loopback,
    named_files,
    output_folder,
    tracking_folders,
    tracking_variables,
    user_binds,
)
from mlflow_azure_backend.errors import TargetError
from mlflow_azure_backend.job import JobRequest, PreparedJob
from mlflow_azure_backend.journal import RunFolder, RunRecord
from mlflow_azure_backend.outputs import OUTPUTS, OutputPlace

_GATEWAY: Final = "host.docker.internal"
"""This machine, as a container of Docker Desktop sees it."""
_NANO: Final = 1e9
_MISSING: Final = 404
_CONFLICT: Final = 409


def container_name(run_id: str) -> str:
    """The one container of a run."""
    return f"mlflow-azure-{run_id}"


def job_variables(record: RunRecord, copied: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """What a container needs beside the run to join: the stores' credentials, a home, what the project names."""
    variables = tracking_variables(record.tracking.uri, record.artifact_uri, environ)
    if os.getuid() != 0:  # a user of this machine has no home and no name in the container
        variables |= {"HOME": "/tmp", "USER": getpass.getuser(), "LOGNAME": getpass.getuser()}  # noqa: S108
    return {**variables, **copied}


def create_container(
    engine: Engine,
    request: JobRequest,
    prepared: PreparedJob,
    outputs: Mapping[str, OutputPlace],
    run: RunFolder,
    record: RunRecord,
) -> str:
    """Create the container of a run, once; its name.

    Args:
        engine: The engine.
        request: What to run.
        prepared: What was made ready for it.
        outputs: Where it writes its named outputs, by their names.
        run: Its folder in the journal.
        record: What is recorded of it.

    Raises:
        TargetError: The engine refuses.
    """
    run_id = str(record.run_id)
    name = container_name(run_id)
    arguments = read_arguments(request.options.docker_args, request.config.resources.docker_args)
    host = {**_limits(request), **arguments.host}
    host.setdefault("network_mode", _network(engine, record.tracking.uri))
    _check_network(host["network_mode"], record.tracking.uri)
    host["binds"] = user_binds((*_volumes(request), *arguments.binds), request.source.folder)
    host["mounts"] = _mounts(prepared, record, is_baked=request.options.build_image)
    host["mounts"] += [bind(place.folder, output_folder(name), read_only=False) for name, place in outputs.items()]
    settings: dict[str, Any] = {
        "user": "0:0" if engine.is_rootless else f"{os.getuid()}:{os.getgid()}",
        "working_dir": CODE,
        **arguments.container,
    }
    labels = {RUN_LABEL: run_id, HOME_LABEL: str(run.home)}
    run.container_marker(run_id).touch(mode=0o600)
    image = prepared.image
    if request.options.build_image and record.work_folder is not None:
        image = project_image(run_id)
        bake(engine, str(prepared.image), record.work_folder, image, labels)
    with engine_errors("creating the container", image=request.environment.image):
        try:
            engine.api.create_container(
                image,
                ["/bin/sh", "-c", ENTRY, "job"],
                name=name,
                labels=labels,
                stdin_open=True,
                host_config=engine.api.create_host_config(**host, log_config={"type": "none"}),
                **settings,
            )
        except APIError as error:
            if error.status_code != _CONFLICT:  # else an earlier call's answer was lost
                raise
    return name


def project_image(run_id: str) -> str:
    """The image that one run's files are baked into, and that goes with its container."""
    return f"mlflow-azure/project:{run_id}"


def remove_containers(engine: Engine, run_id: str) -> None:
    """End and remove what there is of a run, by its label; nothing may be there.

    Raises:
        TargetError: The engine refuses.
    """
    with engine_errors("removing the container"):
        found = engine.api.containers(all=True, quiet=True, filters={"label": f"{RUN_LABEL}={run_id}"})
        for container in found:
            _remove_one(engine, container["Id"])
        try:
            engine.api.remove_image(project_image(run_id), force=True)
        except APIError as error:
            if error.status_code != _MISSING:
                raise


def _remove_one(engine: Engine, container: str) -> None:
    try:
        engine.api.remove_container(container, force=True, v=True)
    except APIError as error:
        if error.status_code == _CONFLICT:  # somebody is removing it
            with contextlib.suppress(NotFound):
                engine.api.wait(container, condition="removed")
        elif error.status_code != _MISSING:
            raise


def _limits(request: JobRequest) -> dict[str, Any]:
    asked = request.config.resources
    limits: dict[str, Any] = {}
    if asked.shm_size is not None:
        limits["shm_size"] = asked.shm_size
    if asked.memory is not None:
        limits["mem_limit"] = limits["memswap_limit"] = asked.memory  # a limit that swap stretches is none
    if asked.cpus is not None:
        limits["nano_cpus"] = int(asked.cpus * _NANO)
    if asked.gpus is not None:
        limits["device_requests"] = [gpu_request(asked.gpus)]
    return limits


def _network(engine: Engine, tracking_uri: str) -> str:
    """A server that listens on this machine's loopback only is reached from this machine's network only."""
    return "host" if is_loopback(tracking_uri) and not engine.is_desktop else "default"


def _check_network(mode: str, tracking_uri: str) -> None:
    if is_loopback(tracking_uri) and mode not in ("host", "default"):
        raise TargetError(
            f"the tracking server listens on this machine only, and network {mode!r} keeps the container from it",
            next_step="leave out --network, or use a server that the container can reach",
        )


def _volumes(request: JobRequest) -> tuple[str, ...]:
    return () if request.docker is None else request.docker.volumes


def _mounts(prepared: PreparedJob, record: RunRecord, *, is_baked: bool) -> list[Any]:
    stores = tracking_folders(record.tracking.uri, record.artifact_uri)
    mounts = [bind(folder, str(folder), read_only=False) for folder in stores]
    if record.work_folder is not None and is_baked:
        (record.work_folder / OUTPUTS).mkdir(exist_ok=True)
        mounts.append(bind(record.work_folder / OUTPUTS, f"{CODE}/{OUTPUTS}", read_only=False))
    elif record.work_folder is not None:
        mounts.append(bind(record.work_folder, CODE, read_only=False))
    mounts += [bind(path, place, read_only=True) for place, path in prepared.mounts.items()]
    return mounts + [bind(path, str(path), read_only=True) for path in named_files(os.environ)]
