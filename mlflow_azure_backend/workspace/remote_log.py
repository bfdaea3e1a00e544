"""Our copy of what a job wrote: fetched by ranges, each byte once, whoever follows it and however often.

The copy itself says how far we are, so that nothing else must be kept in step with it. For one process it is the log
byte for byte, and its length is the place to go on from. For several it holds their lines, each behind ``[rank N] ``,
or ``[rank N+] `` where the line's end is ours; what stands behind a rank's prefixes is what was read of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from mlflow_azure_backend.files import unusable

ReadRange = Callable[[str, int, int], bytes]
"""Name of a log, offset and length in bytes -> what is there, less at its end."""

_CHUNK: Final = 4 * 1024 * 1024
_ONE: Final = "user_logs/std_log.txt"
_OF_RANK: Final = re.compile(r"user_logs/std_log_process_(\d+)\.txt")
_PREFIXED: Final = re.compile(rb"\[rank (?P<rank>\d+)(?P<open>\+?)\] ")


class RemoteLog:
    """The copy of one job's log.

    Args:
        file: Where it is kept.
        read: Reads the service's.
    """

    def __init__(self, file: Path, read: ReadRange) -> None:
        self._file = file
        self._read = read
        self._counted = 0
        self._taken: Counter[int] = Counter()

    def fetch(self, names: Mapping[str, object], *, final: bool) -> int:
        """Bring what is new.

        Args:
            names: Of the logs that the service has by now.
            final: Nobody will write any more, so that a last line without its end is a line.

        Returns:
            How many bytes came.

        Raises:
            JournalError: The copy cannot be written.
            WorkspaceError: The service refuses, or does not answer.
        """
        ranks = {int(match[1]): name for name in names if (match := _OF_RANK.fullmatch(name)) is not None}
        if not ranks and _ONE not in names:
            return 0
        try:
            with _exclusively(self._file) as descriptor:
                if not ranks:
                    return self._fetch_one(descriptor)
                self._count(descriptor)
                return sum(self._fetch_rank(descriptor, rank, ranks[rank], final=final) for rank in sorted(ranks))
        except OSError as error:
            raise unusable(self._file, error) from error

    def _fetch_one(self, descriptor: int) -> int:
        came = 0
        while data := self._read(_ONE, os.fstat(descriptor).st_size, _CHUNK):
            _append(descriptor, data)
            came += len(data)
        return came

    def _fetch_rank(self, descriptor: int, rank: int, name: str, *, final: bool) -> int:
        came = 0
        while data := self._read(name, self._taken[rank], _CHUNK):
            whole = data.rfind(b"\n") + 1
            is_cut = whole == 0 and (final or len(data) == _CHUNK)
            if whole == 0 and not is_cut:
                break  # the rest of the line is still to come
            _append(descriptor, _prefixed(data if is_cut else data[:whole], rank, is_cut=is_cut))
            self._count(descriptor)
            came += len(data) if is_cut else whole
        return came

    def _count(self, descriptor: int) -> None:
        """Take in what the copy holds beyond what we know of it; a line that a killed writer left is cut off."""
        size, data = os.fstat(descriptor).st_size, b""
        while self._counted + len(data) < size:
            data += os.pread(descriptor, _CHUNK, self._counted + len(data))
            whole = data.rfind(b"\n") + 1
            for line in data[:whole].split(b"\n")[:-1]:
                if match := _PREFIXED.match(line):
                    self._taken[int(match["rank"])] += len(line) - match.end() + (not match["open"])
            self._counted, data = self._counted + whole, data[whole:]
        if data:
            os.ftruncate(descriptor, self._counted)


def _prefixed(text: bytes, rank: int, *, is_cut: bool) -> bytes:
    if is_cut:
        return b"[rank %d+] %s\n" % (rank, text)
    return b"".join(b"[rank %d] %s\n" % (rank, line) for line in text.split(b"\n")[:-1])


@contextlib.contextmanager
def _exclusively(file: Path) -> Iterator[int]:
    """The file, made if it is not there, while nobody else writes to it."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _append(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
