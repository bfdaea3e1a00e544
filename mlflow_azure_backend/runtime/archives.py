"""Tar archives that stay where they are unpacked."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from pathlib import Path
from typing import IO, cast

_CHUNK = 1 << 20
DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error)
"""What reading a damaged archive raises."""


class LeadsOut(ValueError):
    """An archive has a member that is to be written elsewhere; one line."""


def extract(stream: IO[bytes], folder: Path) -> str:
    """Unpack a gzipped tar archive and read it to its end; returns its sha256.

    What it unpacks is not known to be whole before that digest was compared.

    Raises:
        LeadsOut: A name leads out of the folder, or through a link of the archive's own.
        OSError, EOFError, ValueError, tarfile.TarError, zlib.error: ``DAMAGED``: it cannot be read or written.
    """
    links: set[str] = set()
    reader = _Digesting(stream)
    with gzip.GzipFile(fileobj=cast("IO[bytes]", reader)) as unzipped, tarfile.open(
        fileobj=unzipped, mode="r|"
    ) as archive:
        if hasattr(tarfile, "fully_trusted_filter"):
            archive.extraction_filter = staticmethod(tarfile.fully_trusted_filter)  # we look ourselves
        folder.mkdir(parents=True, exist_ok=True)
        for member in archive:
            is_known = member.isfile() or member.isdir() or member.issym() or member.islnk()
            names = [member.name, member.linkname] if member.islnk() else [member.name]
            if not is_known or any(_leads_out(name, links) for name in names):
                raise LeadsOut(f"it has a member that leads out of it: {member.name!r}")
            if member.issym():
                links.add(member.name)
            archive.extract(member, str(folder), numeric_owner=True)
    while reader.read(_CHUNK):
        pass
    return reader.digest.hexdigest()


def _leads_out(name: str, links: set[str]) -> bool:
    parts = name.split("/")
    through = any("/".join(parts[:count]) in links for count in range(1, len(parts) + 1))
    return name.startswith("/") or ".." in parts or through


class _Digesting:
    """Reads a stream, and knows the digest of what it read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.digest.update(data)
        return data
