"""Reading a file so that what was read is one state of it."""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_azure_backend.errors import SnapshotError
from mlflow_azure_backend.snapshot.rules import ignore_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow_azure_backend.snapshot.key_material import Finding, KeyMaterialSearch

BLOCK: Final = 8 * 1024 * 1024
"""Bytes; a smaller file is held in memory as a whole, a larger one is read in pieces of this size."""

READ: Final = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))
"""Flags to open a file with that may have become something else: no link is followed, and no pipe waited for."""


FileStatus = tuple[int, int, int, int, int]
"""Size in bytes, time of the last write and of the last change in nanoseconds since the epoch, inode, mode: what would
be different if the file had been written to, in a small part of the memory that ``os.stat_result`` takes."""

file_status: Final[Callable[[os.stat_result], FileStatus]] = attrgetter(
    "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_mode"
)


def is_executable(status: FileStatus) -> bool:
    """The owner's execute bit; False on Windows, which has none."""
    return status[4] & _EXECUTABLE != 0


_EXECUTABLE: Final = 0 if os.name == "nt" else stat.S_IXUSR


class Content(NamedTuple):
    """What was read.

    Attributes:
        status: The file's status when it was read.
        sha256: In hexadecimal.
        data: The bytes; None when there are ``BLOCK`` or more.
        finding: A credential in it; None when there is none or nobody asked.
    """

    status: FileStatus
    sha256: str
    data: bytes | None
    finding: Finding | None


class _Changed(Exception):
    """The file was written to while it was read; never seen outside."""


def read_file(path: str, location: str, *, known: FileStatus | None = None, search: bool = False) -> Content:
    """Read and hash a file, again if it changes meanwhile.

    Args:
        path: What the user is told.
        location: Where it is.
        known: Its status a moment ago, so that the system need not be asked again; None to ask.
        search: Look for credentials.

    Raises:
        SnapshotError: It cannot be read, or it changed each time.
    """
    for status in (known, None, None):
        try:
            return _read_once(location, status, search=search)
        except _Changed:
            continue
        except OSError as error:
            raise unreadable(path, error) from error
    raise changed(path)


def _read_once(location: str, known: FileStatus | None, *, search: bool) -> Content:
    key_material = _new_search() if search else None
    descriptor = os.open(location, READ)
    try:
        before = known or file_status(os.fstat(descriptor))
        size, mode = before[0], before[4]
        if not stat.S_ISREG(mode):
            raise _Changed
        data = os.read(descriptor, min(size + 1, BLOCK))
        digest = hashlib.sha256(data)
        read = len(data)
        if key_material is not None:
            key_material.look_at(data)
        if size >= BLOCK:
            for block in iter(lambda: os.read(descriptor, BLOCK), b""):
                digest.update(block)
                read += len(block)
                if key_material is not None:
                    key_material.look_at(block)
        after = file_status(os.fstat(descriptor))
    finally:
        os.close(descriptor)
    if read != size or after != before:
        raise _Changed
    finding = None if key_material is None else key_material.finding
    return Content(before, digest.hexdigest(), data if size < BLOCK else None, finding)


def _new_search() -> KeyMaterialSearch:
    from mlflow_azure_backend.snapshot.key_material import KeyMaterialSearch

    return KeyMaterialSearch()


def blocks_of(path: str, location: str) -> Iterator[bytes]:
    """The bytes of a file, block by block; whether they are still the same is for the caller to find out."""
    try:
        descriptor = os.open(location, READ)
        try:
            yield from iter(lambda: os.read(descriptor, BLOCK), b"")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: str, error: OSError) -> SnapshotError:
    """A file or folder of the project that the system does not let us read."""
    return SnapshotError(
        f"cannot be read: {error.strerror}",
        where=path,
        next_step=f"chmod u+rX {shlex.quote(path)}, or leave it out: {ignore_command(path)}",
    )


def changed(path: str) -> SnapshotError:
    """A file that did not hold still."""
    return SnapshotError(
        "changed while the snapshot was taken",
        where=path,
        next_step=f"try again when nothing writes to it, or leave it out: {ignore_command(path)}",
    )
