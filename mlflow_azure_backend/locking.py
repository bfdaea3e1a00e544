"""``mlflow-azure lock``: the lock of a project's environment, written beside it or held against it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_azure_backend.config import load_config
from mlflow_azure_backend.environment.carried import CarriedLock, carried_lock
from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.environment.spec import EnvironmentSpec
from mlflow_azure_backend.errors import EnvironmentUnavailable
from mlflow_azure_backend.planning import counted, target_of, wanted_environment
from mlflow_azure_backend.project import load_project
from mlflow_azure_backend.source import ProjectSource, fetch_project

if TYPE_CHECKING:
    from mlflow_azure_backend.environment.cache import Progress

WRITTEN = {"python": "pylock.toml", "conda": "conda-lock.yml"}
"""The lock that is written for each kind of environment."""


@dataclass(frozen=True, slots=True)
class LockedProject:
    """A project whose environment is to be locked.

    Attributes:
        source: Where it is.
        wanted: The environment that it declares.
    """

    source: ProjectSource
    wanted: EnvironmentSpec


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of it.

    Attributes:
        is_current: Whether a lock lies beside the project that is used as it is.
        text: The same in one line, with the reason.
        file: The lock's name; None when there is none.
        key: The environment key of a lock that is used.
        packages: Its packages with their versions.
    """

    is_current: bool
    text: str
    file: str | None = None
    key: str | None = None
    packages: Mapping[str, str | None] | None = None


def wanted_of(
    uri: str, version: str | None, config: Mapping[str, Any], checkout: Path, environ: Mapping[str, str]
) -> LockedProject:
    """Find a project and read what environment it declares.

    Args:
        uri: A folder, a git URL or a zip file.
        version: A branch, tag or commit; None for the project as it is.
        config: The backend configuration with MLflow's own keys in it, unparsed.
        checkout: Where a project from git or a zip file may be copied to.
        environ: The client's environment variables.

    Raises:
        BackendError: A mistake of the user's, also that there is nothing to lock.
    """
    source = fetch_project(uri, version, checkout)
    project = load_project(source.folder)
    loaded = load_config(config, project_folder=source.folder, environ=environ)
    target = target_of(loaded, project)
    wanted = wanted_environment(project, loaded.for_target(target), target)
    if wanted.kind not in WRITTEN:
        kinds = {"current": "the current interpreter", "image": "an image"}
        step = "a project with a python_env.yaml or conda.yaml can have one"
        raise EnvironmentUnavailable(f"the project runs in {kinds[wanted.kind]}: no lock for it", next_step=step)
    return LockedProject(source, wanted)


def check_lock(project: LockedProject) -> Answer:
    """Hold the lock that a project carries against the environment that it declares; nothing is resolved.

    Raises:
        EnvironmentUnavailable: The Python that is wanted is not on this machine.
    """
    carried = carried_lock(project.wanted)
    if carried is None:
        return Answer(False, f"the project carries no {WRITTEN[project.wanted.kind]}; `mlflow-azure lock` writes one")
    return _answer(carried, "is up to date")


def write_lock(project: LockedProject, *, cache: Path, upgrade: bool, on_progress: Progress) -> Answer:
    """Write the lock beside the project, unless the one that is there still matches.

    Args:
        project: The project, in a folder of the user's.
        cache: The environment cache's folder.
        upgrade: True resolves again, with the newest versions that fit.
        on_progress: Told about each stage.

    Raises:
        EnvironmentUnavailable: It comes from git or a zip file, cannot be resolved, or its folder cannot be written to.
    """
    from mlflow_azure_backend.environment.pylock import pylock_of

    if project.source.is_checkout:
        what = "a project from git or a zip file has no folder to write a lock to"
        raise EnvironmentUnavailable(what, where=project.source.uri, next_step="only --check works on it")
    carried = carried_lock(project.wanted)
    if not upgrade and carried is not None and carried.lock is not None:
        return _answer(carried, "is up to date (--upgrade takes newer versions)")
    lock = resolve(project.wanted, cache=cache, upgrade=upgrade, on_progress=on_progress)
    name = WRITTEN[lock.kind]
    on_progress(f"writing {name}")
    _replace(project.wanted.folder / name, lock.text if lock.kind == "conda" else pylock_of(lock, project.wanted))
    written = carried_lock(project.wanted)
    if written is None or written.lock is None:
        why = "it is gone" if written is None else written.reason
        raise EnvironmentUnavailable(f"the lock does not do for its own project: {why}", where=name)
    return _answer(written, "is written")


def _answer(carried: CarriedLock, verb: str) -> Answer:
    if carried.lock is None:
        what = f"{carried.file} is stale: {carried.reason}; `mlflow-azure lock` renews it"
        return Answer(False, what, carried.file)
    lock = carried.lock
    packages = {package.name: package.version for package in lock.packages}
    text = f"{carried.file} {verb}: {counted(len(packages), 'package')} for python {lock.python_version}"
    return Answer(True, text, carried.file, lock.key, packages)


def _replace(file: Path, text: str) -> None:
    """Write a file of the user's, readable as his others, whole or not at all."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
            staged = Path(folder) / file.name
            staged.write_text(text, encoding="utf-8")
            staged.replace(file)
    except OSError as error:
        raise EnvironmentUnavailable(f"cannot be written: {error.strerror or error}", where=file) from None
