"""The environment that a job's order asks for, on its node: there already, unpacked from the workspace, or installed.

A prefix is made where it stays, its marker last; whoever makes it holds the key's lock, so the ranks of a node make it
once, and whatever was killed in the middle is made anew.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .activation import activated
from .installation import Installation
from .keeping import NODE_MARKER, Unusable, unpack
from .node import CannotRun, alone, node_folder
from .order import LockedEnvironment
from .saying import say

_GIVES_WAY = frozenset({"VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "PYTHONHOME", "__PYVENV_LAUNCHER__"})


@dataclass(frozen=True)
class Ready:
    """An environment that can be run in.

    Attributes:
        prefix: Its folder.
        source: ``node``, ``kept`` or ``installed``.
        seconds: What that took, waiting for another rank included.
    """

    prefix: Path
    source: str
    seconds: float


def ensure(order: LockedEnvironment, *, files: Path, kept: Path | None, environ: Mapping[str, str]) -> Ready:
    """Give the environment of an order.

    Args:
        order: What is wanted.
        files: The folder that came with the job.
        kept: Where packed prefixes of the key are; None: nowhere.
        environ: The job's variables.

    Raises:
        CannotRun: It cannot be had here.
    """
    begun = time.monotonic()
    node = node_folder(environ)
    prefix = node / "environments" / order.key[:32]
    prefix.parent.mkdir(mode=0o700, exist_ok=True)
    with alone(prefix.with_name(f"{prefix.name}.lock")) as held:
        if _is_whole(prefix, order.key):
            return Ready(prefix, "node", time.monotonic() - begun)
        if kept is not None and _unpacked(kept, prefix, order.key):
            source = "kept"
        else:
            _remove(prefix)
            Installation(order, files, node, held, environ).install(prefix)
            source = "installed"
        (prefix / NODE_MARKER).write_text(_marker(prefix, order.key), encoding="utf-8")
    return Ready(prefix, source, time.monotonic() - begun)


def variables_in(prefix: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process that runs in a prefix, as its activation leaves them."""
    if (prefix / "conda-meta/history").is_file():
        return activated(prefix, environ)
    kept = {name: value for name, value in environ.items() if name not in _GIVES_WAY}
    path = os.pathsep.join((str(prefix / "bin"), environ.get("PATH", os.defpath)))
    return {**kept, "PATH": path, "VIRTUAL_ENV": str(prefix)}


def python_version(prefix: Path) -> str | None:
    """The version of a prefix's Python; None when it has none that starts."""
    try:
        argv = [str(prefix / "bin/python"), "-I", "-S", "-c", "import platform; print(platform.python_version())"]
        return subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout.decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _unpacked(kept: Path, prefix: Path, key: str) -> bool:
    """Whether the prefix was unpacked and can be used; what is kept and cannot be used is said."""
    _remove(prefix)
    try:
        if not unpack(kept, prefix, key):
            return False
        has_python = os.path.lexists(str(prefix / "bin/python"))
        if has_python and python_version(prefix) is None:
            raise Unusable("its Python does not start in this image")
    except Unusable as problem:
        say(f"the environment that is kept in the workspace is passed over: {problem}")
        return False
    return True


def _is_whole(prefix: Path, key: str) -> bool:
    try:
        return (prefix / NODE_MARKER).read_text(encoding="utf-8") == _marker(prefix, key)
    except OSError:
        return False


def _marker(prefix: Path, key: str) -> str:
    return json.dumps({"key": key, "prefix": str(prefix)})


def _remove(prefix: Path) -> None:
    """Its marker first: half of a prefix must not pass for one."""
    try:
        if prefix.is_symlink() or prefix.is_file():
            prefix.unlink()
        elif prefix.exists():
            marker = prefix / NODE_MARKER
            if marker.is_file():
                marker.unlink()
            shutil.rmtree(str(prefix))
    except OSError as error:
        raise CannotRun(f"{error.filename or prefix} is in the way and cannot be removed: {error.strerror}") from None
