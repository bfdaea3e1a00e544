"""A container on this machine: the snapshot's files in the project's image, under the same supervisor as a process."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from mlflow_azure_backend.compute.base import Progress, resolve_secrets
from mlflow_azure_backend.compute.supervised import (
    GRACE_SECONDS,
    SupervisedTarget,
    compiled_script,
    job_environment,
    own_environment,
    recorded,
)
from mlflow_azure_backend.config import BackendConfig, Environment, MlflowOptions
from mlflow_azure_backend.errors import BackendError, ConfigError, TargetError
from mlflow_azure_backend.files import fault_point
from mlflow_azure_backend.inputs import INPUT_VARIABLE, fetch_inputs, fetch_remote_paths, refuse_remote
from mlflow_azure_backend.job import JobHandle, JobRequest, PreparedJob
from mlflow_azure_backend.journal import Journal, RunFolder, RunRecord, cache_home
from mlflow_azure_backend.outputs import OUTPUT_VARIABLE, make_places
from mlflow_azure_backend.project import render_command
from mlflow_azure_backend.status import JobState

if TYPE_CHECKING:
    from mlflow_azure_backend.containers.engine import Engine
    from mlflow_azure_backend.containers.images import Image

_UNWATCHED: Final = {"reason": "lost", "message": "what watched the container was killed"}
_REMOVAL_SECONDS: Final = 5.0
"""Of the supervisor's grace, beyond the container's own: what the engine may take to tell its end."""


class DockerTarget(SupervisedTarget):
    """Jobs as containers of this machine's docker engine. What speaks to it is imported when a job needs it."""

    name: ClassVar[str] = "docker"

    def check(self, config: BackendConfig, options: MlflowOptions) -> None:
        """Refuse arguments that a container cannot have, and secrets, output folders and engines that are not here."""
        from mlflow_azure_backend.containers.arguments import read_arguments
        from mlflow_azure_backend.containers.engine import connect

        resolve_secrets(config, os.environ)
        refuse_remote(config.outputs)
        read_arguments(options.docker_args, config.resources.docker_args)
        with connect():
            pass

    def prepare(self, request: JobRequest, progress: Progress) -> PreparedJob:
        """Get or build the image, and download what is remote of what the job reads."""
        from mlflow_azure_backend.containers.context import ACTIVATE
        from mlflow_azure_backend.containers.engine import connect
        from mlflow_azure_backend.containers.mounts import CODE, path_arguments, place_of

        started = time.monotonic()
        copied_variables(request, os.environ)
        with connect() as engine:
            image, hit = _image(engine, request, progress)
        seconds = time.monotonic() - started
        fetched = fetch_remote_paths(request.arguments, request.options.storage_dir, progress)
        paths = path_arguments(request.arguments, fetched)
        places = {name: place_of(name, path) for name, path in paths.items()}
        inputs = fetch_inputs(request.config.inputs, request.options.storage_dir, progress)
        variables = {INPUT_VARIABLE + name: place_of(name, path) for name, path in inputs.items()}
        command = render_command(request.entry_point, request.arguments, places)
        if request.environment.kind == "conda":
            command = f". {ACTIVATE} >/dev/null 2>&1\n{command}"
        mounts = {place_of(name, path): path for name, path in (*paths.items(), *inputs.items())}
        return PreparedJob(
            command,
            variables,
            hit,
            seconds,
            image=image.id,
            image_identity=image.identity,
            job_folder=CODE,
            mounts=mounts,
        )

    def submit(self, request: JobRequest, prepared: PreparedJob, run: RunFolder, *, attached: bool) -> None:
        """Create the container, and start the supervisor of the attendant that starts it."""
        from mlflow_azure_backend.containers import attendant
        from mlflow_azure_backend.containers.engine import connect
        from mlflow_azure_backend.containers.making import create_container, job_variables
        from mlflow_azure_backend.containers.mounts import output_place

        record = recorded(run)
        outputs = make_places(request.config.outputs, run.paths.outputs)
        variables = job_variables(record, copied_variables(request, os.environ), os.environ)
        named = {OUTPUT_VARIABLE + name: output_place(name, place) for name, place in outputs.items()}
        environment = job_environment(request, {**prepared.variables, **named, **variables}, record)
        with connect() as engine:
            name = create_container(engine, request, prepared, outputs, run, record)
            fault_point("docker.after_create")
            order = {
                "argv": [
                    sys.executable,
                    *("-I", "-S", compiled_script(attendant), engine.address, name, str(GRACE_SECONDS)),
                ],
                "cwd": str(run.paths.folder),
                "env": {
                    **{attendant.PREFIX + variable: value for variable, value in environment.items()},
                    attendant.COMMAND: prepared.command,
                },
                "grace": GRACE_SECONDS + _REMOVAL_SECONDS,
                "timeout": record.timeout,
                "on_end": [sys.executable, "-m", "mlflow_azure_backend.sync", run.key],
                "on_end_env": own_environment(run),
            }
            try:
                self._supervise(run, record, order, attached=attached)
            except TargetError:
                self._clean_up(run, record)
                raise

    def state(self, handle: JobHandle) -> JobState:
        """As the supervisor wrote it; what a killed attendant left running is removed first."""
        state = super().state(handle)
        run = self._folder(handle)
        if state.status.is_final and not run.paths.container.exists() and run.container_marker(handle.name).exists():
            record = run.record()
            if record is not None:
                self._clean_up(run, record)
            return run.outcome() or state
        return state

    def release(self, handle: JobHandle) -> None:
        """Wait until the container of an ended job is removed, which its attendant has asked the engine for."""
        super().release(handle)
        run = self._folder(handle)
        record = run.record()
        if record is not None and run.outcome() is not None:
            self._clean_up(run, record)

    def sweep(self, journal: Journal) -> Iterator[str]:
        """Remove the containers of ended jobs that could not be removed when they ended."""
        for run_id in journal.containers():
            try:
                run = journal.find(run_id)
            except BackendError:  # the submission was discarded
                run = None
            if run is not None and run.outcome() is None and run.handle() is not None:
                continue
            try:
                _remove(run_id)
            except TargetError as error:
                yield f"the container of run {run_id} may still be there: {error}"
                return
            journal.forget_container(run_id)

    def _clean_up(self, run: RunFolder, record: RunRecord) -> None:
        run_id = str(record.run_id)
        if not run.container_marker(run_id).exists():
            return
        with contextlib.suppress(TargetError):  # the marker stays, and ``sync`` tries again
            _remove(run_id)
            if not run.paths.container.exists():
                run.write_json(run.paths.container, _UNWATCHED)
            run.container_marker(run_id).unlink(missing_ok=True)


def copied_variables(request: JobRequest, environ: Mapping[str, str]) -> dict[str, str]:
    """What ``docker_env`` and the docker arguments set, or copy from the client's environment.

    Raises:
        ConfigError: A variable that is to be copied is not set; names all of them.
    """
    from mlflow_azure_backend.containers.arguments import read_arguments

    asked = read_arguments(request.options.docker_args, request.config.resources.docker_args).variables
    declared = {} if request.docker is None else dict(request.docker.environment)
    wanted = {**declared, **asked}
    if missing := sorted(name for name, value in wanted.items() if value is None and name not in environ):
        raise ConfigError(
            f"{', '.join(missing)} is not set in this environment, and the container is to have its value",
            where="docker_env.environment" if missing[0] in declared else "docker arguments",
            next_step=f"export {missing[0]}=…",
        )
    return {name: environ[name] if value is None else value for name, value in wanted.items()}


def _image(engine: Engine, request: JobRequest, progress: Progress) -> tuple[Image, bool]:
    """The image to run, and whether it was there already."""
    from mlflow_azure_backend.containers.images import ensure_image

    auth, name, docker = request.options.docker_auth, request.environment.image, request.docker
    cache = cache_home(os.environ)
    if name is not None and docker is not None and docker.build_context is not None:
        from mlflow_azure_backend.containers.dockerfiles import ensure_project_image

        return ensure_project_image(engine, request.snapshot, docker, cache=cache, progress=progress)
    if name is not None:
        return ensure_image(engine, name, auth=auth, progress=progress)
    from mlflow_azure_backend.containers.building import ensure_built

    asked = request.config.environment
    return ensure_built(
        engine,
        request.environment,
        asked.image if isinstance(asked, Environment) else None,
        cache=cache,
        progress=progress,
        ensure_base=lambda base: ensure_image(engine, base, auth=auth, progress=progress)[0],
    )


def _remove(run_id: str) -> None:
    from mlflow_azure_backend.containers.engine import connect
    from mlflow_azure_backend.containers.making import remove_containers

    with connect() as engine:
        remove_containers(engine, run_id)
