"""This machine: the command runs in the project's own folder under a supervisor that outlives us if it must."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

from mlflow_azure_backend.compute.base import Progress, resolve_secrets
from mlflow_azure_backend.compute.supervised import (
    GRACE_SECONDS,
    SupervisedTarget,
    inherited,
    job_environment,
    own_environment,
    recorded,
)
from mlflow_azure_backend.config import BackendConfig, MlflowOptions
from mlflow_azure_backend.environment.plugin import with_plugin
from mlflow_azure_backend.environment.store import ensure_prefix, hold
from mlflow_azure_backend.errors import TargetError
from mlflow_azure_backend.inputs import INPUT_VARIABLE, fetch_inputs, fetch_remote_paths, refuse_remote
from mlflow_azure_backend.job import RUN_VARIABLE, JobRequest, PreparedJob
from mlflow_azure_backend.journal import RunFolder, RunRecord, cache_home
from mlflow_azure_backend.outputs import OUTPUT_VARIABLE, make_places
from mlflow_azure_backend.project import render_command


class LocalTarget(SupervisedTarget):
    """Jobs as processes of this machine."""

    name: ClassVar[str] = "local"

    def check(self, config: BackendConfig, options: MlflowOptions) -> None:
        """Refuse what only a container can honour, secrets that are not there, and outputs that go elsewhere."""
        resolve_secrets(config, os.environ)
        refuse_remote(config.outputs)
        if options.docker_args or options.build_image or options.docker_auth:
            raise TargetError(
                "docker arguments have no meaning on this machine",
                next_step="leave out --docker-args, --build-image and docker_auth",
            )

    def prepare(self, request: JobRequest, progress: Progress) -> PreparedJob:
        """Build the environment's prefix if it is not there, and download what is remote of what the job reads."""
        started = time.monotonic()
        prefix = ensure_prefix(request.environment, cache=cache_home(os.environ), on_progress=progress)
        seconds = time.monotonic() - started
        paths = fetch_remote_paths(request.arguments, request.options.storage_dir, progress)
        command = render_command(request.entry_point, request.arguments, paths)
        inputs = fetch_inputs(request.config.inputs, request.options.storage_dir, progress)
        variables = with_plugin(prefix.variables(inherited()), request.environment, cache=cache_home(os.environ))
        variables |= {INPUT_VARIABLE + name: str(path) for name, path in inputs.items()}
        return PreparedJob(command, variables, prefix.hit, seconds, notes=prefix.notes)

    def submit(self, request: JobRequest, prepared: PreparedJob, run: RunFolder, *, attached: bool) -> None:
        """Start the supervisor, which starts the command; return when the command runs or could not be started."""
        record = recorded(run)
        outputs = make_places(request.config.outputs, run.paths.outputs)
        variables = {OUTPUT_VARIABLE + name: str(place.folder / place.file) for name, place in outputs.items()}
        order = {
            "argv": ["bash", "-c", prepared.command],
            "cwd": str(record.work_folder),
            "env": job_environment(request, {**prepared.variables, **variables}, record),
            "grace": GRACE_SECONDS,
            "timeout": record.timeout,
            "on_end": [sys.executable, "-m", "mlflow_azure_backend.recorder", run.key],
            "on_end_env": own_environment(run),
        }
        cache = cache_home(os.environ)
        with hold(request.environment, cache=cache) as held:
            ensure_prefix(request.environment, cache=cache)  # nobody held it since ``prepare``
            self._supervise(run, record, order, attached=attached, held=held)

    def _clean_up(self, _run: RunFolder, record: RunRecord) -> None:
        """Kill what a job without a supervisor left behind: whoever has its run id in the environment. Linux only.

        The command itself died with its supervisor; its children did not have to. Spared are those that we descend from
        and those that have a terminal, which the supervisor's session has not: a user may have exported the variable.
        """
        wanted, ours = f"{RUN_VARIABLE}={record.run_id}".encode(), _ourselves_and_ancestors()
        for pid in [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]:
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                descriptor = os.pidfd_open(pid)
                try:
                    carries = wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                    if carries and pid not in ours and not _parent_and_terminal(pid)[1]:
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)  # the number may be another's by now
                finally:
                    os.close(descriptor)


def _ourselves_and_ancestors() -> set[int]:
    found, pid = set[int](), os.getpid()
    while pid > 0:
        found.add(pid)
        try:
            pid, _ = _parent_and_terminal(pid)
        except OSError:  # no /proc, or another user's
            break
    return found


def _parent_and_terminal(pid: int) -> tuple[int, int]:
    """The parent's process id and the number of the controlling terminal, 0 without one (proc(5), ``stat``)."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return int(after_name[1]), int(after_name[4])
