"""Where a command is going to run, as far as that is known before anything is made ready."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend.environment.interpreters import current_python, satisfies
from mlflow_azure_backend.environment.store import Prefix
from mlflow_azure_backend.snapshot import Snapshot

if TYPE_CHECKING:
    from mlflow_azure_backend.environment.spec import EnvironmentSpec

_PYTHONS: Final = ("python", "python3")
_DIGITS: Final = re.compile(r"\d+")
_SIMILAR: Final = 0.79
"""As ``difflib`` counts: two of five letters that changed places are 0.8."""


@dataclass(frozen=True, slots=True)
class Site:
    """The job's folder, files, variables and programs.

    Attributes:
        folder: The project's folder, absolute.
        snapshot: The files that the job sees; None when it runs in the folder itself.
        is_here: It runs on this machine, so that absolute paths mean the same.
        variables: Its environment variables, as far as they are known.
        path: Where its programs are looked for; None when that is not known before its environment is built.
        our_pythons: The names of interpreters there of the same minor version as the one that we run in.
        has_our_packages: They are that interpreter itself.
    """

    folder: Path
    snapshot: Snapshot | None
    is_here: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    path: str | None = None
    our_pythons: frozenset[str] = frozenset()
    has_our_packages: bool = False

    def holds(self, path: str, *, is_absolute: bool) -> bool:
        """Whether a file or folder is there for the job; True as well when that is not known.

        Args:
            path: Its absolute path, if the job ran in the project's folder.
            is_absolute: The command itself names it so.
        """
        plain = os.path.normpath(path)  # what bash makes of a folder that an earlier command makes
        exists_here = exists(path) or exists(plain)
        if is_absolute:
            return exists_here or not self.is_here
        if self.snapshot is None:
            return exists_here
        relative = os.path.relpath(plain, self.folder)
        if relative.startswith(".."):
            return True
        return self._is_in_snapshot(relative) or (exists_here and self.rule(relative) is None)

    def _is_in_snapshot(self, relative: str) -> bool:
        files = () if self.snapshot is None else self.snapshot.files
        folder = "" if relative == "." else f"{relative}/"
        return any(file.path == relative or file.path.startswith(folder) for file in files)

    def rule(self, relative: str) -> str | None:
        """The rule by which the snapshot leaves out what exists here; None when the job sees it, or it is not there."""
        if self.snapshot is None or not exists(str(self.folder / relative)):
            return None
        parts = Path(relative).as_posix().split("/")
        above = {"/".join(parts[:count]) + "/" for count in range(1, len(parts) + 1)} | {"/".join(parts)}
        return next((entry.rule for entry in self.snapshot.left_out if entry.path in above), None)

    def near(self, path: str) -> str | None:
        """The name beside a missing file that it was probably meant to be; None when nothing is near."""
        wanted = Path(os.path.normpath(path))
        try:
            beside = {one.stem: one.name for one in wanted.parent.iterdir() if one.suffix == wanted.suffix}
        except (OSError, ValueError):
            return None
        near = difflib.get_close_matches(wanted.stem, beside, n=1, cutoff=_SIMILAR)
        if not near or _DIGITS.sub("", near[0]) == _DIGITS.sub("", wanted.stem):
            return None  # fold1.py is no slip for fold2.py
        return beside[near[0]]

    def finds(self, program: str) -> bool:
        """Whether a program is on the path; True as well when that is not known."""
        path = self.path
        if path is None or not all(map(os.path.isabs, path.split(os.pathsep))) or "BASH_ENV" in self.variables:
            return True
        is_function = f"BASH_FUNC_{program}%%" in self.variables
        return is_function or shutil.which(program, path=path) is not None

    def path_folders(self) -> Iterator[str]:
        """Where bash looks for a script that has no slash in its name."""
        path = self.variables.get("PATH", os.defpath) if self.path is None else self.path
        yield from path.split(os.pathsep)


def local_site(
    folder: Path,
    snapshot: Snapshot | None,
    environment: EnvironmentSpec,
    environ: Mapping[str, str],
    configured: Mapping[str, str],
) -> Site:
    """This machine as a place to run.

    Args:
        folder: The project's folder.
        snapshot: The files that the job sees; None when it runs in the folder itself.
        environment: What the project wants to run in, not resolved yet.
        environ: The client's environment variables.
        configured: Those that the configuration sets.
    """
    folder = folder.absolute()
    if environment.kind != "current":
        fits = "PATH" not in configured and satisfies(current_python().version, environment.python)
        pythons = frozenset(_PYTHONS if fits else ())
        return Site(folder, snapshot, is_here=True, variables={**environ, **configured}, our_pythons=pythons)
    ours = Path(sys.executable)
    variables = {**Prefix(Path(sys.prefix), ours, hit=True, seconds=0).variables(environ), **configured}
    path = variables.get("PATH", "")
    found = {name: Path(shutil.which(name, path=path) or name).parent for name in _PYTHONS}
    return Site(
        folder,
        snapshot,
        is_here=True,
        variables=variables,
        path=path or None,
        our_pythons=frozenset(name for name, place in found.items() if place == ours.parent),
        has_our_packages=not (sys.flags.ignore_environment or sys.flags.no_user_site or sys.flags.no_site)
        and "PYTHONPATH" not in configured,
    )


def exists(path: str) -> bool:
    """Whether a path leads to a file or folder that we can see."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name that no file can have, or a folder that is closed to us
        return False


def is_python(program: str) -> bool:
    """Whether a program's name is that of a Python 3."""
    return re.fullmatch(r"(?:.*/)?python(?:3(?:\.\d+)?)?", program) is not None


def missing_module(package: Path, inner: list[str]) -> str | None:
    """What ``python -m`` will not find in a regular package of the project; None when all may be well."""
    for name in inner:
        if b"__path__" in _initialisation(package):
            return None  # a namespace may go on elsewhere
        if any(package.glob(f"{name}.*")):
            return None
        if not (package / name).is_dir():
            return f"{package.name} has no {name}.py"
        package /= name
    if not (package / "__init__.py").is_file() or any(package.glob("__main__.*")):
        return None
    return f"{package.name} is a package without a __main__.py"


def _initialisation(package: Path) -> bytes:
    try:
        return (package / "__init__.py").read_bytes()
    except OSError:
        return b"__path__"  # without that file, and unless we know better, it may have several places


def is_importable(module: str, folder: Path) -> bool:
    """Whether a folder or our own interpreter has a top-level module; nothing is imported."""
    if any(folder.glob(f"{module}.*")):
        return True
    import importlib.util

    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return True
