"""Locks that a project carries: ``pylock.toml`` (PEP 751), ``uv.lock`` and ``conda-lock.yml``, used when they match.

What is taken from them is which files are installed: names, versions, hashes, commits. Where the files are fetched is
this machine's business, as for every lock here, so that a company's mirror and its credentials count.
A lock matches when it has everything that the environment file asks for, in versions that fit, for the Python and the
platform that are wanted. One that ``mlflow-azure lock`` wrote also says which wish it answers. What no lock can show is
whether it still has all that an extra needs: extras are taken on trust.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlflow_azure_backend.environment.indexes import has_credentials, read_machine
from mlflow_azure_backend.environment.interpreters import Interpreter, current_python, find_python, satisfies
from mlflow_azure_backend.environment.lock import LOCK_FILES, EnvironmentLock, LockedPackage
from mlflow_azure_backend.environment.python_lock import lock_text, read
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from packaging.requirements import Requirement

    from mlflow_azure_backend.environment.requirements import RequirementLine
    from mlflow_azure_backend.environment.spec import EnvironmentSpec

TABLE: Final = "mlflow-azure"
"""The table of ours below ``[tool]``."""
CARRIED: Final = ("pylock.toml", "uv.lock")
"""The files that are looked for in a project's folder; the first one that is there counts."""

_LARGEST: Final = 20_000_000  # bytes


@dataclass(frozen=True, slots=True)
class CarriedLock:
    """A lock that lies beside a project.

    Attributes:
        file: Its name.
        lock: What it says; None when it does not match.
        reason: Why it does not match; None when it does.
    """

    file: str
    lock: EnvironmentLock | None = None
    reason: str | None = None

    @property
    def note(self) -> str:
        """What the user is told of it."""
        if self.reason is None:
            return f"the environment is locked by {self.file}"
        return f"{self.file} is not used: {self.reason}; resolved anew (`mlflow-azure lock` renews it)"


class _Stale(Exception):
    """Why a lock does not match."""


def carried_lock(spec: EnvironmentSpec) -> CarriedLock | None:
    """The lock that a project carries for the environment that it declares; None when it carries none.

    Raises:
        EnvironmentUnavailable: The Python that is wanted is not on this machine.
    """
    if spec.kind == "conda":
        return _carried_conda_lock(spec)
    if spec.kind != "python":
        return None
    file = next((spec.folder / name for name in CARRIED if (spec.folder / name).is_file()), None)
    if file is None:
        return None
    try:
        return CarriedLock(file.name, _lock(file, spec))
    except _Stale as stale:
        return CarriedLock(file.name, reason=str(stale))


def _carried_conda_lock(spec: EnvironmentSpec) -> CarriedLock | None:
    from mlflow_azure_backend.environment.conda.locking import GENERATED, read_recorded
    from mlflow_azure_backend.environment.conda.wanted import local_platform

    file = spec.folder / LOCK_FILES["conda"]
    if not file.is_file():
        return None
    try:
        text = _text(file)
        lock = read_recorded(text, spec, read_machine(os.environ))
        if f"\n    {local_platform()}: {spec.fingerprint}\n" not in text:
            _check_conda(spec, lock)
            if text.startswith(GENERATED):
                raise _Stale("the project asks for something else than when it was locked")
        return CarriedLock(file.name, lock)
    except _Stale as stale:
        return CarriedLock(file.name, reason=str(stale))
    except EnvironmentUnavailable as error:
        return CarriedLock(file.name, reason=error.what)


def _check_conda(spec: EnvironmentSpec, lock: EnvironmentLock) -> None:
    """Compare what is asked for, line by line, with a lock that does not say which wish it answers."""
    from mlflow_azure_backend.environment.conda.carried import mismatch
    from mlflow_azure_backend.environment.conda.names import pypi_name
    from mlflow_azure_backend.environment.conda.wheels import pep440

    if spec.conda is not None and (reason := mismatch(spec.conda, lock)) is not None:
        raise _Stale(reason)
    packages = sorted(lock.packages, key=lambda package: package.manager)  # a wheel lies over conda's package
    locked = {
        pypi_name(package.name): package
        for package in packages
        if package.version is not None and pep440(package.version) is not None
    }
    _check_requirements(spec, locked, _marker_variables(lock.python_version or "0", lock.implementation))


def wish(spec: EnvironmentSpec) -> str:
    """The fingerprint of what the project's own files ask for: the same for every environment manager."""
    return replace(spec, requirements=tuple(_asked(spec))).fingerprint


def _asked(spec: EnvironmentSpec) -> Iterator[RequirementLine]:
    """What the project asks for, without the pip that MLflow gives to everybody."""
    from mlflow_azure_backend.environment.spec import MLFLOW_DEFAULT

    return (line for line in spec.requirements if line.origin != MLFLOW_DEFAULT)


def _lock(file: Path, spec: EnvironmentSpec) -> EnvironmentLock:
    content = _parse(_export(file) if file.name == "uv.lock" else _text(file))
    tool = content.get("tool")
    ours = tool.get(TABLE) if isinstance(tool, dict) else None
    python = _python(spec, ours)
    variables = _marker_variables(python.version, python.implementation)
    packages = sorted(_packages(content, variables), key=lambda package: package.name)
    _check_python(content.get("requires-python"), python)
    _check_requirements(spec, {package.name: package for package in packages}, variables)
    if isinstance(ours, dict) and ours.get("wish") != wish(spec):
        changed = ", ".join(path.name for path in spec.files) or "the project"
        raise _Stale(f"{changed} asks for something else than when it was locked")
    _check_platform(content, variables, python)
    text = lock_text(python, spec.options, packages)
    return read(text, spec, read_machine(os.environ))


def _python(spec: EnvironmentSpec, ours: object) -> Interpreter:
    """The Python that a lock has to be for: one of this machine, or the container's own, which need not be here.

    A container's image is chosen by what the lock was made for, as far as a lock of ours says it.
    """
    current = current_python()
    if spec.in_container:
        made_for = str(ours.get("python")) if isinstance(ours, dict) else current.version
        for version in (made_for, spec.python or current.version):
            if re.fullmatch(r"\d+(\.\d+){1,2}", version) and satisfies(version, spec.python):
                return Interpreter(current.executable, version, current.implementation)
    return find_python(spec.python, environ=os.environ, where=spec.python_origin)


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST:
            raise _Stale("it is too large for a lock")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _Stale(f"it cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})") from None


def _export(file: Path) -> str:
    """A ``uv.lock`` in PEP 751's form, by uv itself; it is neither checked nor changed."""
    from mlflow_azure_backend.environment.uv_process import run_uv, uv_failure

    command = ["export", "--frozen", "--offline", "--no-dev", "--no-emit-project", "--no-header", "--no-annotate"]
    done = run_uv([*command, "--format", "pylock.toml", "--project", str(file.parent)], environ=os.environ)
    if done.returncode != 0:
        raise _Stale(f"uv cannot read it ({uv_failure(done.stderr, origins={}, folder=file.parent).what})")
    return done.stdout


def _parse(text: str) -> dict[str, Any]:
    import tomli

    try:
        content = tomli.loads(text)
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise _Stale(f"it is no TOML ({error})") from None
    if str(content.get("lock-version", "")).partition(".")[0] != "1":
        raise _Stale("its lock-version is not 1")
    return content


def _packages(content: Mapping[str, Any], variables: dict[str, str]) -> Iterator[LockedPackage]:
    """What is installed on this platform.

    A hand can have written anything, so whatever is not as PEP 751 says makes the file one that is not used.
    """
    from packaging.markers import Marker
    from packaging.utils import canonicalize_name

    try:
        for item in content["packages"]:
            if "marker" in item and not Marker(item["marker"]).evaluate(variables):
                continue
            yield _package(canonicalize_name(item["name"]), item)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _Stale(f"it is no PEP 751 lock ({type(error).__name__}: {error})") from None


def _package(name: str, item: Mapping[str, Any]) -> LockedPackage:
    if "directory" in item:
        raise _Stale(f"{name} is a folder, which no lock can carry")
    if "vcs" in item:
        vcs = item["vcs"]
        if vcs["type"] != "git":
            raise _Stale(f"{name} comes from {vcs['type']}: uv installs from git only")
        below = f"#subdirectory={vcs['subdirectory']}" if "subdirectory" in vcs else ""
        found = LockedPackage(name, None, url=f"git+{vcs['url']}@{vcs['commit-id']}{below}")
    elif "archive" in item:
        found = LockedPackage(name, None, _hashes([item["archive"]]), url=item["archive"]["url"])
    else:
        files = [*item.get("wheels", ()), *([item["sdist"]] if "sdist" in item else ())]
        found = LockedPackage(name, str(item["version"]), _hashes(files))
    if found.url is not None and has_credentials(found.url):
        raise _Stale(f"the address of {name} holds credentials")
    if not found.hashes and "vcs" not in item:
        raise _Stale(f"{name} has no sha256 hash")
    if re.search(r"\s", f"{found.version or ''}{found.url or ''}{''.join(found.hashes)}"):
        raise _Stale(f"{name} has blanks in its version or address")
    return found


def _hashes(files: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted({f"sha256:{file['hashes']['sha256']}" for file in files if "sha256" in file["hashes"]}))


def _marker_variables(version: str, implementation: str) -> dict[str, str]:
    """PEP 508's variables for another Python on this platform."""
    from packaging.markers import default_environment

    variables = dict(default_environment())
    short = ".".join(version.split(".")[:2])
    variables |= {"python_full_version": version, "python_version": short}
    variables |= {"implementation_version": version, "implementation_name": implementation, "extra": ""}
    return {name: str(value) for name, value in variables.items()}


def _check_python(wanted: str | None, python: Interpreter) -> None:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        fits = wanted is None or SpecifierSet(wanted).contains(python.version, prereleases=True)
    except (InvalidSpecifier, TypeError, AttributeError):
        fits = False
    if not fits:
        raise _Stale(f"it is for python {wanted}, and {python.version} is wanted")


def _check_requirements(spec: EnvironmentSpec, locked: Mapping[str, LockedPackage], variables: dict[str, str]) -> None:
    for line in _asked(spec):
        _check_line(line, locked, variables, needed=True)
    for line in spec.constraints:
        _check_line(line, locked, variables, needed=False)


def _check_line(
    line: RequirementLine,
    locked: Mapping[str, LockedPackage],
    variables: dict[str, str],
    *,
    needed: bool,
) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = Requirement(line.text)
    except InvalidRequirement:  # a bare address of git, whose package only uv knows
        if needed and not any(_is_at(package.url, line.text) for package in locked.values()):
            raise _Stale(f"{line.origin} asks for {line.text}, which it does not have") from None
        return
    if wanted.marker is not None and not wanted.marker.evaluate(variables):
        return
    package = locked.get(line.name)
    if package is None:
        if needed:
            raise _Stale(f"{line.origin} asks for {line.name}, which it does not have")
        return
    if not _fits(package, wanted):
        has = package.version or package.url
        raise _Stale(f"{line.origin} asks for {line.text}, and it has {line.name} {has}")
    if line.hashes and not set(line.hashes) & set(package.hashes):
        raise _Stale(f"{line.origin}: none of the hashes is that of {line.name} in it")


def _fits(package: LockedPackage, wanted: Requirement) -> bool:
    if wanted.url is not None:
        return _is_at(package.url, wanted.url)
    if package.version is None:
        return not wanted.specifier  # an address, of which no version is known
    return wanted.specifier.contains(package.version, prereleases=True)  # a lock may have had no other


def _is_at(url: str | None, wanted: str) -> bool:
    """True when an exact address is what was asked for; a commit must be the same, a branch or tag may have moved."""
    if url is None:
        return False
    base, _, ref = _split_ref(wanted)
    locked_base, _, commit = _split_ref(url)
    return base == locked_base and (not re.fullmatch(r"[0-9a-f]{40}", ref) or ref == commit)


def _split_ref(address: str) -> tuple[str, str, str]:
    scheme, _, rest = address.partition("#")[0].partition("://")
    place, at, ref = rest.rpartition("@") if "@" in rest.partition("/")[2] else (rest, "", "")
    return f"{scheme}://{place}".removesuffix(".git"), at, ref


def _check_platform(content: Mapping[str, Any], variables: dict[str, str], python: Interpreter) -> None:
    """Refuse a lock that has no file of a package for this machine."""
    from packaging.markers import Marker

    for item in content["packages"]:
        if "sdist" in item or not item.get("wheels"):
            continue
        if "marker" in item and not Marker(item["marker"]).evaluate(variables):
            continue
        names = [str(wheel.get("name") or wheel.get("url") or wheel.get("path")) for wheel in item["wheels"]]
        if not any(name.endswith("-none-any.whl") for name in names) and not _any_fits(names, python):
            raise _Stale(f"it has no wheel of {item['name']} for python {python.version} on this platform")


def _any_fits(names: Iterable[str], python: Interpreter) -> bool:
    from urllib.parse import unquote

    from packaging.tags import compatible_tags, cpython_tags, sys_tags
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    if python.version == current_python().version:
        supported = set(sys_tags())
    else:
        version = tuple(int(part) for part in python.version.split(".")[:2])
        supported = {*cpython_tags(version), *compatible_tags(version)}
    for name in names:
        try:
            tags = parse_wheel_filename(unquote(name.rpartition("/")[2]))[3]
        except InvalidWheelFilename:
            continue
        if tags & supported:
            return True
    return False
