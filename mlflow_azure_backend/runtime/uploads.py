"""Files into blobs: small ones in one request, big ones in blocks side by side, of which none is sent twice."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from .blobs import SignedAddress, ask, conditions, digest, encoded, put_bytes, was_written, xml
from .parallel import WORKERS, side_by_side
from .refusals import ServiceError, route_of
from .transport import Transport

ONE_REQUEST = 8 * 1024 * 1024
"""Bytes that go in one request, which may have to be sent again whole; what is bigger goes in blocks."""
_BLOCK = 8 * 1024 * 1024
_BLOCKS_AT_MOST = 50_000
_READ = 1024 * 1024


def put_file(
    transport: Transport,
    address: SignedAddress,
    file: Path,
    *,
    overwrite: bool = True,
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[int], None] = lambda _: None,
    workers: int = WORKERS,
) -> bool:
    """Write a file into a blob, its content checked by the service.

    A big file goes up in blocks that are named by their content. The blob is there when the last has arrived, whole or
    not at all; what an interrupted upload left at the service (for a week) is not sent again.

    Args:
        transport: Without tokens.
        address: Of the blob.
        file: Read while it goes up.
        overwrite: False: leave a blob of that name as it is.
        metadata: Of the blob; None: none.
        progress: Told the bytes that have arrived since the last time, from any thread.
        workers: Blocks at once.

    Returns:
        False when there was a blob that had to be left.

    Raises:
        ServiceError: Refused, no answer in time, or the file changed meanwhile.
        OSError: The file cannot be read.
    """
    status = file.stat()
    if status.st_size <= ONE_REQUEST:
        data = file.read_bytes()
        written = put_bytes(transport, address, data, overwrite=overwrite, metadata=metadata)
        progress(len(data))
        return written
    upload = _Upload(transport, address, file, status, progress)
    whole, *blocks = side_by_side(lambda task: task(), [upload.checksum, *upload.tasks()], workers=workers)
    if _identity(file.stat()) != _identity(status):
        raise _changed(file, address)
    body = "".join(f"<Latest>{block}</Latest>" for block in blocks)
    headers = {"x-ms-blob-content-md5": whole, **conditions(overwrite, metadata)}
    listed = {"params": {"comp": "blocklist"}, "data": f"<BlockList>{body}</BlockList>", "headers": headers}
    return was_written(lambda: ask(transport, address, "PUT", **listed), overwrite)


class _Block(NamedTuple):
    number: int
    offset: int
    length: int


class _Upload:
    """A big file on its way."""

    def __init__(
        self,
        transport: Transport,
        address: SignedAddress,
        file: Path,
        status: os.stat_result,
        progress: Callable[[int], None],
    ) -> None:
        self._transport = transport
        self._address = address
        self._file = file
        self._size = status.st_size
        self._progress = progress
        self._there = _uncommitted(transport, address)

    def tasks(self) -> list[Callable[[], str]]:
        """One for each block; it gives the block's name once the service has it."""
        length = max(_BLOCK, -(-self._size // _BLOCKS_AT_MOST))
        starts = range(0, self._size, length)
        blocks = [_Block(number, start, min(length, self._size - start)) for number, start in enumerate(starts)]
        return [partial(self._put, block) for block in blocks]

    def _put(self, block: _Block) -> str:
        with self._file.open("rb") as stream:
            stream.seek(block.offset)
            data = stream.read(block.length)
        if len(data) != block.length:
            raise _changed(self._file, self._address)
        md5 = digest(data)
        name = base64.b64encode(f"{block.number:05d}-{md5}".encode()).decode()
        if self._there.get(name) != block.length:
            params = {"comp": "block", "blockid": name}
            ask(self._transport, self._address, "PUT", params=params, data=data, headers={"Content-MD5": md5})
        self._progress(block.length)
        return name

    def checksum(self) -> str:
        """The MD5 of the whole file, which the storage keeps with the blob."""
        checksum = hashlib.md5()  # noqa: S324 - the storage's checksum; guards against accidents only
        with self._file.open("rb") as stream:
            while data := stream.read(_READ):
                checksum.update(data)
        return encoded(checksum)


def _uncommitted(transport: Transport, address: SignedAddress) -> dict[str, int]:
    """Names and sizes of the blocks that an interrupted upload left; none where the signature does not let us look."""
    params = {"comp": "blocklist", "blocklisttype": "uncommitted"}
    response = ask(transport, address, "GET", params=params, accept=(403, 404))
    if response.status_code >= 400:
        return {}
    return {_text(block, "Name"): int(_text(block, "Size")) for block in xml(response).iter("Block")}


def _text(block: ElementTree.Element, name: str) -> str:
    return block.findtext(name) or "0"


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _changed(file: Path, address: SignedAddress) -> ServiceError:
    return ServiceError(
        f"{file} changed while it was uploaded, so it was not",
        route=route_of("PUT", address.url()),
        code="FileChanged",
        next_step="upload it when nothing writes to it any more",
    )
