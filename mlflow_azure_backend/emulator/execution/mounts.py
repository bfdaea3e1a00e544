"""A job's inputs and outputs as files of its node: brought there before the command, and kept after it.

Azure mounts them, which needs rights that a test's machine does not give; a folder that is filled before the command
and kept after it looks the same to a command, but not to other jobs that look meanwhile.
"""

from __future__ import annotations

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
    _seen: dict[Path, tuple[int, int]] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """What the command is told."""
        return str(self.folder / (PurePosixPath(self.place.path).name or "data") if self.is_file else self.folder)

    async def fetch(self) -> bool:
        """Bring what is there; whether there was anything."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.fetched:
            return False
        if self.is_file:
            data = await self.storage.get(*self.place)
            if data is not None:
                Path(self.path).write_bytes(data)
        else:
            await download(self.storage, self.place, self.folder)
        self._seen = {file: _state(file) for file in _files(self.folder)}
        return bool(self._seen)

    async def keep(self) -> None:
        """Write what is new or other than it was, and delete what the command deleted."""
        if not self.kept:
            return
        now = {file: _state(file) for file in _files(self.folder)}
        for file, state in now.items():
            if self._seen.get(file) != state and (not self.is_file or str(file) == self.path):
                await self.storage.put(self.place.container, self._blob(file), file.read_bytes())
        for file in self._seen.keys() - now.keys():
            await self.storage.delete(self.place.container, self._blob(file))
        self._seen = now

    def _blob(self, file: Path) -> str:
        if self.is_file:
            return self.place.path
        return f"{self.place.path}/{file.relative_to(self.folder).as_posix()}".lstrip("/")


async def download(storage: Storage, place: Place, folder: Path) -> None:
    """Bring the blobs below a folder.

    Raises:
        Refused: A blob's name leads out of the folder.
    """
    base = f"{place.path}/" if place.path else ""
    async for name, _ in storage.names(place.container, base):
        relative = PurePosixPath(name.removeprefix(base))
        if relative.is_absolute() or ".." in relative.parts:
            raise Refused(f"{name}: a blob's name may not lead out of its folder")
        data = await storage.get(place.container, name)
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data or b"")


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns
