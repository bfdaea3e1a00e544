"""The lock of a virtual environment: a requirements file that uv makes, for one Python on one platform."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend.environment.cache import Progress, unusable
from mlflow_azure_backend.environment.indexes import Machine, has_credentials, redact
from mlflow_azure_backend.environment.interpreters import (
    Interpreter,
    current_python,
    find_python,
    platform_tag,
    satisfies,
)
from mlflow_azure_backend.environment.lock import EnvironmentLock, LockedPackage
from mlflow_azure_backend.environment.uv_process import Origins, run_uv, uv_failure
from mlflow_azure_backend.errors import EnvironmentUnavailable
from mlflow_azure_backend.files import fault_point

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from mlflow_azure_backend.environment.spec import EnvironmentSpec

_FORMAT: Final = "# mlflow-azure environment lock 1"
_HEAD: Final = re.compile(
    rf"{_FORMAT}\n# python: (?P<version>\S+) \((?P<implementation>\w+)\)\n# platform: (?P<platform>\S+)\n"
)
_SHOWN: Final = 5
"""How many differences are named."""
_GIT_COMMIT: Final = re.compile(r"git\+.*@[0-9a-f]{40}(#.*)?$")


def question(spec: EnvironmentSpec) -> tuple[str, ...]:
    """What besides the specification decides the answer: the Python that is here, the platform.

    Another Python than ours is looked for only when it is needed, so a lock made for it is found without.

    Raises:
        EnvironmentUnavailable: what the specification says is no Python version.
    """
    current = current_python()
    is_current = satisfies(current.version, spec.python, where=spec.python_origin)
    python = f"{current.version} {current.implementation}" if is_current else str(spec.python)
    return _FORMAT, python, platform_tag()


def solve(spec: EnvironmentSpec, machine: Machine, *, cache: Path, upgrade: bool, on_progress: Progress) -> str:
    """Resolve, and give the lock's text.

    Raises:
        EnvironmentUnavailable: no such Python, no such packages, no index, or a cache that cannot be used.
    """
    python = find_python(spec.python, environ=os.environ, where=spec.python_origin)
    fault_point("environment.resolving")
    on_progress(f"resolving {len(spec.requirements)} requirements for python {python.version}")
    try:
        return _compile(spec, python, machine, cache, upgrade=upgrade)
    except OSError as error:
        raise unusable(error, cache) from None


def read(text: str, spec: EnvironmentSpec, machine: Machine) -> EnvironmentLock:
    """Understand a lock that ``solve`` made."""
    head = _HEAD.match(text)
    assert head is not None, "a sealed lock is what we wrote"  # noqa: S101
    return EnvironmentLock(
        kind="python",
        spec_fingerprint=spec.fingerprint,
        python_version=head["version"],
        implementation=head["implementation"],
        packages=tuple(_packages(text)),
        text=text,
        sources=machine.sources(spec.indexes, folder=spec.folder, environ=os.environ),
    )


def read_recorded(text: str, spec: EnvironmentSpec, machine: Machine) -> EnvironmentLock:
    """Understand a lock that was made elsewhere or earlier.

    Raises:
        EnvironmentUnavailable: It is no lock of ours, or was made for another kind of machine.
    """
    head = _HEAD.match(text)
    if head is None:
        raise EnvironmentUnavailable("the recorded environment is no lock of this version")
    # The C library's version says which wheels are the best, not which fit: the hashes allow all of a version's files.
    made_for, here = head["platform"], platform_tag()
    if made_for.partition("-glibc")[0] != here.partition("-glibc")[0]:
        step = "run the project anew, which resolves its environment for this machine"
        raise EnvironmentUnavailable(f"the recorded environment is for {made_for}, and this is {here}", next_step=step)
    return read(text, spec, machine)


def lock_text(python: Interpreter, options: Iterable[str], packages: Iterable[LockedPackage]) -> str:
    """The text of a lock for a Python on this platform; ``options`` are ``--no-binary`` and ``--only-binary`` lines."""
    lines = "".join(f"{option}\n" for option in options)
    return _head(python) + lines + "".join(package.line() for package in packages)


def current_lock() -> EnvironmentLock:
    """Describe the current interpreter: what is installed, by the names of its metadata folders.

    Reading those folders' files too costs 100 ms for 200 packages; their names alone say name and version (1 ms).
    """
    python = current_python()
    packages = tuple(LockedPackage(name, version) for name, version in sorted(_installed(sys.path).items()))
    text = _head(python) + "".join(package.line() for package in packages)
    return EnvironmentLock("current", "", python.version, python.implementation, packages, text)


def differences(text: str, lock: EnvironmentLock) -> str | None:
    """What a recorded environment had otherwise than ``lock``, in one line; None when they are the same."""
    head = _HEAD.match(text)
    before = {package.name: package.version for package in _packages(text)}
    now = {package.name: package.version for package in lock.packages}
    changed = [
        f"{name} {now.get(name) or 'missing'} (was {before.get(name) or 'missing'})"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if head is not None and head["version"] != lock.python_version:
        changed.insert(0, f"python {lock.python_version} (was {head['version']})")
    if not changed:
        return None
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    return f"the current interpreter is not as it was: {', '.join(changed[:_SHOWN])}{more}"


def _installed(folders: list[str]) -> dict[str, str]:
    """Canonical names and versions; the first folder that has a name wins, as in an import."""
    found: dict[str, str] = {}
    for folder in folders:
        try:
            names = [entry.name for entry in os.scandir(folder or ".")]
        except OSError:
            continue
        for name in sorted(names):
            stem, dot, kind = name.rpartition(".")
            project, _, version = stem.partition("-")
            if dot and kind in ("dist-info", "egg-info") and version and not project.startswith("~"):
                found.setdefault(_canonical(project), re.sub(r"-py\d.*$", "", version))
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _head(python: Interpreter) -> str:
    return f"{_FORMAT}\n# python: {python.version} ({python.implementation})\n# platform: {platform_tag()}\n"


def _packages(text: str) -> Iterator[LockedPackage]:
    """Read a compiled requirements file: one package for each logical line."""
    for line in text.replace("\\\n", "").splitlines():
        if not line or line.startswith(("#", "--")):
            continue
        wanted, *hashes = line.split(" --hash=")
        name, _, url = wanted.strip().partition(" @ ")
        name, _, version = name.partition("==")
        cleaned = tuple(sorted(part.strip() for part in hashes))
        yield LockedPackage(_canonical(name.partition("[")[0]), version or None, cleaned, url or None)


def _compile(spec: EnvironmentSpec, python: Interpreter, machine: Machine, cache: Path, *, upgrade: bool) -> str:
    """Let uv resolve, and give the lock's text."""
    arguments = ["pip", "compile", "-", "--python", str(python.executable)]
    arguments += ["--generate-hashes", "--no-header", "--no-annotate"]
    arguments += ["--prerelease", "allow"] if spec.prerelease else []
    arguments += ["--upgrade"] if upgrade else []
    arguments += [word for path in machine.constraints for word in ("--constraints", path)]
    sources = machine.sources(spec.indexes, folder=spec.folder, environ=os.environ)
    lines = (*sources.lines, *spec.options, *(line.text for line in spec.requirements))
    # A file without a name: uv takes constraints from files only, and nothing is left if we are killed.
    with tempfile.TemporaryFile(dir=cache) as constraints:
        constraints.write("".join(f"{line.text}\n" for line in spec.constraints).encode("utf-8"))
        constraints.seek(0)
        done = run_uv(
            [*arguments, "--constraints", f"/dev/fd/{constraints.fileno()}"],
            environ={**os.environ, **sources.variables},
            text="".join(f"{line}\n" for line in lines),
            keep_open=(constraints.fileno(),),
        )
    if done.returncode != 0:
        raise uv_failure(done.stderr, origins=_origins(spec), folder=cache)
    packages = sorted(_packages(done.stdout), key=lambda package: package.name)
    return lock_text(python, spec.options, [_pinned(package, spec) for package in packages])


def _origins(spec: EnvironmentSpec) -> Origins:
    origins: dict[str, tuple[tuple[str, str], ...]] = {}
    for line in (*spec.requirements, *spec.constraints):
        origins[line.name] = (*origins.get(line.name, ()), (line.origin, line.text))
    return origins


def _pinned(package: LockedPackage, spec: EnvironmentSpec) -> LockedPackage:
    """Hold a package to what the lock promises: the user's own hashes where given, no secrets, nothing unpinned."""
    lines = [line for line in (*spec.requirements, *spec.constraints) if line.name == package.name]
    origin = lines[0].origin if lines else None
    wanted = {pin for line in lines for pin in line.hashes}
    hashes = tuple(pin for pin in package.hashes if not wanted or pin in wanted)
    shown = f"{package.name} {package.version or package.url}"
    if wanted and not hashes:
        what = f"{shown}: none of the hashes in the requirement belongs to a file on the index"
        raise EnvironmentUnavailable(what, where=origin, next_step="correct the --hash, or leave it out")
    if package.url is not None and has_credentials(package.url):
        raise EnvironmentUnavailable(f"{redact(shown)} holds credentials, which would stand in the lock", where=origin)
    if not hashes and not _GIT_COMMIT.match(package.url or ""):
        raise EnvironmentUnavailable(f"{shown}: the index gives no hash that it could be pinned by", where=origin)
    return replace(package, hashes=hashes)
