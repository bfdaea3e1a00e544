"""A snapshot as one file: a tar archive, compressed by Zstandard.

The same files give the same bytes with the same version of zstandard: sorted names, no times, no owners, two modes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shlex
import shutil
import stat
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from mlflow_azure_backend.errors import SnapshotError
from mlflow_azure_backend.snapshot.contents import blocks_of, changed
from mlflow_azure_backend.snapshot.rules import DEFAULT_MAX_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_LEVEL: Final = 1
_RECORD: Final = 512
_NAME: Final = 100
_LARGEST: Final = 8**11 - 1
_BUFFER: Final = 1024 * 1024
_LARGEST_WINDOW: Final = 8 * 1024 * 1024
_MOST_FILES: Final = 1_000_000
_MOST_FOLDERS: Final = 200
"""Above a file; with a thousand, Python's own functions that make and remove folders give up."""


class ArchiveWriter:
    """Appends files to an archive, in the order of their paths."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._waiting: list[bytes] = []
        self._waiting_size = 0

    def add(self, path: str, data: bytes, *, executable: bool) -> None:
        """Append a file."""
        self._write(_header(path, len(data), executable=executable), data, bytes(-len(data) % _RECORD))

    def add_blocks(self, path: str, location: str, *, size: int, sha256: str, executable: bool) -> None:
        """Append a file that is too large for the memory.

        Raises:
            SnapshotError: It cannot be read, or is not what its hash says.
        """
        self._write(_header(path, size, executable=executable))
        digest = hashlib.sha256()
        for block in blocks_of(path, location):
            digest.update(block)
            self._write(block)
        if digest.hexdigest() != sha256:
            raise changed(path)
        self._write(bytes(-size % _RECORD))

    def close(self) -> None:
        """End the archive with its two empty records."""
        self._write(bytes(2 * _RECORD))
        self._flush()

    def _write(self, *pieces: bytes) -> None:
        # The compressor takes a few large pieces far faster than many small ones.
        self._waiting += pieces
        self._waiting_size += sum(map(len, pieces))
        if self._waiting_size >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        self._stream.write(b"".join(self._waiting))
        self._waiting.clear()
        self._waiting_size = 0


@contextlib.contextmanager
def new_archive(destination: Path) -> Iterator[ArchiveWriter]:
    """Write an archive beside its destination, and move it there when it is whole; else leave nothing.

    Raises:
        SnapshotError: The archive cannot be written.
    """
    import zstandard

    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.")
        # One worker compresses while we read; how many there are does not change the bytes, but none would.
        compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=1, write_checksum=True)
        with open(descriptor, "wb") as file, compressor.stream_writer(file, closefd=False) as stream:  # noqa: PTH123
            writer = ArchiveWriter(stream)
            yield writer
            writer.close()
        Path(temporary).replace(destination)
    except OSError as error:
        raise _unwritable(destination, error) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _header(path: str, size: int, *, executable: bool) -> bytes:
    """What stands before a file's content: one record, or three when a name or size does not fit into it (PAX)."""
    name = path.encode("utf-8")
    mode = b"0000755" if executable else b"0000644"
    if len(name) <= _NAME and path.isascii() and size <= _LARGEST:
        return _record(name, size, mode, b"0")
    extra = _pax_field(b"path", name) + (_pax_field(b"size", b"%d" % size) if size > _LARGEST else b"")
    plain_name = path.encode("ascii", "replace")[:_NAME]
    return b"".join(
        (
            _record(b"././@PaxHeader", len(extra), b"0000000", b"x"),
            extra.ljust(_padded(len(extra)), b"\0"),
            _record(plain_name, size if size <= _LARGEST else 0, mode, b"0"),
        )
    )


def _record(name: bytes, size: int, mode: bytes, kind: bytes) -> bytes:
    """A header record of POSIX.1-1988; ``tarfile`` makes the same, in five times the time."""
    owners_size_time = b"\x000000000\x000000000\x00%011o\x0000000000000\0" % size
    start = name.ljust(_NAME, b"\0") + mode + owners_size_time
    end = (kind + bytes(_NAME) + b"ustar\x0000").ljust(_RECORD - len(start) - 8, b"\0")
    checksum = sum(start) + sum(b" " * 8) + sum(end)
    return start + b"%06o\0 " % checksum + end


def _pax_field(key: bytes, value: bytes) -> bytes:
    """A field that begins with its own length in digits."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest) + 1
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d%b" % (length, rest)


def _padded(size: int) -> int:
    return size + -size % _RECORD


def extract_archive(archive: Path, destination: Path, *, max_size: int = DEFAULT_MAX_SIZE) -> None:
    """Unpack an archive of ours.

    Args:
        archive: The file.
        destination: A folder that does not exist, or is empty.
        max_size: Bytes of all files together.

    Raises:
        SnapshotError: The archive is damaged, too large, or holds anything but plain files below its top; the folder is
            not empty or cannot be written. Then nothing is left in it.
    """
    made = not destination.exists()
    try:
        destination.mkdir(parents=True, exist_ok=True)
        if any(destination.iterdir()):
            raise SnapshotError(
                "a snapshot is unpacked into an empty folder only, and this one is not", where=destination
            )
    except OSError as error:
        raise _unwritable(destination, error) from error
    try:
        _extract(archive, destination, max_size)
    except BaseException:
        for entry in destination.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if made:
            destination.rmdir()
        raise


def _extract(archive: Path, destination: Path, max_size: int) -> None:
    import zstandard

    try:
        file = archive.open("rb")
    except OSError as error:
        raise SnapshotError(f"the snapshot's archive cannot be read: {error.strerror}", where=archive) from error
    with file:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        stream = cast("io.RawIOBase", decompressor.stream_reader(file))
        reader = _ArchiveReader(io.BufferedReader(stream, _BUFFER), archive)
        try:
            unpacked = 0
            for count, (path, size, executable) in enumerate(reader.members(), 1):
                unpacked += size
                if unpacked > max_size or count > _MOST_FILES:
                    raise reader.refusal(f"unpacks to more than {max_size} bytes or {_MOST_FILES} files")
                _write_file(destination / path, reader.content(size), executable=executable)
        except zstandard.ZstdError as error:
            raise reader.refusal(f"is damaged: {error}") from error
        except OSError as error:
            raise _unwritable(destination, error) from error


def _write_file(location: Path, blocks: Iterator[bytes], *, executable: bool) -> None:
    location.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(location, flags, 0o755 if executable else 0o644), "wb") as file:  # noqa: PTH123 (a descriptor)
        file.writelines(blocks)


def _unwritable(destination: Path, error: OSError) -> SnapshotError:
    where = error.filename if isinstance(error.filename, str) else destination
    return SnapshotError(
        f"cannot be written: {error.strerror}", where=where, next_step=f"df -h {shlex.quote(str(destination.parent))}"
    )


class _ArchiveReader:
    """Reads the records that ``_header`` writes and refuses others: links, devices, folders, other tools' fields."""

    def __init__(self, stream: io.BufferedReader, archive: Path) -> None:
        self._stream = stream
        self._archive = archive

    def refusal(self, what: str) -> SnapshotError:
        return SnapshotError(f"the snapshot's archive {what}", where=self._archive, next_step="make a new snapshot")

    def members(self) -> Iterator[tuple[str, int, bool]]:
        """Path, size and executable bit of each file; its content has to be read before the next is asked for."""
        while (record := self._exactly(_RECORD)) != bytes(_RECORD):
            extra: dict[str, str] = {}
            member = self._parse(record)
            if member.type == tarfile.XHDTYPE:
                extra = self._extra_fields(member.size)
                member = self._parse(self._exactly(_RECORD))
            path = extra.get("path", member.name)
            if member.type != tarfile.REGTYPE:
                raise self.refusal(f"holds {path!r}, which is not a plain file")
            if not _is_plain_path(path):
                raise self.refusal(f"holds {path!r}, which is not a path below its top")
            size = extra.get("size", str(member.size))
            if not size.isdecimal():
                raise self.refusal("is damaged: the size of a file is no number")
            yield path, int(size), bool(member.mode & stat.S_IXUSR)
        if self._stream.read(_RECORD + 1) != bytes(_RECORD):
            raise self.refusal("is damaged: it has no proper end")

    def content(self, size: int) -> Iterator[bytes]:
        """The content of the file that was named last."""
        for start in range(0, size, _BUFFER):
            yield self._exactly(min(_BUFFER, size - start))
        self._exactly(-size % _RECORD)

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise self.refusal("is damaged: it is cut short")
        return data

    def _parse(self, record: bytes) -> tarfile.TarInfo:
        try:
            member = tarfile.TarInfo.frombuf(record, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise self.refusal(f"is damaged: {error}") from error
        return member

    def _extra_fields(self, size: int) -> dict[str, str]:
        if not 0 <= size <= _BUFFER:
            raise self.refusal("is damaged: a name is too long")
        data = self._exactly(_padded(size))[:size]
        fields = {}
        try:
            while data:
                length, _, rest = data.partition(b" ")
                field, data = rest[: int(length) - len(length) - 1], data[int(length) :]
                key, value = field.decode("utf-8").removesuffix("\n").split("=", 1)
                if len(field) + len(length) + 1 != int(length) or not field.endswith(b"\n"):
                    raise ValueError(field)
                fields[key] = value
        except ValueError as error:
            raise self.refusal("is damaged: a name cannot be read") from error
        return fields


def _is_plain_path(path: str) -> bool:
    """Whether a path stays below the folder that it is joined to, on this system too."""
    hostile = "\0\\:" if os.name == "nt" else "\0"
    parts = path.split("/")
    is_below = not any(part in ("", ".", "..") for part in parts) and not any(letter in path for letter in hostile)
    return is_below and len(parts) <= _MOST_FOLDERS
