"""What is to be run, and the receipt for it: the nouns between the project and the targets."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from mlflow_azure_backend.command_job import CommandJob
from mlflow_azure_backend.config import BackendConfig, MlflowOptions
from mlflow_azure_backend.environment.lock import EnvironmentLock
from mlflow_azure_backend.project import Argument, DockerEnvironment, EntryPoint
from mlflow_azure_backend.redaction import without_credentials
from mlflow_azure_backend.runtime.reference import WorkspaceReference, from_tracking_uri
from mlflow_azure_backend.snapshot import Snapshot
from mlflow_azure_backend.source import ProjectSource

Tracks = Literal["joins", "is", "mirrors"]
"""How a job's run and the tracking store's belong together: the job joins the run that we made there; it *is* the run,
for the workspace makes one with each job; or it reports to its workspace, and we mirror that run into ours."""

RUN_VARIABLE: Final = "MLFLOW_AZURE_RUN_ID"
"""Holds the run's id in every job of ours; MLflow takes MLFLOW_RUN_ID away when a program joins the run."""


@dataclass(frozen=True, slots=True)
class TrackingContext:
    """Where the run is tracked.

    Attributes:
        uri: The tracking URI, relative sqlite and file paths made absolute.
        experiment_id: MLflow's experiment id; None until it has been looked up by its name.
        experiment_name: The experiment's name, if that is how the user named it.
        run_name: The name that the user gave; None lets MLflow choose one.
        parent_run_id: The run that this one belongs to; None when it stands alone.
        rerun_of: The run that this one repeats; None when it repeats none.
    """

    uri: str
    experiment_id: str | None = None
    experiment_name: str | None = None
    run_name: str | None = None
    parent_run_id: str | None = None
    rerun_of: str | None = None

    def page_of(self, run_id: str, tenant_id: str | None = None) -> str | None:
        """The address of a run in the tracking server's pages, or in Azure ML studio; None for a store without pages.

        Args:
            run_id: The run's id.
            tenant_id: Of the workspace, if that is known.
        """
        if urlsplit(self.uri).scheme == "azureml":
            return from_tracking_uri(self.uri).studio_page(run_id, tenant_id)
        if urlsplit(self.uri).scheme not in ("http", "https"):
            return None
        server = without_credentials(self.uri).rstrip("/")
        return f"{server}/#/experiments/{self.experiment_id}/runs/{run_id}"


@dataclass(frozen=True, slots=True)
class JobRequest:
    """One job, complete and frozen: printing it is ``mlflow-azure plan``.

    Attributes:
        submission_id: The idempotency key: the same one means the same job.
        target: Name of the compute target.
        source: Where the project came from.
        entry_point: What of it is to be run.
        arguments: Its parameters, bound.
        command: The POSIX shell command that follows from both.
        snapshot: The project's files.
        environment: The resolved environment.
        environment_file: The file that the user can mend; None for the current interpreter.
        config: The backend configuration.
        options: MLflow's own options.
        notes: Lines for the user: what was ignored, guessed or replaced on the way.
        docker: What the project says of its container; None when it says nothing.
        workspace: The Azure ML workspace of a job for a cluster; None for other targets.
    """

    submission_id: str
    target: str
    source: ProjectSource
    entry_point: EntryPoint
    arguments: tuple[Argument, ...]
    command: str
    snapshot: Snapshot
    environment: EnvironmentLock
    environment_file: str | None
    config: BackendConfig
    options: MlflowOptions
    notes: tuple[str, ...] = ()
    docker: DockerEnvironment | None = None
    workspace: WorkspaceReference | None = None


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """What a target made ready for a request.

    Attributes:
        command: The POSIX shell command with the target's own paths in it.
        variables: The environment variables that the target's environment needs (PATH and the like).
        environment_hit: Whether the environment was there already.
        environment_seconds: Seconds that making it ready took.
        image: The id of the image to run; None when no image is run.
        image_identity: What names that image best: ``NAME@sha256:…``, else its id.
        job_folder: Where the job will find its work folder; None when it is where it is on this machine.
        mounts: What the job reads, on this machine, by its place in the container.
        notes: What the user should know of the making of the environment.
        workspace: The workspace that the job goes to, with its host; None for jobs of this machine.
        command_job: The job as the workspace takes it, but for its names; None for jobs of this machine.
    """

    command: str
    variables: Mapping[str, str]
    environment_hit: bool
    environment_seconds: float
    image: str | None = None
    image_identity: str | None = None
    job_folder: str | None = None
    mounts: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    workspace: WorkspaceReference | None = None
    command_job: CommandJob | None = None


@dataclass(frozen=True, slots=True)
class JobHandle:
    """The receipt for a submitted job: plain data, good in any process that reaches the target.

    Attributes:
        target: Name of the compute target.
        name: The job's name, which is the MLflow run's id.
        details: What else the target needs to find it again.
    """

    target: str
    name: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobPaths:
    """The files of one run in the journal; who writes each is said in ``journal.py``."""

    folder: Path

    @property
    def request(self) -> Path:
        """What was asked for."""
        return self.folder / "request.json"

    @property
    def manifest(self) -> Path:
        """The snapshot's files and what was left out."""
        return self.folder / "manifest.json"

    @property
    def order(self) -> Path:
        """What a rerun needs to know of what the user asked for."""
        return self.folder / "order.json"

    @property
    def archive(self) -> Path:
        """The snapshot itself; absent for a commit that can be fetched."""
        return self.folder / "snapshot.tar.zst"

    @property
    def checkout(self) -> Path:
        """Our copy of a project that came from git or a zip file."""
        return self.folder / "checkout"

    @property
    def outputs(self) -> Path:
        """The named outputs that the job writes, until they are the run's artifacts."""
        return self.folder / "outputs"

    @property
    def handle(self) -> Path:
        """The receipt."""
        return self.folder / "handle.json"

    @property
    def log(self) -> Path:
        """What the job wrote, byte-exact."""
        return self.folder / "std_log.txt"

    @property
    def outcome(self) -> Path:
        """How it ended."""
        return self.folder / "outcome.json"

    @property
    def submitted(self) -> Path:
        """There once a service has said that it has the job; absent for jobs of this machine."""
        return self.folder / "submitted"

    @property
    def container(self) -> Path:
        """How its container ended; absent for jobs without one."""
        return self.folder / "container.json"

    @property
    def lease(self) -> Path:
        """Locked by whoever will write the run's end."""
        return self.folder / "lease"

    @property
    def inputs_recorded(self) -> Path:
        """Manifest, snapshot and lock are in the tracking store."""
        return self.folder / "inputs_recorded"

    @property
    def recorded(self) -> Path:
        """The run's end is in the tracking store."""
        return self.folder / "recorded.json"


def new_submission_id() -> str:
    """A key that nobody has used."""
    return uuid.uuid4().hex
