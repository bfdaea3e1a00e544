"""Whether a ``conda-lock.yml`` that another tool made has what a conda.yaml asks for, as far as a lock can show it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend.environment.conda.channels import ANACONDA, public_channel, split_channel
from mlflow_azure_backend.environment.conda.locking import read_document, variables_of
from mlflow_azure_backend.environment.conda.wanted import local_platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rattler import PackageRecord

    from mlflow_azure_backend.environment.lock import EnvironmentLock, LockedPackage
    from mlflow_azure_backend.environment.spec import CondaRequirement, CondaSpec

_FILE: Final = re.compile(r"/(?P<name>[^/]+)-(?P<version>[^/-]+)-(?P<build>[^/-]+)\.(?:conda|tar\.bz2)$")


def mismatch(conda: CondaSpec, lock: EnvironmentLock) -> str | None:
    """Why a lock does not do for the conda part of a project on this platform; None when it does.

    Args:
        conda: What the project asks for.
        lock: A ``conda-lock.yml`` as ``locking.read_recorded`` understood it.
    """
    return next(_reasons(conda, lock), None)


def _reasons(conda: CondaSpec, lock: EnvironmentLock) -> Iterator[str]:
    for package in lock.packages:
        if package.url is None or split_channel(package.url)[1] is not None or "$" in package.url:
            yield f"the address of {package.name} holds credentials"
        elif package.manager == "pip" and not package.url.partition("#")[0].endswith(".whl"):
            yield f"{package.name} is no wheel"
    document, here = read_document(lock.text), local_platform()
    others = {str(one.get("category", "main")) for one in document["package"] if one["platform"] == here} - {"main"}
    if others:
        yield f"it has packages of the category {', '.join(sorted(others))}"
    channels = [str(one["url"]) for one in document["metadata"]["channels"]]
    if [*_expanded(channels)] != [public_channel(channel) for channel in conda.channels]:
        yield "it was made for other channels"
    locked = {package.name: package for package in lock.packages if package.manager == "conda"}
    for line in conda.requirements:
        if line.platforms is None or here in line.platforms:
            yield from _clash(line, locked.get(line.name), here)
    if variables_of(document) != dict(conda.variables):
        yield "it does not set the variables that the project sets"


def _clash(line: CondaRequirement, package: LockedPackage | None, here: str) -> Iterator[str]:
    import rattler
    from rattler.exceptions import InvalidMatchSpecError

    if package is None:
        yield f"{line.origin} asks for {line.name}, which it does not have for {here}"
        return
    try:
        wanted = rattler.MatchSpec(line.spec, strict=False)
    except InvalidMatchSpecError:
        yield f"{line.origin}: '{line.spec}' is not a conda specification"
        return
    record = _record(package, here)
    if record is None:
        yield f"{package.name} {package.version} has an address of another package"
    elif not wanted.matches(record):
        yield f"{line.origin} asks for {line.spec}, and it has {package.name} {package.version} {record.build}"
    elif wanted.channel is not None and not str(package.url).startswith(wanted.channel.base_url):
        yield f"{line.origin} asks for {line.spec}, and it has {package.name} of another channel"


def _record(package: LockedPackage, here: str) -> PackageRecord | None:
    """What the solver would know of it: its build stands in its address only. None when that is another package's."""
    import rattler
    from rattler.exceptions import InvalidVersionError

    file = _FILE.search(str(package.url))
    if package.version is None or file is None or (file["name"], file["version"]) != (package.name, package.version):
        return None
    number = re.search(r"\d+$", file["build"])
    try:
        return rattler.PackageRecord(
            rattler.PackageName(package.name),
            rattler.VersionWithSource(package.version),
            rattler.BuildString(file["build"]),
            int(number[0]) if number else 0,
            rattler.Subdir(here),
        )
    except InvalidVersionError:
        return None


def _expanded(channels: list[str]) -> Iterator[str]:
    """Channels as a specification has them: of ``defaults`` conda-lock keeps the name."""
    for channel in channels:
        if channel == "defaults":
            yield from ANACONDA
        else:
            yield public_channel(channel)
