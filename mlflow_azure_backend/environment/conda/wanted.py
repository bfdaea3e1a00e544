"""From what a conda.yaml says to what is resolved: channels, platforms, virtual packages, and conda's own pip."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend.environment.conda.channels import (
    ANACONDA,
    expand_variables,
    has_secret,
    split_channel,
    unset_variable,
)
from mlflow_azure_backend.environment.spec import CondaRequirement, CondaSpec
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlflow_azure_backend.environment.conda.file import CondaDeclaration

CLUSTER_PLATFORM: Final = "linux-64"
"""What Azure ML's machines are; everything is resolved for it too."""
_MACHINES: Final = {"x86_64": "64", "amd64": "64", "aarch64": "aarch64", "arm64": "arm64", "ppc64le": "ppc64le"}
_SYSTEMS: Final = {"linux": "linux", "darwin": "osx", "win32": "win"}
_ARCHITECTURES: Final = {"64": "x86_64", "arm64": "arm64", "aarch64": "aarch64", "ppc64le": "ppc64le"}
_MLFLOW_S: Final = ("MLFLOW_CONDA_HOME", "MLFLOW_CONDA_CREATE_ENV_CMD")
"""Where MLflow itself looks for a conda (``mlflow/utils/conda.py``, read in 3.17.2)."""
_BASELINE: Final[Mapping[str, Mapping[str, str]]] = {
    "linux": {"__unix": "0", "__linux": "5.10", "__glibc": "2.28"},
    "osx": {"__unix": "0", "__osx": "11.0"},
    "win": {"__win": "0"},
}
"""What every machine of a system is taken to have: conda-lock's own defaults (``default-virtual-packages.yaml``, 4.0.3)
without ``__cuda``, which is there only if the user says so."""


def local_platform() -> str:
    """This machine in conda's words, such as ``linux-64``.

    Raises:
        EnvironmentUnavailable: conda has no packages for it.
    """
    system, machine = _SYSTEMS.get(sys.platform), _MACHINES.get(platform.machine().lower())
    if system is None or machine is None:
        step = "use --env-manager virtualenv or local"
        raise EnvironmentUnavailable(f"conda knows no {sys.platform} on {platform.machine()}", next_step=step)
    return f"{system}-{machine}"


def virtual_packages_of(subdir: str, declared: Mapping[str, str]) -> dict[str, str]:
    """Virtual packages, as ``VERSION`` or ``VERSION BUILD``, that the solver may count on for a platform."""
    system, _, machine = subdir.partition("-")
    baseline = {**_BASELINE[system], "__archspec": f"1 {_ARCHITECTURES[machine]}"}
    return {**baseline, **{name: version for name, version in declared.items() if _fits(name, system)}}


def _fits(name: str, system: str) -> bool:
    """Whether a declared package can be there: ``__osx`` means nothing on Linux."""
    owners = {"__osx": "osx", "__glibc": "linux", "__linux": "linux", "__win": "win"}
    return owners.get(name, system) == system and not (name == "__cuda" and system == "osx")


def conda_spec(
    declared: CondaDeclaration,
    shown: str,
    channels: Sequence[str] | None,
    virtual_packages: Mapping[str, str],
    solver: str | None,
    environ: Mapping[str, str],
) -> tuple[CondaSpec, tuple[str, ...]]:
    """What is to be resolved, and notes on it.

    Args:
        declared: The file's content.
        shown: The file's name in messages.
        channels: In place of the file's; None means the file's.
        virtual_packages: Declared by the configuration.
        solver: The program that solves, by its name or path; None means rattler.
        environ: Gives variables in channels' addresses their values, and PATH.

    Raises:
        EnvironmentUnavailable: a channel, a virtual package or a solver is none, or the file is not for this platform.
    """
    here = local_platform()
    if declared.platforms and here not in declared.platforms:
        what = f"{here}, which this machine is, is not among its platforms"
        raise EnvironmentUnavailable(what, where=shown, next_step=f"add {here} to platforms")
    for name, version in virtual_packages.items():
        if not re.fullmatch(r"__[a-z0-9_]+", name) or not re.fullmatch(r"[0-9][\w.]*( \w+)?", version):
            step = 'for example {"__cuda": "12.4"}'
            what = f"'{name}': '{version}' is no virtual package with its version"
            raise EnvironmentUnavailable(what, where="environment.virtual_packages", next_step=step)
    notes: list[str] = []
    found = tuple(dict.fromkeys(_channels(declared, shown, channels, environ, notes)))
    requirements = declared.requirements
    if declared.pip_lines is not None and not any(line.name == "pip" for line in requirements):
        requirements = (*requirements, CondaRequirement("pip", "pip", f"{shown} (conda adds pip for its pip section)"))
    for name in _MLFLOW_S:
        if solver is None and environ.get(name):
            step = '"environment": {"solver": PROGRAM} lets a conda of yours solve'
            notes.append(f"{name} is not used, for no conda is needed; {step}")
    if not any(line.name in ("python", "pip") for line in requirements):
        notes.append(f"{shown}: no python is asked for, so the command may find one outside of the environment")
    return (
        CondaSpec(
            requirements,
            found,
            declared.platforms or tuple(dict.fromkeys((here, CLUSTER_PLATFORM))),
            tuple(sorted(virtual_packages.items())),
            declared.variables,
            None if solver is None else _program(solver, found, environ),
        ),
        tuple(notes),
    )


def _program(solver: str, channels: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """The path of the program that solves, if it can be told all that it must know."""
    where = "environment.solver"
    found = shutil.which(solver, path=environ.get("PATH"))
    if found is None:
        step = "name a conda, mamba or micromamba on PATH, or leave it out: none is needed"
        raise EnvironmentUnavailable(f"there is no program {solver}", where=where, next_step=step)
    if any(split_channel(channel)[1] is not None for channel in channels):
        what = "credentials in a channel's address would be seen by everybody on the solver's command line"
        raise EnvironmentUnavailable(what, where=where, next_step="leave it out, or let ~/.netrc hold them")
    return str(Path(found).absolute())


def _channels(
    declared: CondaDeclaration,
    shown: str,
    configured: Sequence[str] | None,
    environ: Mapping[str, str],
    notes: list[str],
) -> Iterator[str]:
    given = declared.channels
    if configured is not None:
        given = tuple((channel, "environment.channels") for channel in configured)
    if not given:
        step = "conda would take those of your .condarc"
        notes.append(f"{shown}: it names no channels, so conda-forge is used ({step})")
        given = (("conda-forge", shown),)
    for channel, origin in given:
        if channel == "nodefaults":
            continue
        if channel == "defaults":
            notes.append(
                f"{origin}: 'defaults' are Anaconda's channels main and r, whose terms ask larger organisations for a "
                "licence; conda-forge needs none"
            )
            yield from ANACONDA
            continue
        if name := unset_variable(channel, environ):
            what, step = f"${name} is not set in the environment", f"export {name}=..."
            raise EnvironmentUnavailable(what, where=origin, next_step=step)
        if has_secret(channel):
            notes.append(
                f"{origin}: credentials stand in the file, which is stored with the run; use ~/.netrc or $NAME"
            )
        yield expand_variables(channel, environ)
