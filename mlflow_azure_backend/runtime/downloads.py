"""Blobs into files: whole under their name or not at all; big ones in ranges side by side, none of them twice."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
import uuid
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import requests

from .blobs import SignedAddress, ask, digest, encoded
from .parallel import WORKERS, side_by_side
from .refusals import ServiceError, route_of
from .transport import Transport

RANGE = 4 * 1024 * 1024
"""Bytes of one request: the most of which the service tells a checksum."""
_ATTEMPTS = 4
"""How often a range is asked for that comes spoilt."""
_EMPTY = 416
_READ = 1024 * 1024


class BigBlob(NamedTuple):
    """A blob of which the first range has come, and more is to come.

    Attributes:
        address: Where the rest is.
        file: Where it goes.
        first: The first ``RANGE`` bytes.
        size: Of the whole, in bytes.
        etag: Of the version that the range is of; empty: what has come stays as it is, whatever is appended.
        md5: Of the whole, as the storage writes it; None: the blob has none.
    """

    address: SignedAddress
    file: Path
    first: bytes
    size: int
    etag: str
    md5: str | None


def get_file(
    transport: Transport,
    address: SignedAddress,
    file: Path,
    *,
    progress: Callable[[int], None] = lambda _: None,
    workers: int = WORKERS,
) -> None:
    """Read a blob into a file, which is there when all of it has come and its checksum is right.

    Args:
        transport: Without tokens.
        address: Of the blob.
        file: In a folder that is there; overwritten.
        progress: Told the bytes that have come since the last time, from any thread.
        workers: Ranges at once.

    Raises:
        ServiceError: Refused, no answer in time, or what came is not what the storage has. Of a big blob, what had come
            is kept beside the file for the next time, and the error says so.
        OSError: The file cannot be written.
    """
    big = begin(transport, address, file, progress=progress)
    if big is not None:
        finish(transport, big, progress=progress, workers=workers)


def begin(
    transport: Transport, address: SignedAddress, file: Path, *, progress: Callable[[int], None] = lambda _: None
) -> BigBlob | None:
    """Read a blob of up to ``RANGE`` bytes into a file, or the beginning of a bigger one.

    Returns:
        What ``finish`` goes on with; None: the file is there.

    Raises:
        ServiceError: As for ``get_file``.
        OSError: The file cannot be written.
    """
    data, response = _range(transport, address, 0, RANGE)
    size = _size(response, len(data))
    md5 = response.headers.get("x-ms-blob-content-md5")
    if size > len(data):
        grows = response.headers.get("x-ms-blob-type") == "AppendBlob"  # a log, whose beginning stays as it is
        return BigBlob(address, file, data, size, "" if grows else response.headers.get("ETag", ""), md5)
    if md5 is not None and md5 != digest(data):
        raise _spoilt(address)
    temporary = file.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        temporary.write_bytes(data)
        temporary.replace(file)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    progress(len(data))
    return None


def finish(
    transport: Transport, big: BigBlob, *, progress: Callable[[int], None] = lambda _: None, workers: int = WORKERS
) -> None:
    """Read the rest of a big blob.

    Raises:
        ServiceError: As for ``get_file``.
        OSError: The file cannot be written.
    """
    with _Partial(big) as partial:
        have = partial.present()
        if have:
            progress(sum(min(RANGE, big.size - number * RANGE) for number in have))
        if 0 not in have:
            partial.keep(0, big.first)
            progress(len(big.first))
        missing = [number for number in range(1, -(-big.size // RANGE)) if number not in have]

        def fetch(number: int) -> None:
            start = number * RANGE
            data, _ = _range(transport, big.address, start, min(RANGE, big.size - start), of=big)
            partial.keep(number, data)
            progress(len(data))

        side_by_side(fetch, missing, workers=workers)
        partial.complete()


class _Partial:
    """A file that is not whole yet: the blob's bytes, then a byte for each range that says whether it has come.

    It is named by what it is a part of, so the next download finds it. It is locked while one works on it; another one
    meanwhile works on one of its own.
    """

    def __init__(self, big: BigBlob) -> None:
        self._big = big
        self._ranges = -(-big.size // RANGE)
        self._writing = threading.Lock()
        known = hashlib.sha256(f"{big.file.name}\0{big.etag}\0{big.size}".encode()).hexdigest()[:16]
        self._path = big.file.with_name(f".{known}.partial")
        stream = _locked(self._path)
        self._kept = stream is not None
        if stream is None:
            self._path = big.file.with_name(f".{uuid.uuid4().hex}.partial")
            stream = FileIO(self._path, "x+")
        self._stream = stream
        whole = big.size + self._ranges
        if stream.seek(0, os.SEEK_END) not in (whole, big.size):
            stream.truncate(0)
            stream.truncate(whole)

    def __enter__(self) -> _Partial:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._stream.close()
        if isinstance(error, ServiceError) and self._kept and error.code not in ("Spoilt", "BlobChanged"):
            error.next_step = f"what has come is kept in {self._path}, and the next download goes on from there"
        elif error is not None and not isinstance(error, KeyboardInterrupt):
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    def present(self) -> frozenset[int]:
        """Numbers of the ranges that have come."""
        self._stream.seek(self._big.size)
        flags = self._stream.read(self._ranges) or b"\1" * self._ranges  # without flags it was whole
        return frozenset(number for number, flag in enumerate(flags) if flag)

    def keep(self, number: int, data: bytes) -> None:
        """Write a range, then that it has come."""
        with self._writing:
            self._write(number * RANGE, data)
            self._write(self._big.size + number, b"\1")

    def _write(self, place: int, data: bytes) -> None:
        self._stream.seek(place)
        while data:
            data = data[self._stream.write(data) :]

    def complete(self) -> None:
        """Give it its name, if it is what the storage has.

        Raises:
            ServiceError: It is not.
        """
        if self._big.md5 is not None and self._big.md5 != self._checksum():
            raise _spoilt(self._big.address)
        self._stream.truncate(self._big.size)
        self._path.replace(self._big.file)

    def _checksum(self) -> str:
        checksum = hashlib.md5()  # noqa: S324 - the storage's checksum; guards against accidents only
        self._stream.seek(0)
        left = self._big.size
        while left:
            data = self._stream.read(min(_READ, left))
            checksum.update(data)
            left -= len(data)
        return encoded(checksum)


def _range(
    transport: Transport, address: SignedAddress, offset: int, length: int, *, of: BigBlob | None = None
) -> tuple[bytes, requests.Response]:
    """A range, whole and with the right checksum, and the answer that it came in.

    Args:
        transport: Without tokens.
        address: Of the blob.
        offset: Of the range.
        length: Of the range; the blob may be shorter.
        of: What it must be a part of, all of it; None: nothing is known of the blob yet.
    """
    headers = {"Range": f"bytes={offset}-{offset + length - 1}", "x-ms-range-get-content-md5": "true"}
    if of is not None and of.etag:
        headers["If-Match"] = of.etag
    for _ in range(_ATTEMPTS):
        response = ask(transport, address, "GET", headers=headers, accept=(412, _EMPTY))
        if response.status_code == 412:
            raise _changed(address)
        if of is None and response.status_code == _EMPTY:
            return b"", response
        data = response.content
        expected = len(data) if "Content-Length" not in response.headers else int(response.headers["Content-Length"])
        whole = len(data) == expected if of is None else (response.status_code == 206 and len(data) == length)
        if whole and response.headers.get("Content-MD5") in (None, digest(data)):
            return data, response
    raise _spoilt(address)


def _size(response: requests.Response, came: int) -> int:
    """A blob's size by the answer to a request for a range of it."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if response.status_code == 206 and total.isdigit() else came


def _changed(address: SignedAddress) -> ServiceError:
    return ServiceError(
        "the blob changed while it was downloaded",
        route=route_of("GET", address.url()),
        code="BlobChanged",
        next_step="download it when nothing writes to it any more",
    )


def _spoilt(address: SignedAddress) -> ServiceError:
    return ServiceError(
        "what came is not what the storage has (its MD5 is another)",
        route=route_of("GET", address.url()),
        code="Spoilt",
        next_step="something between here and Azure changes what it passes on, or whoever wrote the blob was wrong",
    )


def _locked(path: Path) -> FileIO | None:
    """The file, made if need be, and ours alone until it is closed; None: it is another's now."""
    while True:
        stream = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return stream
        stream.close()  # the other was done with it, and it has its name by now
