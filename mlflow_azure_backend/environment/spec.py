"""What a project wants to run in, read and followed to its last file, nothing resolved yet.

Which environment is meant is chosen as MLflow chooses (``mlflow/projects/backend/local.py``, read in 3.17.2):
``docker_env`` before everything, then the environment manager that the user names, then the one that the file implies
(virtualenv for python_env.yaml, conda for conda.yaml). One difference: a project without an environment file runs in
the current interpreter, where MLflow makes an empty virtual environment; that is noted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from mlflow_azure_backend.environment.conda.channels import public_channel
from mlflow_azure_backend.environment.indexes import Indexes
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlflow_azure_backend.environment.lock import EnvironmentKind
    from mlflow_azure_backend.environment.requirements import RequirementLine, Requirements

Declared = Literal["none", "python_env", "conda_env", "docker_env"]
"""Which kind of environment file the project has, in MLproject's words."""

MLFLOW_DEFAULT: Final = "MLflow's own default"
"""The origin of a requirement that no file of the project has."""

_MANAGERS: Final = ("local", "virtualenv", "uv", "conda")


@dataclass(frozen=True, slots=True)
class CondaRequirement:
    """A conda package that is wanted.

    Attributes:
        spec: Conda's match specification, as written: ``numpy >=1.26``.
        name: The package's name.
        origin: ``file:line``, relative to the project's folder.
        platforms: Only there (``linux-64``); None means everywhere.
    """

    spec: str
    name: str
    origin: str
    platforms: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class CondaSpec:
    """What only a conda environment wants.

    Attributes:
        requirements: The conda packages, in the file's order.
        channels: Names or addresses, the first one first. They may hold credentials, so they are never shown.
        platforms: Conda's names of the platforms that it is resolved for, this machine's first.
        virtual_packages: Name and version of what the solver may count on (``__cuda``), beyond what every machine of
            the platform has.
        variables: What ``variables:`` sets in an activated environment.
        solver: The conda, mamba or micromamba that the user wants to solve; None means rattler. Whose answer it is does
            not change the question, so it is not part of the fingerprint.
    """

    requirements: tuple[CondaRequirement, ...]
    channels: tuple[str, ...] = field(repr=False)
    platforms: tuple[str, ...]
    virtual_packages: tuple[tuple[str, str], ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    solver: str | None = None

    def public(self) -> list[object]:
        """What a fingerprint is made of: no credentials."""
        return [
            [(line.spec, line.platforms) for line in self.requirements],
            [public_channel(channel) for channel in self.channels],
            self.platforms,
            self.virtual_packages,
            self.variables,
        ]


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """The environment that is wanted.

    Attributes:
        kind: Whether it is there, or has to be built, and by whom.
        folder: The project's folder, which relative ``find_links`` start from. Not part of the fingerprint.
        python: The version wanted, as written (``3.11``, ``3.11.7``, ``>=3.9``); None means the current interpreter's.
        python_origin: ``file:line`` of that; None when nobody asked.
        requirements: What must be installed, ``-r`` files included.
        constraints: What bounds the versions.
        indexes: Where the project's files say to look.
        options: ``--no-binary`` and ``--only-binary`` lines.
        prerelease: True when pre-releases count everywhere.
        files: Every file that was read.
        notes: What was ignored or is not as MLflow does it, one line each, for the user.
        conda: What is wanted of conda; None for the other kinds.
        image: The container image whose own environment is wanted; None for the other kinds.
        in_container: True when it will be in a container, which brings its own Python. Not part of the fingerprint.
    """

    kind: EnvironmentKind
    folder: Path
    python: str | None = None
    python_origin: str | None = None
    requirements: tuple[RequirementLine, ...] = ()
    constraints: tuple[RequirementLine, ...] = ()
    indexes: Indexes = field(default_factory=Indexes)
    options: tuple[str, ...] = ()
    prerelease: bool = False
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    conda: CondaSpec | None = None
    image: str | None = None
    in_container: bool = False

    @property
    def fingerprint(self) -> str:
        """sha256 over all that can change what is resolved: no paths, origins, credentials or notes."""
        wanted = [
            self.kind,
            self.python,
            [(line.text, line.hashes) for line in self.requirements],
            [(line.text, line.hashes) for line in self.constraints],
            self.indexes.public(),
            self.options,
            self.prerelease,
            *(() if self.image is None else (self.image,)),
            *(() if self.conda is None else self.conda.public()),
        ]
        return hashlib.sha256(json.dumps(wanted).encode("utf-8")).hexdigest()


def read_environment(
    kind: Declared,
    path: Path | None,
    *,
    folder: Path,
    env_manager: str | None,
    current: bool,
    in_container: bool = False,
    image: str | None = None,
    channels: Sequence[str] | None = None,
    virtual_packages: Mapping[str, str] | None = None,
    solver: str | None = None,
) -> EnvironmentSpec:
    """Read what the project wants.

    Args:
        kind: Which environment file the project has.
        path: That file; None for ``none`` and ``docker_env``.
        folder: The project's folder.
        env_manager: ``--env-manager``; None means that the file decides.
        current: True when the configuration says ``environment: current``, which wins over everything.
        in_container: True when it will run in a container, where this interpreter is not.
        image: The container's image, by the project's ``docker_env`` or the configuration; None when nobody names one.
        channels: Conda channels in place of the file's; None means the file's.
        virtual_packages: What conda's solver may count on besides what every machine has; None means nothing.
        solver: A conda, mamba or micromamba that solves, by its name on PATH or its path; None means rattler.

    Raises:
        EnvironmentUnavailable: the file is wrong, or this kind of environment cannot be had here.
    """
    if env_manager is not None and env_manager not in _MANAGERS:
        step = f"the managers are {', '.join(_MANAGERS)}"
        raise EnvironmentUnavailable(f"unknown environment manager '{env_manager}'", next_step=step)
    if current:
        return EnvironmentSpec("current", folder)
    if kind == "docker_env":
        if in_container:
            return EnvironmentSpec("image", folder, image=image)
        step = 'set "compute": "docker" in the backend config, or "environment": "current" to use this interpreter'
        raise EnvironmentUnavailable("a docker_env project runs in a container", next_step=step)
    if in_container and (env_manager == "local" or (path is None and env_manager is None)):
        if image is None:
            what = "the project has no environment that a container could have"
            step = 'name an image that has one: "environment": {"image": NAME}, or docker_env in MLproject'
            raise EnvironmentUnavailable(what, next_step=step)
        return EnvironmentSpec("image", folder, image=image)
    if env_manager == "local":
        return EnvironmentSpec("current", folder)
    if kind == "conda_env":
        if env_manager in ("virtualenv", "uv") or path is None:
            return _python(path, folder, env_manager, conda=True, in_container=in_container)
        return _conda(path, folder, channels, virtual_packages or {}, solver)
    if env_manager == "conda":
        what = "a python_env project cannot be run with conda"
        raise EnvironmentUnavailable(what, next_step="use --env-manager virtualenv, uv or local")
    if path is None and env_manager is None:
        note = "no environment file: the current interpreter is used (MLflow would make an empty virtual environment)"
        return EnvironmentSpec("current", folder, notes=(note,))
    return _python(path, folder, env_manager, in_container=in_container)


def _conda(
    path: Path,
    folder: Path,
    channels: Sequence[str] | None,
    virtual_packages: Mapping[str, str],
    solver: str | None,
) -> EnvironmentSpec:
    from mlflow_azure_backend.environment.conda.file import read_conda_env
    from mlflow_azure_backend.environment.conda.wanted import conda_spec
    from mlflow_azure_backend.environment.requirements import read_requirements, shown_path

    folder, path = folder.absolute(), path.absolute()
    declared = read_conda_env(path, shown_path(path, folder))
    found = read_requirements(declared.pip_lines or (), file=path, folder=folder, environ=os.environ)
    for line in found.lines:
        _refuse_git(line)
    wanted, notes = conda_spec(declared, shown_path(path, folder), channels, virtual_packages, solver, os.environ)
    return EnvironmentSpec(
        kind="conda",
        folder=folder,
        requirements=tuple(found.lines),
        constraints=tuple(found.constraints),
        indexes=found.indexes,
        options=tuple(found.options),
        prerelease=found.prerelease,
        files=tuple(found.files),
        notes=(*declared.notes, *notes, *found.notes),
        conda=wanted,
    )


def _refuse_git(line: RequirementLine) -> None:
    """Before anything is solved or cloned; one with a marker may be for a platform that nobody asks for."""
    if re.match(r"(\S+ ?@ ?)?git\+", line.text) and ";" not in line.text:
        what = f"{line.text} is a git repository, and a conda lock holds wheels only"
        step = "name a released version; --env-manager uv pins git repositories"
        raise EnvironmentUnavailable(what, where=line.origin, next_step=step)


def _python(
    path: Path | None, folder: Path, env_manager: str | None, *, conda: bool = False, in_container: bool
) -> EnvironmentSpec:
    # Here, because a run in the current interpreter needs neither yaml nor packaging.
    from mlflow_azure_backend.environment.declaration import Declaration, read_conda_env_as_python, read_python_env
    from mlflow_azure_backend.environment.requirements import Requirements, read_requirements, shown_path

    folder = folder.absolute()
    declared, found = Declaration(), Requirements()
    if path is not None:
        path = path.absolute()
        read = read_conda_env_as_python if conda else read_python_env
        declared = read(path, shown_path(path, folder))
        found = read_requirements(declared.lines, file=path, folder=folder, environ=os.environ)
    return EnvironmentSpec(
        kind="python",
        folder=folder,
        python=declared.python,
        python_origin=declared.python_origin,
        requirements=(*found.lines, *_pip(found, env_manager)),
        constraints=tuple(found.constraints),
        indexes=found.indexes,
        options=tuple(found.options),
        prerelease=found.prerelease,
        files=tuple(found.files),
        notes=(*declared.notes, *found.notes),
        in_container=in_container,
    )


def _pip(found: Requirements, env_manager: str | None) -> tuple[RequirementLine, ...]:
    """MLflow's virtualenv has pip even if nobody lists it, its uv environment has not.

    Without it a ``pip install`` in a command would reach the user's own pip, and change the user's own environment.
    """
    from mlflow_azure_backend.environment.requirements import RequirementLine

    if env_manager == "uv" or found.indexes.no_index or any(line.name == "pip" for line in found.lines):
        return ()
    return (RequirementLine("pip", "pip", MLFLOW_DEFAULT),)
