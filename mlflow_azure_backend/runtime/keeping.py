"""Packed prefixes on the workspace's datastore, by their key: what one job installed, later jobs unpack.

::

    FOLDER/                 of one environment key, mounted for reading and writing
      SHA256.tar.gz         a prefix
      complete.json         which archive is whole, and the prefix's place, which scripts carry; written last

Several jobs may write at once: each its archive, under its own digest, then the marker. Nothing is renamed, which not
every mount can do, and nothing is believed: an archive whose digest is not the marker's is not used.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .archives import DAMAGED, extract

MARKER = "complete.json"
NODE_MARKER = ".mlflow-azure-environment"
"""In a prefix: that it is whole on this node. It is not packed: nothing that is being unpacked may pass for whole."""
_CHUNK = 1 << 20


class Unusable(Exception):
    """What is kept cannot be used, or nothing can be kept; one line."""


def unpack(folder: Path, prefix: Path, key: str) -> bool:
    """Unpack a kept prefix into its place; False: none is kept.

    Args:
        folder: Where the key's archives are.
        prefix: A folder that is not there.
        key: The environment key.

    Raises:
        Unusable: What is kept is damaged or for another place; what is at ``prefix`` then must not be used.
    """
    try:
        if not (folder / MARKER).is_file():
            return False
        marker: Any = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        digest, packed = str(marker["sha256"]), (str(marker["key"]), str(marker["prefix"]))
        if packed != (key, str(prefix)):
            raise Unusable(f"it was packed for {packed[1]}")
        if re.fullmatch("[0-9a-f]{64}", digest) is None:
            raise ValueError(f"{MARKER} names no digest")
        with (folder / f"{digest}.tar.gz").open("rb") as stream:
            if extract(stream, prefix) != digest:
                raise Unusable("its digest is not the one that it was kept with")
    except (LookupError, TypeError):
        raise Unusable(f"{MARKER} is not one of ours") from None
    except DAMAGED as error:
        raise Unusable(f"{type(error).__name__}: {error}") from None
    return True


def listing(prefix: Path) -> dict[str, tuple[int, ...]]:
    """What is in a prefix now: by its path there, what tells whether a file is still the same."""
    found = {os.path.relpath(path, str(prefix)): _identity(status) for path, status in _walk(str(prefix))}
    found.pop(NODE_MARKER, None)
    return found


def pack(prefix: Path, listed: dict[str, tuple[int, ...]], folder: Path, key: str, scratch: Path) -> int:
    """Keep a prefix for later jobs; returns the archive's size, bytes.

    Modules are compiled first, so that later jobs need not.

    Args:
        prefix: The prefix; a command may be running in it.
        listed: What was in it when it was whole; what else is there now, bytecode apart, is somebody's own.
        folder: Where the key's archives are.
        key: The environment key.
        scratch: A folder of this node.

    Raises:
        Unusable: A file of it was changed meanwhile, or the disk or the datastore refuses.
    """
    try:
        _compile(prefix)
        with tempfile.TemporaryFile(dir=str(scratch)) as packed:
            _write(prefix, listed, packed)
            size = packed.tell()
            digest = _digest(packed)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"{digest}.tar.gz").open("wb") as target:
                packed.seek(0)
                shutil.copyfileobj(packed, target, _CHUNK)
        marker = {"key": key, "prefix": str(prefix), "sha256": digest, "size": size}
        (folder / MARKER).write_text(json.dumps(marker), encoding="utf-8")
    except (OSError, tarfile.TarError) as error:
        raise Unusable(f"{type(error).__name__}: {error}") from None
    return size


def _compile(prefix: Path) -> None:
    python = prefix / "bin/python"
    if python.exists():
        argv = [str(python), "-I", "-m", "compileall", "-q", "-j", "0", str(prefix / "lib")]
        quiet = subprocess.DEVNULL
        subprocess.run(argv, check=False, stdin=quiet, stdout=quiet, stderr=quiet)


def _write(prefix: Path, listed: dict[str, tuple[int, ...]], target: IO[bytes]) -> None:
    with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=1, mtime=0) as zipped, tarfile.open(
        fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT
    ) as archive:
        for name in sorted({*listed, *_bytecode(prefix)}):
            path, expected = prefix / name, listed.get(name)
            archive.add(str(path), name, recursive=False, filter=_ownerless)
            if expected is not None and _identity(path.lstat()) != expected:
                raise Unusable(f"{name} was changed while the command ran")


def _bytecode(prefix: Path) -> Iterator[str]:
    """Compiled modules and their folders: Python replaces them whole."""
    for path, _ in _walk(str(prefix)):
        if path.endswith("/__pycache__") or (path.endswith(".pyc") and "/__pycache__/" in path):
            yield os.path.relpath(path, str(prefix))


def _walk(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        status = entry.stat(follow_symlinks=False)
        yield entry.path, status
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(entry.path)


def _identity(found: os.stat_result) -> tuple[int, ...]:
    """A folder's time changes when bytecode is written into it."""
    if stat.S_ISDIR(found.st_mode):
        return (found.st_mode,)
    return (found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns)


def _ownerless(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    stream.seek(0)
    while True:
        chunk = stream.read(_CHUNK)
        if not chunk:
            break
        digest.update(chunk)
    return digest.hexdigest()
