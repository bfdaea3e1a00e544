"""The environment cache on disk: private folders, one writer at a time, files that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from mlflow_azure_backend.errors import EnvironmentUnavailable

Progress = Callable[[str], None]
"""Called with one short line for every stage that begins."""

_ELSEWHERE = "set MLFLOW_AZURE_CACHE to a folder of yours on a writable disk"


def quiet(_stage: str) -> None:
    """A ``Progress`` that says nothing."""


def unusable(error: OSError, folder: Path) -> EnvironmentUnavailable:
    """Name what the operating system refused, with the bytes that are left where that was the reason.

    Args:
        error: What was raised while the cache was read or written.
        folder: The folder that was meant, named when the error itself names no file.
    """
    where = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else folder
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return full(where)
    if isinstance(error, IsADirectoryError):
        what = "is a folder, and a file of the environment cache belongs there"
        return EnvironmentUnavailable(what, where=where, next_step="remove it")
    reason = error.strerror or type(error).__name__
    return EnvironmentUnavailable(f"the environment cache cannot be used ({reason})", where=where, next_step=_ELSEWHERE)


def full(where: Path) -> EnvironmentUnavailable:
    """Name the full disk and the bytes that are left on it."""
    there = next(folder for folder in (where, *where.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    return EnvironmentUnavailable(
        f"no space left on the disk ({free:,} bytes free)", where=where, next_step=f"make room, or {_ELSEWHERE}"
    )


def is_private(folder: Path) -> bool:
    """True when the folder is a real one, belongs to this user and nobody else may enter it."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def private_folder(folder: Path) -> Path:
    """Make sure that the folder is there and is ours alone (mode 0700).

    What lies in it is executed, so a folder or a link that somebody else laid there is refused, never used.

    Raises:
        EnvironmentUnavailable: it belongs to somebody else, is a link, or cannot be made.
    """
    if is_private(folder):
        return folder
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise EnvironmentUnavailable("is not a folder and is not used as one", where=folder, next_step=_ELSEWHERE)
        if found.st_uid != os.geteuid():
            who = f"belongs to another user (uid {found.st_uid}) and is not used"
            raise EnvironmentUnavailable(who, where=folder, next_step=_ELSEWHERE)
        folder.chmod(0o700)
    except OSError as error:
        raise unusable(error, folder) from None
    return folder


@contextlib.contextmanager
def exclusive(path: Path, on_progress: Progress) -> Iterator[int]:
    """Hold the lock file's flock; wait for whoever has it, and say so.

    Yields the descriptor. A process that inherits it holds the lock too, so a helper that outlives its killed parent
    still keeps others away from what it writes.

    Raises:
        EnvironmentUnavailable: the lock file cannot be made.
    """
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise unusable(error, path) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            on_progress(f"waiting for process {holder}, which is making the same")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # The holder's number is a courtesy to those who wait: a full disk must not be the end of it.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def write_sealed(path: Path, text: str) -> None:
    """Write text under its own digest: whole, on the disk, mode 0600, or not at all. The caller holds the lock.

    Raises:
        EnvironmentUnavailable: it cannot be written.
    """
    body = text.encode("utf-8")
    # One fixed name, so that what a killed writer left is overwritten by the next one instead of piling up.
    staged = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(body).hexdigest().encode("ascii") + b"\n" + body)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)
    except OSError as error:
        raise unusable(error, path) from None


def read_sealed(path: Path) -> str | None:
    """The text that ``write_sealed`` wrote; None when there is none, or when a byte of it has changed since."""
    try:
        seal, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if hashlib.sha256(body).hexdigest().encode("ascii") != seal:
        return None
    return body.decode("utf-8")


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
