"""A job's inputs and outputs as files of its node: brought there before the command, and kept after it.

Azure mounts them, which needs rights that a test's machine does not give. Here a mount is a folder that is filled
before the command and kept after it; an output that is mounted for reading, too, is one folder for all jobs that write
there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mlflow_azure_backend.emulator.execution.ends import Refused
from mlflow_azure_backend.emulator.execution.places import Place
from mlflow_azure_backend.emulator.storage import Storage


@dataclass
class Mount:
    """One input or output.

    Attributes:
        storage: The storage account.
        place: The blob, or the blobs below a folder.
        folder: What holds it on the node.
        is_file: Whether it is one file, in ``folder``.
        fetched: Whether what is there is brought before the command.
        kept: Whether what the command wrote is brought back.
    """

    storage: Storage
    place: Place
    folder: Path
    is_file: bool
    fetched: bool
    kept: bool
    _known: dict[str, str] = field(default_factory=dict)
    """The etags of the blobs that the folder has, by their names."""
    _seen: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """What the files were like when they and their blobs were last the same."""
    _alone: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def path(self) -> str:
        """What the command is told."""
        return str(self.folder / (PurePosixPath(self.place.path).name or "data") if self.is_file else self.folder)

    async def fetch(self) -> bool:
        """Bring what is new there; whether there is anything.

        Raises:
            Refused: A blob's name leads out of the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.fetched:
            return False
        async with self._alone:
            there = {name: etag async for name, etag in self._blobs()}
            for name in [name for name, etag in there.items() if self._known.get(name) != etag]:
                file = self._file(name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(await self.storage.get(self.place.container, name) or b"")
                self._seen[file] = _state(file)
            for name in self._known.keys() - there.keys():
                self._file(name).unlink(missing_ok=True)
                self._seen.pop(self._file(name), None)
            self._known = there
            return bool(there)

    async def keep(self) -> None:
        """Write what is new or other than it was, and delete what the command deleted."""
        if not self.kept:
            return
        async with self._alone:
            now = {file: _state(file) for file in _files(self.folder) if not self.is_file or str(file) == self.path}
            changed = [file for file, state in now.items() if self._seen.get(file) != state]
            gone = self._seen.keys() - now.keys()
            for file in changed:
                await self.storage.put(self.place.container, self._blob(file), file.read_bytes())
            for file in gone:
                await self.storage.delete(self.place.container, self._blob(file))
            self._seen = now
            if self.fetched and (changed or gone):
                self._known = {name: etag async for name, etag in self._blobs()}

    async def _blobs(self) -> AsyncIterator[tuple[str, str]]:
        """Names and etags of what is there."""
        base = self.place.path if self.is_file or not self.place.path else f"{self.place.path}/"
        async for name, etag in self.storage.names(self.place.container, base):
            if not self.is_file or name == base:
                yield name, etag

    def _file(self, blob: str) -> Path:
        if self.is_file:
            return Path(self.path)
        relative = PurePosixPath(blob.removeprefix(self.place.path).lstrip("/"))
        if ".." in relative.parts:
            raise Refused(f"{blob}: a blob's name may not lead out of its folder")
        return self.folder / relative

    def _blob(self, file: Path) -> str:
        if self.is_file:
            return self.place.path
        return f"{self.place.path}/{file.relative_to(self.folder).as_posix()}".lstrip("/")


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns
