"""Built environments on disk: one prefix for each environment key, made once, used only when it is whole.

A prefix is built where it will stay, because scripts and compiled files carry their place. Its marker is written last:
a prefix without a valid marker is deleted and built again. Whoever builds holds the key's lock, and uv inherits it, so
an installer that outlives its killed parent cannot write into what the next builder makes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend.environment.cache import (
    Progress,
    exclusive,
    is_private,
    private_folder,
    quiet,
    read_sealed,
    unusable,
    write_sealed,
)
from mlflow_azure_backend.environment.interpreters import find_python
from mlflow_azure_backend.environment.uv_process import run_uv, uv_failure
from mlflow_azure_backend.files import fault_point

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow_azure_backend.environment.lock import EnvironmentLock

_MARKER: Final = ".mlflow-azure-environment"
_GIVES_WAY: Final = frozenset({"VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "PYTHONHOME", "__PYVENV_LAUNCHER__"})


@dataclass(frozen=True, slots=True)
class Prefix:
    """An environment that can be run in.

    Attributes:
        path: Its folder.
        python: Its interpreter.
        hit: True when it was there already.
        seconds: What finding, waiting for or building it took.
        notes: What the user should know of the building; empty when it was there already.
    """

    path: Path
    python: Path
    hit: bool
    seconds: float
    notes: tuple[str, ...] = ()

    def variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment variables of a process that runs in it, as its ``activate`` would leave them.

        Args:
            environ: What they start from. CONDA_PREFIX is left alone by a virtual environment, as its activation does.
        """
        if (self.path / "conda-meta/history").is_file() and self.path != Path(sys.prefix):
            from mlflow_azure_backend.runtime.activation import activated

            return activated(self.path, environ)
        changed = {name: value for name, value in environ.items() if name not in _GIVES_WAY}
        path, folder = environ.get("PATH", os.defpath), self.python.parent
        if Path(shutil.which("python", path=path) or "python").parent != folder:
            changed["PATH"] = os.pathsep.join((str(folder), path))
        if (self.path / "pyvenv.cfg").is_file():
            changed["VIRTUAL_ENV"] = str(self.path)
        if "PYTHONHOME" in environ and self.path == Path(sys.prefix):
            changed["PYTHONHOME"] = environ["PYTHONHOME"]
        return changed


def find_prefix(lock: EnvironmentLock, *, cache: Path) -> Path | None:
    """The folder of an environment that can be run in now; None when it would have to be built."""
    if lock.kind == "current":
        return Path(sys.prefix)
    path = _place(lock, cache)
    return path if is_private(path.parent) and _is_whole(path, lock) else None


def ensure_prefix(lock: EnvironmentLock, *, cache: Path, on_progress: Progress = quiet) -> Prefix:
    """Give the environment of a lock: the one that is there, else build it.

    May block for as long as downloads take, or while another process builds the same. Idempotent: several callers at
    once build it once, and a caller killed at any point leaves nothing that is used later.

    Args:
        lock: The resolved environment. For the current interpreter nothing is built.
        cache: The environment cache's folder.
        on_progress: Told about each stage; never called on a hit.

    Raises:
        EnvironmentUnavailable: the cache cannot be used, or the packages cannot be had or installed.
    """
    begun = time.perf_counter()
    if lock.kind == "current":
        return Prefix(Path(sys.prefix), Path(sys.executable), hit=True, seconds=0.0)
    path = _place(lock, cache)
    hit = find_prefix(lock, cache=cache) is not None
    notes: tuple[str, ...] = ()
    if not hit:
        private_folder(path.parent)
        with exclusive(path.with_suffix(".lock"), on_progress) as descriptor:
            hit = _is_whole(path, lock)
            if not hit:
                notes = _build_or_remove(path, lock, descriptor, on_progress)
    return Prefix(path, path / "bin/python", hit=hit, seconds=time.perf_counter() - begun, notes=notes)


@contextlib.contextmanager
def hold(lock: EnvironmentLock, *, cache: Path) -> Iterator[tuple[int, ...]]:
    """Keep an environment from being pruned, and note that it was used.

    Yields the descriptor to hand to the process that runs in it: the environment is in use until the last holder has
    closed it or died. There is none for the current interpreter, nor in a cache that cannot be written to, where
    nothing can be pruned either.
    """
    import fcntl

    if lock.kind not in ("python", "conda"):
        yield ()
        return
    path = use_file(_place(lock, cache))
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        yield ()
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with contextlib.suppress(OSError):
            os.utime(descriptor)
        yield (descriptor,)
    finally:
        os.close(descriptor)


def use_file(prefix: Path) -> Path:
    """The file beside a prefix that its users hold locked; its time is that of the last use."""
    return prefix.with_suffix(".use")


def key_of(prefix: Path) -> str | None:
    """The environment key of a folder in the cache; None when it is not whole: what nobody may run in."""
    try:
        found = prefix.lstat()
        sealed = read_sealed(prefix / _MARKER)
        said = None if sealed is None else json.loads(sealed)
        key = None if said is None else str(said["key"])
        expected = None if key is None else _marker(prefix, key)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return key if ours and sealed == expected else None


def remove_prefix(path: Path) -> None:
    """Delete what is there, its marker first: half of a prefix must not pass for one. The caller holds its lock.

    Raises:
        OSError: It cannot be deleted.
    """
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        with contextlib.suppress(IsADirectoryError):
            (path / _MARKER).unlink(missing_ok=True)
        shutil.rmtree(path)


def _place(lock: EnvironmentLock, cache: Path) -> Path:
    return cache.absolute() / "environments" / lock.key[:32]


def _is_whole(path: Path, lock: EnvironmentLock) -> bool:
    """True when the marker says what it must say now."""
    return key_of(path) == lock.key


def _marker(path: Path, key: str) -> str:
    """What makes a prefix valid: its key, its place (scripts carry it), and the very Python that it was built on."""
    # A conda environment need not have one; that it was built at all, its history says.
    has_python = (path / "bin/python").exists()
    python = (path / ("bin/python" if has_python else "conda-meta/history")).stat()
    return json.dumps({"key": key, "path": str(path), "python": [python.st_size, python.st_mtime_ns]})


def _build_or_remove(path: Path, lock: EnvironmentLock, descriptor: int, on_progress: Progress) -> tuple[str, ...]:
    try:
        remove_prefix(path)
        try:
            return _build(path, lock, descriptor, on_progress)
        except BaseException:
            remove_prefix(path)
            raise
    except OSError as error:
        raise unusable(error, path) from None


def _build(path: Path, lock: EnvironmentLock, descriptor: int, on_progress: Progress) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    if lock.kind == "conda":
        from mlflow_azure_backend.environment.conda.building import build_conda

        fault_point("environment.before_install")
        notes = build_conda(path, lock, descriptor, on_progress)
    else:
        notes = _build_python(path, lock, descriptor, on_progress)
    on_progress("finishing")
    fault_point("environment.before_marker")
    write_sealed(path / _MARKER, _marker(path, lock.key))
    return notes


def _build_python(path: Path, lock: EnvironmentLock, descriptor: int, on_progress: Progress) -> tuple[str, ...]:
    environ = {**os.environ, **lock.sources.variables}
    python = find_python(lock.python_version, environ=environ, implementation=lock.implementation)
    on_progress(f"creating python {python.version}")
    create = ["venv", str(path), "--python", str(python.executable), "--no-project"]
    done = run_uv(create, environ=environ, keep_open=(descriptor,))
    if done.returncode != 0:
        raise uv_failure(done.stderr, origins={}, folder=path)
    fault_point("environment.before_install")
    if not lock.packages:
        return ()
    from mlflow_azure_backend.environment.installing import CACHE_SECONDS, damaged, fetching_anew, notes_on_damage

    on_progress(f"installing {len(lock.packages)} packages")
    _install(path, lock, descriptor, environ)
    names = {package.name for package in lock.packages}
    broken = damaged(names, path)
    if not broken:
        return ()
    on_progress(f"fetching {', '.join(broken)} anew")
    # It fails while another uv is at work; nothing is taken from there.
    run_uv(["cache", "clean", *broken], environ={"UV_LOCK_TIMEOUT": CACHE_SECONDS, **environ}, keep_open=(descriptor,))
    _install(path, lock, descriptor, environ, *fetching_anew(broken))
    return tuple(notes_on_damage(broken, damaged(broken, path)))


def _install(path: Path, lock: EnvironmentLock, descriptor: int, environ: Mapping[str, str], *more: str) -> None:
    """Install from uv's cache, else from the index.

    Not compiled to bytecode unless UV_COMPILE_BYTECODE asks for it: for scikit-learn and MLflow that takes 12 s, while
    Python itself spends 4 s on the modules that the first run imports.
    """
    install = ["pip", "sync", "-", "--python", str(path / "bin/python"), *more]
    if all(package.hashes for package in lock.packages):
        install.append("--require-hashes")  # else one is a git commit, and those that have hashes are verified still
    text = "".join(f"{line}\n" for line in lock.sources.lines) + lock.text
    for attempt in ([*install, "--offline"], install):
        done = run_uv(attempt, environ=environ, text=text, keep_open=(descriptor,))
        if done.returncode == 0:
            return
    raise uv_failure(done.stderr, origins={}, folder=path)
