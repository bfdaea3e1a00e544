"""What a run leaves so that it can be repeated anywhere, and what a repetition takes from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow_azure_backend.environment.lock import EnvironmentLock
from mlflow_azure_backend.environment.python_lock import current_lock, differences
from mlflow_azure_backend.environment.resolving import recorded_lock
from mlflow_azure_backend.environment.spec import EnvironmentSpec
from mlflow_azure_backend.git import GitState
from mlflow_azure_backend.job import JobRequest
from mlflow_azure_backend.project import Argument, ParameterType, is_remote
from mlflow_azure_backend.snapshot import Snapshot, extract_archive
from mlflow_azure_backend.source import ProjectSource, fetch_project

VERSION = 1
"""Of ``RecordedOrder``; another one is refused."""


@dataclass(frozen=True, slots=True)
class RecordedOrder:
    """What the user asked for, as a run keeps it among its artifacts (``snapshot/order.json``): no secret, no default.

    Attributes:
        version: ``VERSION``.
        project: The project's URI without credentials.
        git: The commit that the project was at; None when it was under no version control.
        entry_point: Name of the entry point or script.
        parameters: Those that were given, in the user's words; a secret one is ``***``.
        secret_parameters: Names of the secret ones.
        path_parameters: Names of those that are a ``path``.
        places: Where each local ``path`` leads: relative to the project when the snapshot holds it, else absolute.
        config: The ``backend_config`` with its defaults, secrets by reference.
        env_manager: ``--env-manager``; None when the user did not choose.
        environment: ``current`` for the interpreter of the client, ``python`` or ``conda`` for one that was built from
            the lock.
        content_hash: The snapshot's.
    """

    version: int
    project: str
    git: GitState | None
    entry_point: str
    parameters: Mapping[str, str]
    secret_parameters: tuple[str, ...]
    path_parameters: tuple[str, ...]
    places: Mapping[str, str]
    config: Mapping[str, Any]
    env_manager: str | None
    environment: str
    content_hash: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """What a repetition takes from the run that it repeats, in place of what the project's folder would say now.

    Attributes:
        order: What was asked for then.
        lock: The environment lock's name and text.
        archive: The snapshot's archive; None for a commit, which is fetched.
    """

    order: RecordedOrder
    lock: tuple[str, str]
    archive: Path | None

    def fetch_project(self, checkout: Path) -> ProjectSource:
        """The project's files as they were, in a folder of ours.

        Raises:
            ProjectError: The commit cannot be fetched.
            SnapshotError: The archive is damaged.
        """
        order = self.order
        if self.archive is not None:
            extract_archive(self.archive, checkout)
            return ProjectSource(order.project, checkout.resolve(), is_checkout=True, git=order.git)
        if order.git is None:
            raise ValueError("a run without an archive has a commit")
        uri = f"{order.git.repo_url}#{order.git.subdirectory}" if order.git.subdirectory else str(order.git.repo_url)
        source = fetch_project(uri, order.git.commit, checkout)
        return ProjectSource(order.project, source.folder, is_checkout=True, git=order.git)

    def lock_for(self, wanted: EnvironmentSpec) -> EnvironmentLock:
        """The environment as it was resolved then; for the current interpreter, what is here now.

        Raises:
            EnvironmentUnavailable: The lock was made for another kind of machine.
        """
        return current_lock() if self.order.environment == "current" else recorded_lock(*self.lock, wanted)

    def note_on(self, environment: EnvironmentLock) -> str | None:
        """In what the current interpreter is not what it was; None when the environment is the same."""
        return differences(self.lock[1], environment) if environment.kind == "current" else None


def record_order(request: JobRequest, given: Mapping[str, object]) -> RecordedOrder:
    """What is to be kept of a request; ``given`` are the parameters that the user gave."""
    config = {"compute": request.target, **request.config.model_dump(mode="json", exclude_unset=True)}
    kept = {key: value for key, value in config.items() if key not in ("submission_id", "detach", "profile")}
    if request.options.docker_args:
        kept["DOCKER_ARGS"] = dict(request.options.docker_args)
    if request.options.build_image:
        kept["build_image"] = True
    paths = [argument for argument in request.arguments if argument.type is ParameterType.PATH]
    names = {str(name) for name in given}
    return RecordedOrder(
        version=VERSION,
        project=request.source.uri,
        git=request.source.git,
        entry_point=request.entry_point.name,
        parameters={argument.name: argument.logged for argument in request.arguments if argument.name in names},
        secret_parameters=tuple(argument.name for argument in request.arguments if argument.is_secret),
        path_parameters=tuple(argument.name for argument in paths),
        places={
            argument.name: _place(argument, request.snapshot) for argument in paths if not is_remote(argument.given)
        },
        config=kept,
        env_manager=request.options.env_manager,
        environment=request.environment.kind,
        content_hash=request.snapshot.content_hash,
    )


def _place(argument: Argument, snapshot: Snapshot) -> str:
    """The path in the project when the snapshot holds all of it, else the absolute path."""
    path = Path(argument.value)
    if not path.is_relative_to(snapshot.root):
        return argument.value
    inside = PurePosixPath(path.relative_to(snapshot.root)).as_posix()
    below = "" if inside == "." else f"{inside}/"
    has_all = not any(item.path.startswith(below) for item in snapshot.left_out) or inside == "."
    holds = any(file.path == inside or file.path.startswith(below) for file in snapshot.files)
    return inside if holds and has_all else argument.value
