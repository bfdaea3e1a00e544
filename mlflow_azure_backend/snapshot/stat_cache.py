"""What a file's status was when its hash was taken, so that an unchanged file need not be read again.

The idea is that of git's index, and so is its caution (git's ``Documentation/technical/racy-git.txt``): a file that was
written less than two seconds before it was hashed may be written again without a visible change of its times, so its
hash is not kept. The cache only ever saves time. When it is damaged, foreign or cannot be written, files are read.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_azure_backend.snapshot.contents import READ

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow_azure_backend.snapshot.contents import FileStatus

_HEADER: Final = b"mlflow-azure-backend stat cache 2 "
_RACY_NS: Final = 2_000_000_000
_HASH: Final = 64
"""Characters of a hash in hexadecimal."""

_as_text: Final = "%d %d %d %d %d".__mod__
"""A ``FileStatus`` as it stands in the cache."""


class StatCache:
    """What is known of the files of one project's folder.

    Args:
        folder: Where the cache is kept, made when it is not there; None: nothing is known and nothing is kept.
        root: The project's folder, resolved.
        purpose: What the files are read for; what was read for one purpose is read again for another.
    """

    def __init__(self, folder: Path | None, root: str, *, purpose: str) -> None:
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
        self._file = None if folder is None else folder / f"{name}.{purpose}"
        self._known = _NOTHING if self._file is None else _load(self._file)
        self._entries: dict[str, tuple[str, str]] | None = None
        self._kept: dict[str, tuple[str, str]] = {}
        self._started_ns = time.time_ns()

    def all_unchanged(self, statuses: Mapping[str, FileStatus]) -> tuple[str, list[str]] | None:
        """The content hash and each file's hash, when the files are the same as the last time and all are unchanged.

        This is the common case, and to compare them all at once takes far less time than one by one.
        """
        known = self._known
        if not known.content_hash or "\0".join(statuses) != known.paths:
            return None
        if "\0".join(map(_as_text, statuses.values())) != known.statuses:
            return None
        return known.content_hash, known.each_hash()

    def sha256(self, path: str, status: FileStatus) -> str | None:
        """The hash of a file's content, in hexadecimal; None unless the file is what it was when last hashed."""
        if self._entries is None:
            self._entries = self._known.entries()
        entry = self._entries.get(path)
        if entry is None or entry[0] != _as_text(status):
            return None
        self._kept[path] = entry
        return entry[1]

    def keep(self, path: str, status: FileStatus, sha256: str) -> None:
        """Remember a hash for the next time, if the file will show it when it is written to."""
        _, written_ns, changed_ns, _, _ = status
        if max(written_ns, changed_ns) < self._started_ns - _RACY_NS:
            self._kept[path] = (_as_text(status), sha256)

    def save(self, content_hash: str, count: int) -> None:
        """Replace what is on disk by what was kept, all at once.

        Args:
            content_hash: Of all files.
            count: How many files that are; when not all of them were kept, the next time needs another hash.
        """
        if self._file is None or not self._kept:
            return
        statuses, hashes = zip(*self._kept.values(), strict=True)
        whole = content_hash if count == len(self._kept) else ""
        known = _Known(whole, "".join(hashes), "\0".join(statuses), "\0".join(self._kept))
        if known == self._known:
            return
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_ours(self._file.parent.lstat(), stat.S_ISDIR):
                _replace(self._file, "\n".join(known).encode("utf-8"))
        except OSError:
            return


class _Known(NamedTuple):
    """The cache as it is on disk, one line for each attribute; the paths come last, for they may hold line feeds.

    Attributes:
        content_hash: Of all files; empty when it is not known.
        hashes: Of each file, one after the other.
        statuses: Of each file, with NUL between them.
        paths: Of each file, with NUL between them.
    """

    content_hash: str
    hashes: str
    statuses: str
    paths: str

    def each_hash(self) -> list[str]:
        return [self.hashes[start : start + _HASH] for start in range(0, len(self.hashes), _HASH)]

    def entries(self) -> dict[str, tuple[str, str]]:
        """Status and hash by path."""
        pairs = zip(self.statuses.split("\0"), self.each_hash(), strict=True)
        return dict(zip(self.paths.split("\0"), pairs, strict=True)) if self.hashes else {}


_NOTHING: Final = _Known("", "", "", "")


def _load(path: Path) -> _Known:
    try:
        if not _is_ours(path.parent.lstat(), stat.S_ISDIR):
            return _NOTHING
        descriptor = os.open(path, READ)
        with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor)
            if not _is_ours(os.fstat(descriptor), stat.S_ISREG):
                return _NOTHING
            header, _, body = file.read().partition(b"\n")
    except OSError:
        return _NOTHING
    return _Known(*body.decode("utf-8").split("\n", 3)) if header == _header(body) else _NOTHING


def _replace(path: Path, body: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".stat-")
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor)
            file.write(_header(body) + b"\n" + body)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _header(body: bytes) -> bytes:
    return _HEADER + f"{zlib.crc32(body):08x}".encode()


def _is_ours(status: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    """Nobody else may have written it: a planted hash would hide what a file really holds."""
    mine = not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)
    return mine and is_kind(status.st_mode)
