"""An Azure ML compute: the project as a command job of a workspace, followed from here as if it ran here."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mlflow_azure_backend.compute.base import ComputeTarget, Progress
from mlflow_azure_backend.config import BackendConfig, Environment, MlflowOptions
from mlflow_azure_backend.errors import ConfigError
from mlflow_azure_backend.files import fault_point, is_locked
from mlflow_azure_backend.inputs import refuse_local
from mlflow_azure_backend.job import JobHandle, JobRequest, PreparedJob, TrackingContext, Tracks
from mlflow_azure_backend.journal import Journal, RunFolder, RunRecord, state_home
from mlflow_azure_backend.runtime.reference import WorkspaceReference
from mlflow_azure_backend.status import JobState, JobStatus, TerminationReason
from mlflow_azure_backend.tracking_store import is_open_server, is_workspace

if TYPE_CHECKING:
    from mlflow_azure_backend.workspace.following import Follower
    from mlflow_azure_backend.workspace.jobs import JobDetails

_CHUNK: Final = 256 * 1024


class ClusterTarget(ComputeTarget):
    """Jobs of an Azure ML workspace. What speaks to Azure is imported when a job needs it."""

    name: ClassVar[str] = "cluster"
    is_elsewhere: ClassVar[bool] = True

    def __init__(self) -> None:
        self._followers: dict[str, Follower] = {}

    @property
    def interrupt_cancels(self) -> bool:
        """In CI nobody comes back for a job; anywhere else it is left to run."""
        return os.environ.get("CI") == "true"

    def check(self, config: BackendConfig, options: MlflowOptions) -> None:
        """Refuse what belongs to a docker command line, and what this version does not do on a cluster."""
        if options.docker_args or options.build_image or options.docker_auth:
            raise ConfigError(
                "docker arguments have no meaning on a cluster",
                where="backend_config",
                next_step="leave out --docker-args, --build-image and docker_auth; resources.docker_args is Azure ML's",
            )
        refuse_local(config.outputs)
        if config.retry is not None and config.retry.max:
            raise ConfigError("a cluster does not honour it yet", where="retry", next_step="leave it out")
        if isinstance(config.environment, Environment) and config.environment.build == "image":
            raise ConfigError(
                "no image is built from a lock yet", where="environment.build", next_step='use "start", or leave it out'
            )

    def plan(self, request: JobRequest) -> Mapping[str, Any]:
        """The job as ``az ml job create -f`` reads it."""
        from mlflow_azure_backend.compute.cluster_job import planned_job

        return planned_job(request, os.environ)

    def prepare(self, request: JobRequest, progress: Progress) -> PreparedJob:
        """Find the workspace and its compute, and send the project's files: nothing that is paid for by the hour."""
        from mlflow_azure_backend.compute.cluster_job import prepare_job

        return prepare_job(request, os.environ, progress)

    def tracks(self, tracking: TrackingContext, prepared: PreparedJob) -> Tracks:
        """A workspace makes a run with each job; a server that nodes can reach is joined; into others we mirror it."""
        if prepared.workspace is not None and is_workspace(tracking.uri, prepared.workspace):
            return "is"
        return "joins" if is_open_server(tracking.uri, os.environ) else "mirrors"

    def handle_for(self, run: RunFolder, run_id: str) -> JobHandle:
        """The job's name is the run's id, and the workspace is where it is found."""
        return JobHandle(self.name, run_id, asdict(_recorded(run)[1]))

    def submit(self, request: JobRequest, prepared: PreparedJob, run: RunFolder, *, attached: bool) -> None:  # noqa: ARG002 - a job ends with nobody's death
        """Put the job under its name; an answer that is lost is asked for again."""
        from mlflow_azure_backend.compute.cluster_job import named_job
        from mlflow_azure_backend.recorder import creation_tags
        from mlflow_azure_backend.tracking_store import experiment_name_of
        from mlflow_azure_backend.workspace.access import manager_of
        from mlflow_azure_backend.workspace.jobs import put_job

        record, workspace = _recorded(run)
        if prepared.command_job is None:
            raise ValueError("a job is prepared before it is submitted")
        tags = creation_tags(request, record)
        job = named_job(prepared.command_job, record, experiment_name_of(record.tracking), tags)
        put_job(manager_of(workspace, os.environ), str(record.run_id), job.for_rest(workspace.arm_id))
        fault_point("cluster.after_put")
        run.paths.submitted.touch(mode=0o600)

    def state(self, handle: JobHandle) -> JobState:
        """As run history has it; final once our copy of the log is whole."""
        run = self._folder(handle)
        if (outcome := run.outcome()) is not None:
            return outcome
        follower = self._follower(handle)
        details = follower.look()
        if details is None:
            return self._not_in_history(handle, run)
        if not details.status.is_final:
            return _going_on(details)
        from mlflow_azure_backend.workspace.ending import ending_of

        ending = ending_of(details, follower, timeout=_timeout(run), cancelled=(run.paths.folder / "cancel").exists())
        return _written(run, ending.state, ending.facts)

    def glance(self, handle: JobHandle) -> JobState:
        """One short look, which leaves the log of a job that goes on where it is."""
        run = self._folder(handle)
        if (outcome := run.outcome()) is not None:
            return outcome
        details = self._follower(handle).glance()
        if details is None or details.status.is_final:
            return self.state(handle)
        return _going_on(details)

    def read_log(self, handle: JobHandle, offset: int) -> bytes:
        """From our copy, which every look brings up to date."""
        run = self._folder(handle)
        if run.outcome() is None:
            self._follower(handle).look()
        try:
            with run.paths.log.open("rb") as stream:
                return os.pread(stream.fileno(), _CHUNK, offset)
        except FileNotFoundError:
            return b""

    def wait_for_change(self, handle: JobHandle, timeout: float) -> None:
        """Until the next look: a second while lines flow, longer while nothing happens."""
        time.sleep(min(timeout, self._follower(handle).seconds_to_next_look()))

    def cancel(self, handle: JobHandle, *, at_once: bool = False) -> None:  # noqa: ARG002 - the service has one way
        """Ask the service for the job's end."""
        from mlflow_azure_backend.workspace.access import manager_of
        from mlflow_azure_backend.workspace.jobs import cancel_job

        run = self._folder(handle)
        if run.outcome() is not None:
            return
        (run.paths.folder / "cancel").touch(mode=0o600)
        cancel_job(manager_of(_reference(handle), os.environ), handle.name)
        self._follower(handle).hurry()

    def release(self, handle: JobHandle) -> None:
        """Forget what was seen of the job."""
        self._followers.pop(handle.name, None)

    def _folder(self, handle: JobHandle) -> RunFolder:
        return Journal(state_home(os.environ)).find(handle.name)

    def _follower(self, handle: JobHandle) -> Follower:
        from mlflow_azure_backend.workspace.access import follower_of

        if (known := self._followers.get(handle.name)) is not None:
            return known
        log = self._folder(handle).paths.log
        # Another thread may have made one meanwhile, or let its own go: all get the same, and nobody a KeyError.
        return self._followers.setdefault(handle.name, follower_of(_reference(handle), handle.name, log, os.environ))

    def _not_in_history(self, handle: JobHandle, run: RunFolder) -> JobState:
        """Run history learns of a job a moment after it is made; what nobody knows of nor submits will never run."""
        from mlflow_azure_backend.workspace.access import manager_of
        from mlflow_azure_backend.workspace.jobs import job_exists

        is_being_submitted = is_locked(run.submit_lock) and not (run.paths.folder / "cancel").exists()
        if is_being_submitted or job_exists(manager_of(_reference(handle), os.environ), handle.name):
            return JobState(JobStatus.NOT_STARTED)
        if run.paths.submitted.exists():
            reason, message = TerminationReason.LOST, "the workspace has no such job any more"
        else:
            reason, message = TerminationReason.START_FAILED, "its client was stopped before the job was submitted"
        return _written(run, JobState(JobStatus.FAILED, reason, message=message))


def _recorded(run: RunFolder) -> tuple[RunRecord, WorkspaceReference]:
    """What is on disk of a job before it is submitted."""
    record = run.record()
    if record is None or record.run_id is None or record.workspace is None:
        raise ValueError("a job is recorded before it is submitted")
    return record, record.workspace


def _going_on(details: JobDetails) -> JobState:
    return JobState(details.status, started_at=details.started_at, message=details.error)


def _reference(handle: JobHandle) -> WorkspaceReference:
    return WorkspaceReference(**handle.details)


def _timeout(run: RunFolder) -> float | None:
    record = run.record()
    return None if record is None else record.timeout


def _written(run: RunFolder, state: JobState, facts: Mapping[str, Any] | None = None) -> JobState:
    """A final state, kept: the service need not be asked for it again."""
    told: Mapping[str, Any] = {
        "version": 1,
        "reason": None if state.reason is None else state.reason.value,
        "exit_code": state.exit_code,
        "signal": state.signal,
        "started_at": state.started_at,
        "ended_at": state.ended_at or time.time(),
        "message": state.message,
        **(facts or {}),
    }
    run.write_json(run.paths.outcome, told)
    return run.outcome() or state
