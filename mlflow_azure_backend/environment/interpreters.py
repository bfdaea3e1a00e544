"""Which Python an environment is built on: the current one if it will do, else one that this machine has.

Nothing is downloaded. MLflow's virtualenv takes its Pythons from pyenv, its uv environments from uv; both are looked
through. pyenv's shims are not: they answer for versions that no project folder selects.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend.environment.uv_process import run_uv
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PROBE: Final = "import sys, platform; print(platform.python_version(), sys.implementation.name)"
_PLAIN: Final = re.compile(r"\d+(\.\d+){0,2}")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python on this machine.

    Attributes:
        executable: Its program.
        version: Its full version, ``3.11.7``.
        implementation: ``cpython`` or another, as ``sys.implementation.name`` says it.
    """

    executable: Path
    version: str
    implementation: str


def current_python() -> Interpreter:
    """The interpreter that we run in."""
    return Interpreter(Path(sys.executable), platform.python_version(), sys.implementation.name)


@functools.cache
def platform_tag() -> str:
    """What besides Python decides which wheels fit: operating system, processor, C library."""
    library = "-".join(part for part in platform.libc_ver() if part) if sys.platform == "linux" else ""
    return "-".join(part for part in (sysconfig.get_platform(), library) if part)


def satisfies(version: str, wanted: str | None, *, where: str | None = None) -> bool:
    """True when a full version is what was asked for.

    Args:
        version: A full version, ``3.11.7``.
        wanted: ``3``, ``3.11``, ``3.11.*`` and ``3.11.7`` match by their parts, ``>=3.9,<3.12`` as PEP 440 says; None
            matches all.
        where: Names the file in the error.

    Raises:
        EnvironmentUnavailable: ``wanted`` is neither.
    """
    if wanted is None:
        return True
    plain = re.sub(r"(\.[*x])+$", "", wanted.strip())
    if _PLAIN.fullmatch(plain):
        parts = plain.split(".")
        return version.split(".")[: len(parts)] == parts
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(wanted).contains(version, prereleases=True)
    except InvalidSpecifier:
        step = 'for example  python: "3.11"'
        raise EnvironmentUnavailable(f"'{wanted}' is not a Python version", where=where, next_step=step) from None


def find_python(
    wanted: str | None, *, environ: Mapping[str, str], implementation: str | None = None, where: str | None = None
) -> Interpreter:
    """Find a Python on this machine: the current one, else pyenv's newest that fits, else what uv finds.

    Args:
        wanted: As for ``satisfies``.
        environ: For PATH, PYENV_ROOT and uv's own settings.
        implementation: Only this one; None means any.
        where: Names the file in the error.

    Raises:
        EnvironmentUnavailable: none is here.
    """
    current = current_python()
    if satisfies(current.version, wanted, where=where) and implementation in (None, current.implementation):
        return current
    for executable in (*_pyenv_pythons(wanted, environ), *_uv_pythons(wanted, environ)):
        found = _probe(executable)
        if found and satisfies(found.version, wanted) and implementation in (None, found.implementation):
            return found
    step = f'run `uv python install "{wanted}"`, or use --env-manager local for python {current.version}'
    raise EnvironmentUnavailable(f"python {wanted} is not on this machine", where=where, next_step=step)


def _pyenv_pythons(wanted: str | None, environ: Mapping[str, str]) -> Iterator[Path]:
    root = Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME") or "/") / ".pyenv")
    try:
        names = [entry.name for entry in (root / "versions").iterdir()]
    except OSError:
        return
    numbers = {name: tuple(map(int, name.split("."))) for name in names if re.fullmatch(r"\d+\.\d+\.\d+", name)}
    for name in sorted(numbers, key=numbers.__getitem__, reverse=True):
        if satisfies(name, wanted):
            yield root / "versions" / name / "bin/python"


def _uv_pythons(wanted: str | None, environ: Mapping[str, str]) -> Iterator[Path]:
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if Path(folder).name != "shims")
    found = run_uv(["python", "find", "--system", "--no-project", wanted or ""], environ={**environ, "PATH": path})
    if found.returncode == 0:
        yield Path(found.stdout.strip())


def _probe(executable: Path) -> Interpreter | None:
    try:
        asked = [str(executable), "-I", "-S", "-c", _PROBE]
        answer = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    version, implementation = answer.stdout.split()
    return Interpreter(executable, version, implementation)
