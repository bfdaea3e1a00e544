"""What a job reads and writes: its code, its inputs, its outputs, and what of them is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mlflow_azure_backend.emulator.execution.ends import Refused
from mlflow_azure_backend.emulator.storage import ARTIFACTS

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.jobs import Job
    from mlflow_azure_backend.emulator.world import World

_ASSET = re.compile(r".*/(?P<kind>codes|environments)/(?P<name>[^/]+)/versions/(?P<version>[^/]+)$", re.IGNORECASE)
_DATA = re.compile(r"azureml://.*datastores/(?P<store>[^/]+)/paths/(?P<path>.*)$")


def asset_properties(world: World, identity: str, kind: str) -> dict[str, Any]:
    """The properties of a registered asset.

    Raises:
        Refused: There is none.
    """
    found = _ASSET.match(identity)
    asset = None if found is None else world.state.get(kind, f"{found['name']}/{found['version']}")
    if asset is None:
        raise Refused(f"{identity}: there is no such asset in this workspace; register it, or give its definition")
    return dict(asset["properties"])


@dataclass(frozen=True)
class JobData:
    """The data of one job.

    Attributes:
        world: Has the storage account and the assets.
        job: The job.
        folder: Where its data is while it runs.
    """

    world: World
    job: Job
    folder: Path

    async def fetch_code(self, folder: Path) -> None:
        """Bring the job's code into a node's working folder.

        Raises:
            Refused: There is no such code, or a blob's name leads out of its folder.
        """
        folder.mkdir(parents=True)
        identity = self.job.properties.get("codeId")
        if identity:
            uri = asset_properties(self.world, identity, "codes")["codeUri"]
            container, _, prefix = uri.partition(".blob.core.windows.net")[2].partition("/")[2].partition("/")
            await self._download(container, prefix.strip("/"), folder)

    async def places(self) -> dict[str, str]:
        """What ``inputs.NAME`` and ``outputs.NAME`` stand for in the command, once they are there.

        Raises:
            Refused: An input cannot be had.
        """
        values = {}
        for name, asked in (self.job.properties.get("inputs") or {}).items():
            values[f"inputs.{name}"] = await self._input(name, asked)
        for name, place in self.outputs.items():
            Path(place).mkdir(parents=True, exist_ok=True)
            values[f"outputs.{name}"] = place
        return values

    @property
    def outputs(self) -> dict[str, str]:
        """Where the command writes each named output."""
        names = (name for name in self.job.properties["outputs"] if name != "default")
        return {name: str(self.folder / "outputs" / name) for name in names}

    async def collect(self, working: Path) -> None:
        """Keep what a node wrote into ``./outputs`` and ``./logs``, as artifacts of the run."""
        for part in ("outputs", "logs"):
            await self._upload(working / part, ARTIFACTS, f"{self.job.artifacts}{part}/")

    async def collect_outputs(self) -> None:
        """Keep the named outputs, in their datastore."""
        for name, place in self.outputs.items():
            await self._upload(Path(place), self.world.storage.blobstore, f"azureml/{self.job.name}/{name}/")

    async def _upload(self, folder: Path, container: str, prefix: str) -> None:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = prefix + file.relative_to(folder).as_posix()
                await self.world.storage.put(container, name, file.read_bytes())

    async def _download(self, container: str, prefix: str, folder: Path) -> None:
        storage = self.world.storage
        base = f"{prefix.rstrip('/')}/" if prefix else ""
        async for name, _ in storage.names(container, base):
            relative = PurePosixPath(name.removeprefix(base))
            if relative.is_absolute() or ".." in relative.parts:
                raise Refused(f"{name}: a blob's name may not lead out of its folder")
            data = await storage.get(container, name)
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data or b"")

    async def _input(self, name: str, asked: Mapping[str, Any]) -> str:
        if asked["jobInputType"] == "literal":
            return str(asked["value"])
        found = _DATA.match(asked["uri"])
        if found is None or found["store"] != "workspaceblobstore":
            raise Refused(
                f"input {name}: {asked['uri']} is not in workspaceblobstore, the one place that inputs are read from"
            )
        path, place = found["path"].strip("/"), self.folder / "inputs" / name
        container = self.world.storage.blobstore
        if asked["jobInputType"].endswith("_file"):
            data = await self.world.storage.get(container, path)
            if data is None:
                raise Refused(f"input {name}: there is no {asked['uri']}")
            place.mkdir(parents=True)
            (place / PurePosixPath(path).name).write_bytes(data)
            return str(place / PurePosixPath(path).name)
        place.mkdir(parents=True)
        await self._download(container, path, place)
        return str(place)
