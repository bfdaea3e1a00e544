"""Files that must survive: private folders, durable writes, locks that die with their owner, and points to die at."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import tempfile
from pathlib import Path

from mlflow_azure_backend.errors import JournalError

FAULT_VARIABLE = "MLFLOW_AZURE_FAULT"

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def fault_point(name: str) -> None:
    """Die, fail or be interrupted here if ``$MLFLOW_AZURE_FAULT`` is ``name:`` and ``kill``, ``raise`` or ``sigint``.

    ``tests/faults`` breaks us at every one of them.

    Raises:
        RuntimeError: The variable orders it.
    """
    ordered = os.environ.get(FAULT_VARIABLE)
    if ordered is None or not ordered.startswith(name + ":"):
        return
    action = ordered.rpartition(":")[2]
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "sigint":
        os.kill(os.getpid(), signal.SIGINT)
    else:
        raise RuntimeError(f"fault ordered at {name}")


def make_private_folder(folder: Path) -> Path:
    """Make ``folder`` and its parents, mode 0700, and refuse one that somebody else could have prepared for us.

    Raises:
        JournalError: It cannot be made, is a link or no folder, or belongs to another user.
    """
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        status = folder.lstat()  # asked once: another process may remove it at any time
    except OSError as error:
        raise unusable(folder, error) from error
    if not stat.S_ISDIR(status.st_mode):
        raise JournalError("is a link, not a folder of ours", where=folder, next_step="remove it and try again")
    if status.st_uid != os.getuid():
        raise JournalError(
            f"belongs to another user (uid {status.st_uid})",
            where=folder,
            next_step="set MLFLOW_AZURE_HOME and MLFLOW_AZURE_CACHE to folders of your own",
        )
    if status.st_mode & 0o077:
        try:
            folder.chmod(0o700)
        except OSError as error:
            raise unusable(folder, error) from error
    return folder


def write_durably(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``, mode 0600: after a crash or a power cut it is the old file or the new one.

    Raises:
        JournalError: The disk is full, read-only or otherwise refuses; the old file stands.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise unusable(path, error, len(content)) from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        fault_point("files.before_replace")
        os.replace(name, path)  # noqa: PTH105 - the name is a str that mkstemp chose
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        if isinstance(error, OSError):
            raise unusable(path, error, len(content)) from error
        raise
    _sync_folder(path.parent)


def unusable(path: Path, error: OSError, size: int | None = None) -> JournalError:
    """Say in one line why our own state cannot be kept at ``path``; ``size`` is what was to be written, in bytes."""
    if error.errno in _DISK_FULL:
        bytes_ = "" if size is None else f" ({size} bytes were to be written)"
        return JournalError(f"no space left on the disk{bytes_}", where=path, next_step="free some space and try again")
    if isinstance(error, IsADirectoryError):
        return JournalError("is a folder, and a file of ours belongs there", where=path, next_step="remove it")
    return JournalError(
        f"cannot be written: {error.strerror or error}",
        where=path,
        next_step="set MLFLOW_AZURE_HOME and MLFLOW_AZURE_CACHE to folders that you can write to",
    )


def try_lock(path: Path) -> int | None:
    """Take the lock of ``path`` if nobody has it; the descriptor to close for its release, or None.

    Raises:
        JournalError: The lock file cannot be opened.
    """
    return _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)


def wait_for_lock(path: Path) -> int:
    """Take the lock of ``path``, waiting as long as it takes; the descriptor to close for its release.

    The lock of a dead process is free.

    Raises:
        JournalError: The lock file cannot be opened.
    """
    descriptor = _lock(path, fcntl.LOCK_EX)
    if descriptor is None:
        raise AssertionError("a lock that is waited for is never refused")
    return descriptor


def is_locked(path: Path) -> bool:
    """True while some process holds the lock of ``path``; a lock file that is not there is nobody's."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(path: Path, operation: int) -> int | None:
    while True:
        descriptor = _lock_once(path, operation)
        if descriptor is None or _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # whoever had it removed it: the lock that counts is another file by now


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock_once(path: Path, operation: int) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
