"""The resolver as a process of its own: rattler, uv and conda-lock's models, for every platform of a specification.

Run as ``python -m``. It reads one pickled ``Order`` from its parent and writes JSON documents, one a line:
``{"stage": ...}`` while it works, then ``{"text": ...}`` or ``{"error": [what, where, next step]}``. A process, because
importing these libraries takes seconds and a hundred megabytes that the client would keep, and because rattler cannot
be interrupted.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import yaml

from mlflow_azure_backend.environment.conda.channels import split_channel
from mlflow_azure_backend.environment.conda.locking import GENERATED, VARIABLES
from mlflow_azure_backend.environment.conda.named_solver import solve_by
from mlflow_azure_backend.environment.conda.names import pypi_name
from mlflow_azure_backend.environment.conda.wanted import virtual_packages_of
from mlflow_azure_backend.environment.conda.wheels import Wheel, pep440, resolve_wheels
from mlflow_azure_backend.environment.indexes import Machine, redact
from mlflow_azure_backend.environment.spec import CondaRequirement, CondaSpec, EnvironmentSpec
from mlflow_azure_backend.environment.uv_process import shortened
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rattler import GenericVirtualPackage, MatchSpec, RepoDataRecord

_RETRIES: Final = 2
_HEAD: Final = f"""\
{GENERATED}
# Make it anew:     mlflow-azure lock --upgrade PROJECT
# Install it by hand:  conda-lock install -n NAME conda-lock.yml
"""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be resolved.

    Attributes:
        spec: With its ``conda`` part.
        machine: This machine's index settings.
        cache: The environment cache's folder.
        upgrade: Ask for the newest versions of wheels, too.
    """

    spec: EnvironmentSpec
    machine: Machine
    cache: Path
    upgrade: bool


def main() -> int:
    """Resolve what the parent orders."""
    order: Order = pickle.load(sys.stdin.buffer)  # noqa: S301 - the pipe's other end is our parent
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed must not be taken for a report

    def report(document: dict[str, object]) -> None:
        reports.write(json.dumps(document) + "\n")
        reports.flush()

    try:
        text = _lock(order, lambda stage: report({"stage": stage}))
    except EnvironmentUnavailable as error:
        report({"error": [error.what, error.where, error.next_step]})
        return 1
    report({"text": text})
    return 0


def _lock(order: Order, on_progress: Callable[[str], None]) -> str:
    conda = order.spec.conda
    if conda is None:
        raise ValueError("only a conda specification is solved here")
    channels = [split_channel(channel)[0] for channel in conda.channels]
    packages: list[dict[str, Any]] = []
    for subdir, found in _solve_all(conda, channels, order.cache, on_progress).items():
        packages += found
        if order.spec.requirements:
            on_progress(f"resolving {len(order.spec.requirements)} pip requirements for {subdir}")
            wheels = _wheels(order, conda, found, subdir)
            packages += [_pip_package(wheel, subdir, order.spec.folder) for wheel in wheels]
    return _text(order.spec, conda, channels, packages)


def _solve_all(
    conda: CondaSpec, channels: list[str], cache: Path, on_progress: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """The conda packages of each platform, by rattler or by the program that the user names."""
    wanted = {
        subdir: [line for line in conda.requirements if line.platforms is None or subdir in line.platforms]
        for subdir in conda.platforms
    }
    if conda.solver is None:
        return asyncio.run(_solve_by_rattler(conda, wanted, channels, on_progress))
    found = {}
    for subdir, lines in wanted.items():
        on_progress(f"{Path(conda.solver).name} resolves {len(lines)} conda packages for {subdir}")
        specs = [str(_match_spec(line)) for line in lines]
        packages = solve_by(conda.solver, conda, specs, channels, subdir, cache)
        found[subdir] = [_as_locked(package, subdir) for package in packages]
    return found


async def _solve_by_rattler(
    conda: CondaSpec,
    wanted: dict[str, list[CondaRequirement]],
    channels: list[str],
    on_progress: Callable[[str], None],
) -> dict[str, list[dict[str, Any]]]:
    import rattler
    from rattler.exceptions import GatewayError, SolverError

    config = rattler.Config.load_from_default_locations("rattler")
    client = rattler.Client.from_config(config, max_retries=_RETRIES)
    cache = os.environ.get("RATTLER_CACHE_DIR")
    gateway = rattler.Gateway(cache_dir=Path(cache, "repodata") if cache else None, client=client)
    found = {}
    for subdir, lines in wanted.items():
        on_progress(f"resolving {len(lines)} conda packages for {subdir}")
        try:
            records = await rattler.solve(
                [rattler.Channel(channel) for channel in channels],
                [_match_spec(line) for line in lines],
                gateway=gateway,
                platforms=[rattler.Subdir(subdir), rattler.Subdir("noarch")],
                virtual_packages=list(_virtual_packages(subdir, conda)),
                channel_relations="disabled",
            )
        except (SolverError, GatewayError) as error:
            raise solver_failure(str(error), conda, lines, subdir) from None
        found[subdir] = [_conda_package(record, subdir) for record in records]
    return found


def _match_spec(line: CondaRequirement) -> MatchSpec:
    import rattler
    from rattler.exceptions import InvalidMatchSpecError

    try:
        return rattler.MatchSpec(line.spec, strict=False)
    except InvalidMatchSpecError as error:
        what = f"'{line.spec}' is not a conda specification: {error}"
        step = 'write NAME or "NAME >=VERSION"'
        raise EnvironmentUnavailable(what, where=line.origin, next_step=step) from None


def _virtual_packages(subdir: str, conda: CondaSpec) -> Iterator[GenericVirtualPackage]:
    import rattler

    for name, value in virtual_packages_of(subdir, dict(conda.virtual_packages)).items():
        version, _, build = value.partition(" ")
        yield rattler.GenericVirtualPackage(
            rattler.PackageName(name), rattler.Version(version), rattler.BuildString(build or "0")
        )


def solver_failure(
    reason: str, conda: CondaSpec, wanted: list[CondaRequirement], subdir: str
) -> EnvironmentUnavailable:
    """Say in one line why rattler found nothing, with the lines of the file that clash."""
    body = redact(re.sub(r"\s*[├└│─]+\s*", " ", " ".join(reason.split())))
    if "could not find subdir" in body or "Caused by: HTTP status client error (404" in body:
        channel = _found(r"in channel '([^']+?)/?'", body) or ", ".join(
            split_channel(channel)[0] for channel in conda.channels
        )
        return EnvironmentUnavailable(f"there is no channel {channel}", next_step="check the name under channels")
    if refused := _found(r"HTTP status client error \((?:401|403)[^)]*\) for url \(([^)]+)\)", body):
        step = "give credentials in ~/.netrc or the file that RATTLER_AUTH_FILE names"
        return EnvironmentUnavailable(f"the channel at {refused} refuses us: no valid credentials", next_step=step)
    if address := _found(r"for url \(([^)]+)\)", body):
        why = body.rpartition("Caused by: ")[2].partition(" for url (")[0]
        what = f"the channel cannot be reached: {address}: {why}"
        step = "check the network, and the mirrors in rattler's config.toml"
        return EnvironmentUnavailable(what, next_step=step)
    body = body.removeprefix("Cannot solve the request because of: ").rstrip(".")
    lines = _lines_named(body, wanted)
    where = ", ".join(dict.fromkeys(line.origin for line in lines)) or None
    if unknown := re.match(r"No candidates were found for (\S+) (.+)$", body):
        return _no_candidates(unknown[1], unknown[2], subdir, where)
    said = {line.name for line in lines if line.spec in body}
    others = [line for line in lines if line.name not in said and line.spec != line.name]
    clash = f", while {', '.join(f'{line.spec} is asked for' for line in others)}" if others else ""
    return EnvironmentUnavailable(shortened(f"no versions fit together on {subdir}: {body}{clash}"), where=where)


def _no_candidates(name: str, version: str, subdir: str, where: str | None) -> EnvironmentUnavailable:
    if name.startswith("__"):
        step = f'declare it: "environment": {{"virtual_packages": {{"{name}": "VERSION"}}}}'
        return EnvironmentUnavailable(f"{name} is not declared for {subdir}", where=where, next_step=step)
    if version == "*":
        step = "check its spelling and the channels, or list the platforms that it is for under platforms"
        return EnvironmentUnavailable(
            f"no channel has a package named {name} for {subdir}", where=where, next_step=step
        )
    what = f"no channel has {name} {version} for {subdir}"
    return EnvironmentUnavailable(what, where=where, next_step="ask for another version, or add a channel that has it")


def _lines_named(text: str, wanted: list[CondaRequirement]) -> list[CondaRequirement]:
    words = set(re.findall(r"[A-Za-z0-9_][\w.-]*", text))
    return [line for line in wanted if line.name in words]


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None


def _wheels(order: Order, conda: CondaSpec, packages: list[dict[str, Any]], subdir: str) -> list[Wheel]:
    python = next((package["version"] for package in packages if package["name"] == "python"), None)
    if python is None:
        raise EnvironmentUnavailable(
            f"pip requirements need a python, and conda installs none for {subdir}",
            where=order.spec.requirements[0].origin,
            next_step="add python to the conda dependencies",
        )
    provided = {
        pypi_name(package["name"]): version
        for package in packages
        if _holds_modules(package) and (version := pep440(package["version"])) is not None
    }
    return resolve_wheels(
        order.spec,
        order.machine,
        subdir=subdir,
        python=python,
        virtual_packages=virtual_packages_of(subdir, dict(conda.virtual_packages)),
        provided=provided,
        cache=order.cache,
        upgrade=order.upgrade,
    )


def _holds_modules(package: dict[str, Any]) -> bool:
    """What depends on Python is taken for a project of PyPI: conda's ``graphviz`` is a program, PyPI's is a module."""
    return not {"python", "python_abi"}.isdisjoint(package["dependencies"])


def _conda_package(record: RepoDataRecord, subdir: str) -> dict[str, Any]:
    said = {"name": record.name.normalized, "version": str(record.version), "url": record.url}
    hashes = {"md5": record.md5 and record.md5.hex(), "sha256": record.sha256 and record.sha256.hex()}
    return _as_locked({**said, **hashes, "depends": record.depends}, subdir)


def _as_locked(package: Mapping[str, Any], subdir: str) -> dict[str, Any]:
    """A package of a channel's repodata as conda-lock's format has it."""
    hashes = {name: package.get(name) for name in ("md5", "sha256")}
    if not hashes["md5"]:
        what = f"the channel gives no md5 for {package['url']}, which conda-lock's format needs"
        raise EnvironmentUnavailable(redact(what))
    dependencies = (dependency.partition(" ") for dependency in sorted(package.get("depends") or ()))
    return {
        "name": package["name"],
        "version": package["version"],
        "manager": "conda",
        "platform": subdir,
        "dependencies": {name: bound for name, _, bound in dependencies},
        "url": package["url"],
        "hash": {name: value for name, value in hashes.items() if value},
        "category": "main",
        "optional": False,
    }


def _pip_package(wheel: Wheel, subdir: str, folder: Path) -> dict[str, Any]:
    direct = {"source": {"type": "url", "url": wheel.url}} if wheel.is_direct else {}
    return {
        "name": wheel.name,
        "version": wheel.version,
        "manager": "pip",
        "platform": subdir,
        "dependencies": {},
        "url": _portable(wheel.url, folder),
        "hash": {"sha256": wheel.sha256},
        **direct,
        "category": "main",
        "optional": False,
    }


def _portable(address: str, folder: Path) -> str:
    """A file's address without its place on this machine: in the project relative to it, elsewhere only its name.

    The installer takes such a file from where the index options lead, by its version and hash.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("", "file"):
        return address
    path = Path(unquote(parts.path))
    place = path if path.is_absolute() else Path.cwd() / path
    return f"file:{place.relative_to(folder).as_posix() if place.is_relative_to(folder) else place.name}"


def _text(spec: EnvironmentSpec, conda: CondaSpec, channels: list[str], packages: list[dict[str, Any]]) -> str:
    from conda_lock.lockfile.v1.models import Lockfile

    ordered = sorted(packages, key=lambda package: (package["manager"], package["name"], package["platform"]))
    metadata: dict[str, Any] = {
        "content_hash": dict.fromkeys(conda.platforms, spec.fingerprint),
        "channels": [{"url": channel, "used_env_vars": []} for channel in channels],
        "platforms": list(conda.platforms),
        "sources": [os.path.relpath(file, spec.folder) for file in spec.files[:1]],
    }
    if conda.variables:
        metadata["custom_metadata"] = {VARIABLES: json.dumps(dict(conda.variables))}
    lock = Lockfile.model_validate({"version": 1, "metadata": metadata, "package": ordered})
    body: str = yaml.dump(lock.dict_for_output(), sort_keys=False, allow_unicode=True, width=1_000_000)
    return _HEAD + body


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # rattler's threads may still run, and touch an interpreter that is being taken down (0.28: SIGSEGV)
