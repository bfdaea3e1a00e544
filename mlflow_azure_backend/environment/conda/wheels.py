"""The ``pip:`` section of a conda.yaml, resolved around what conda installs.

uv is shown conda's Python packages as wheels that hold nothing but a name and a version with the label ``+conda``. A
constraint to that very version makes uv take conda's package for what it is, whatever the index has, and say so when
something asks for another version.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import tomli
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import BuildTag, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from mlflow_azure_backend.environment.indexes import has_credentials, redact
from mlflow_azure_backend.environment.uv_process import run_uv, uv_failure
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow_azure_backend.environment.indexes import Machine
    from mlflow_azure_backend.environment.spec import EnvironmentSpec

_LABEL: Final = "+conda"
_TRIPLES: Final = {
    "linux-64": "x86_64-manylinux_{glibc}",
    "linux-aarch64": "aarch64-manylinux_{glibc}",
    "osx-64": "x86_64-apple-darwin",
    "osx-arm64": "aarch64-apple-darwin",
    "win-64": "x86_64-pc-windows-msvc",
}
_GLIBCS: Final = (17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40)
"""Minor versions of glibc 2 that uv knows as platforms."""
_OLD_NAMES: Final = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of a package.

    Attributes:
        name: Canonical name of the project.
        version: Its version.
        url: Where the index has it; without credentials.
        sha256: Of the file.
        is_direct: True when the requirement itself gives the address.
    """

    name: str
    version: str
    url: str
    sha256: str
    is_direct: bool


def resolve_wheels(
    spec: EnvironmentSpec,
    machine: Machine,
    *,
    subdir: str,
    python: str,
    virtual_packages: Mapping[str, str],
    provided: Mapping[str, str],
    cache: Path,
    upgrade: bool,
) -> list[Wheel]:
    """Resolve the pip requirements for one platform, wheels only.

    Args:
        spec: For its requirements and indexes.
        machine: This machine's index settings.
        subdir: The platform in conda's words.
        python: The Python that conda installs, full version.
        virtual_packages: For the C library that wheels may need.
        provided: Canonical names on PyPI and versions of what conda installs.
        cache: For what is in between.
        upgrade: Ask for the newest versions.

    Raises:
        EnvironmentUnavailable: they do not fit together or beside conda's packages, or the index has no wheels.
    """
    if subdir not in _TRIPLES:
        raise EnvironmentUnavailable(f"pip requirements cannot be resolved for {subdir}")
    triple = _TRIPLES[subdir].format(glibc=f"2_{_glibc(virtual_packages)}")
    arguments = ["pip", "compile", "-", "--format", "pylock.toml", "--python", sys.executable, "--no-header"]
    arguments += ["--python-version", python, "--python-platform", triple, "--only-binary", ":all:"]
    arguments += ["--prerelease", "allow"] if spec.prerelease else []
    arguments += ["--upgrade"] if upgrade else []
    arguments += [word for path in machine.constraints for word in ("--constraints", path)]
    sources = machine.sources(spec.indexes, folder=spec.folder, environ=os.environ)
    lines = (*sources.lines, *spec.options, *(line.text for line in spec.requirements))
    with _stand_ins(provided, cache) as (folder, pins):
        bounds = [*pins, *(line.text for line in spec.constraints)]
        with tempfile.TemporaryFile(dir=folder) as constraints:
            constraints.write("".join(f"{line}\n" for line in bounds).encode("utf-8"))
            constraints.seek(0)
            done = run_uv(
                [*arguments, "--find-links", str(folder), "--constraints", f"/dev/fd/{constraints.fileno()}"],
                environ={**os.environ, **sources.variables},
                text="".join(f"{line}\n" for line in lines),
                keep_open=(constraints.fileno(),),
            )
    if done.returncode != 0:
        raise _failure(done.stderr, spec, cache)
    tags = {tag: rank for rank, tag in enumerate(_tags(subdir, python, virtual_packages))}
    packages = tomli.loads(done.stdout).get("packages", [])
    return [
        _wheel(package, tags, spec, subdir)
        for package in packages
        if canonicalize_name(package["name"]) not in provided
    ]


def _failure(stderr: str, spec: EnvironmentSpec, cache: Path) -> EnvironmentUnavailable:
    origins: dict[str, tuple[tuple[str, str], ...]] = {}
    conda = () if spec.conda is None else spec.conda.requirements
    for line in (*spec.requirements, *spec.constraints):
        origins[line.name] = (*origins.get(line.name, ()), (line.origin, line.text))
    for wanted in conda:
        origins[wanted.name] = (*origins.get(wanted.name, ()), (wanted.origin, f"{wanted.spec} (of conda)"))
    error = uv_failure(stderr.replace(_LABEL, " (of conda)"), origins=origins, folder=cache)
    step = error.next_step
    if "(of conda)" in error.what and step is None:
        step = "bound the conda package, or list the package in the pip section only"
    if "no wheels" in error.what or "no usable wheels" in error.what or "not buildable" in error.what:
        step = "take a version that has a wheel, or the conda package of it"
    return EnvironmentUnavailable(error.what, where=error.where, next_step=step)


@contextmanager
def _stand_ins(provided: Mapping[str, str], cache: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder of wheels that say only their name and version, and the constraints that choose them."""
    with tempfile.TemporaryDirectory(dir=cache, prefix="stand-ins-") as name:
        folder, pins = Path(name), []
        for project, version in sorted(provided.items()):
            pins.append(f"{project}=={version}{_LABEL}")
            stem = f"{project.replace('-', '_')}-{version}{_LABEL}"
            with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
                metadata = f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}{_LABEL}\n"
                wheel.writestr(f"{stem}.dist-info/METADATA", metadata)
                wheel.writestr(
                    f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
                )
                wheel.writestr(f"{stem}.dist-info/RECORD", "")
        yield folder, pins


def pep440(version: str) -> str | None:
    """A conda version as PyPI would write it, without a local label; None when it cannot be."""
    try:
        return Version(version).public
    except InvalidVersion:
        return None


def _wheel(package: dict[str, Any], tags: Mapping[Tag, int], spec: EnvironmentSpec, subdir: str) -> Wheel:
    name = canonicalize_name(package["name"])
    lines = [line for line in (*spec.requirements, *spec.constraints) if line.name == name]
    origin = lines[0].origin if lines else None
    wanted = {pin for line in lines for pin in line.hashes}
    shown = f"{name} {package.get('version', '')}".strip()
    if "vcs" in package or "directory" in package:
        step = "name a released version; --env-manager uv pins git repositories"
        raise EnvironmentUnavailable(f"{shown} has no wheel that a lock could name", where=origin, next_step=step)
    if "archive" in package:
        archive = package["archive"]
        return _checked(Wheel(name, package.get("version", ""), *_place(archive), is_direct=True), shown, origin)
    best: tuple[int, BuildTag, dict[str, Any]] | None = None
    for wheel in package.get("wheels", []):
        if wanted and f"sha256:{wheel['hashes'].get('sha256', '')}" not in wanted:
            continue
        _, _, build, its_tags = parse_wheel_filename(_file_name(wheel))
        rank = min((tags[tag] for tag in its_tags if tag in tags), default=None)
        if rank is not None and (best is None or (rank, _descending(build)) < (best[0], _descending(best[1]))):
            best = rank, build, wheel
    if best is None:
        what = f"{shown}: none of its wheels fits {subdir}" + (" and the hashes of the requirement" if wanted else "")
        raise EnvironmentUnavailable(what, where=origin, next_step="correct the --hash, or take another version")
    return _checked(Wheel(name, package["version"], *_place(best[2]), is_direct=False), shown, origin)


def _descending(build: BuildTag) -> tuple[int, str]:
    return (-build[0], build[1]) if build else (0, "")


def _file_name(wheel: dict[str, Any]) -> str:
    return str(wheel.get("name") or unquote(urlsplit(wheel.get("url") or wheel["path"]).path).rpartition("/")[2])


def _place(file: dict[str, Any]) -> tuple[str, str]:
    address = file.get("url") or file["path"]
    return redact(str(address)) if has_credentials(str(address)) else str(address), file["hashes"].get("sha256", "")


def _checked(wheel: Wheel, shown: str, origin: str | None) -> Wheel:
    if not wheel.sha256:
        what = f"{shown}: the index gives no sha256 that it could be pinned by"
        raise EnvironmentUnavailable(what, where=origin)
    if wheel.is_direct and not wheel.url.partition("#")[0].endswith(".whl"):
        step = "name a released version that has a wheel"
        raise EnvironmentUnavailable(
            f"{shown} is no wheel, and a conda lock holds wheels only", where=origin, next_step=step
        )
    return wheel


def _glibc(virtual_packages: Mapping[str, str]) -> int:
    minor = int(re.sub(r"^2\.(\d+).*", r"\1", virtual_packages.get("__glibc", "2.28")))
    return max((known for known in _GLIBCS if known <= minor), default=_GLIBCS[0])


def _tags(subdir: str, python: str, virtual_packages: Mapping[str, str]) -> Iterator[Tag]:
    """What fits, the best first, as pip ranks it."""
    major, minor = map(int, python.split(".")[:2])
    platforms = list(_platforms(subdir, virtual_packages))
    yield from cpython_tags((major, minor), platforms=platforms)
    yield from compatible_tags((major, minor), interpreter=f"cp{major}{minor}", platforms=platforms)


def _platforms(subdir: str, virtual_packages: Mapping[str, str]) -> Iterator[str]:
    system, _, machine = subdir.partition("-")
    if system == "win":
        yield "win_amd64"
    elif system == "osx":
        version = (*map(int, virtual_packages.get("__osx", "11.0").split(".")), 0)[:2]
        yield from mac_platforms((version[0], version[1]), "x86_64" if machine == "64" else machine)
    else:
        architecture = "x86_64" if machine == "64" else machine
        for glibc in range(_glibc(virtual_packages), 4, -1):
            yield f"manylinux_2_{glibc}_{architecture}"
            if glibc in _OLD_NAMES:
                yield f"{_OLD_NAMES[glibc]}_{architecture}"
        yield f"linux_{architecture}"
