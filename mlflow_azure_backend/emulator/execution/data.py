"""What a job reads and writes: its code, its inputs, its outputs, and what of them is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_azure_backend.emulator.execution.ends import Refused
from mlflow_azure_backend.emulator.execution.mounts import Mount
from mlflow_azure_backend.emulator.execution.places import Place, address_of, asset_properties, blob_place, place_of
from mlflow_azure_backend.emulator.output_assets import keep_output, output_uri
from mlflow_azure_backend.emulator.storage import ARTIFACTS

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.jobs import Job
    from mlflow_azure_backend.emulator.world import World


def shared_mounts(world: World) -> Path:
    """Where outputs are that several jobs write to."""
    return world.folder / "mounts"


@dataclass
class JobData:
    """The data of one job.

    Attributes:
        world: Has the storage account and the assets.
        job: The job.
        folder: Where its data is while it runs.
        variables: ``AZURE_ML_INPUT_NAME`` and ``AZURE_ML_OUTPUT_NAME``, once `fetch` has made their places.
    """

    world: World
    job: Job
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    _mounts: list[Mount] = field(default_factory=list)

    async def fetch_code(self, folder: Path) -> None:
        """Bring the job's code into a node's working folder.

        Raises:
            Refused: There is no such code, or a blob's name leads out of its folder.
        """
        folder.mkdir(parents=True)
        identity = self.job.properties.get("codeId")
        if identity:
            uri = asset_properties(self.world, identity, "codes")["codeUri"]
            await Mount(self.world.storage, blob_place(uri), folder, is_file=False, fetched=True, kept=False).fetch()

    async def fetch(self) -> dict[str, str]:
        """What ``inputs.NAME`` and ``outputs.NAME`` stand for in the command, once they are there.

        Raises:
            Refused: An input cannot be had, or an output has no place.
        """
        values = {}
        for name, asked in (self.job.properties.get("inputs") or {}).items():
            try:
                values[f"inputs.{name}"] = await self._input(name, asked)
                if asked["jobInputType"] != "literal":
                    self.variables[f"AZURE_ML_INPUT_{name}"] = values[f"inputs.{name}"]
            except Refused as error:
                raise Refused(f"input {name}: {error}") from None
        for name, asked in self._named_outputs().items():
            try:
                self.variables[f"AZURE_ML_OUTPUT_{name}"] = values[f"outputs.{name}"] = await self._output(name, asked)
            except Refused as error:
                raise Refused(f"output {name}: {error}") from None
        return values

    def artifacts(self, working: Path) -> dict[str, Mount]:
        """What a node writes into ``./outputs`` and ``./logs``, to be kept as artifacts of the run."""
        return {
            part: Mount(
                self.world.storage,
                Place(ARTIFACTS, f"{self.job.artifacts}{part}"),
                working / part,
                is_file=False,
                fetched=False,
                kept=True,
            )
            for part in ("outputs", "logs")
        }

    async def keep(self) -> None:
        """Bring back what the command wrote into its outputs, and register what is to be an asset."""
        for mount in self._mounts:
            await mount.keep()
        for name, asked in self._named_outputs().items():
            keep_output(self.world, self.job, name, asked)

    def _named_outputs(self) -> dict[str, Mapping[str, Any]]:
        return {name: asked for name, asked in self.job.properties["outputs"].items() if name != "default"}

    async def _input(self, name: str, asked: Mapping[str, Any]) -> str:
        kind, mode = asked["jobInputType"], asked.get("mode") or "ReadOnlyMount"
        if kind == "literal":
            return str(asked["value"])
        uri = address_of(self.world, asked["uri"], "models" if kind.endswith("_model") else "data")
        if mode == "Direct":
            return uri
        mount = self._mount("inputs", name, asked, uri, is_file=kind == "uri_file", fetched=True)
        mount.kept = mode == "ReadWriteMount"
        if not await mount.fetch():
            raise Refused(f"there is nothing at {uri}")
        return mount.path

    async def _output(self, name: str, asked: Mapping[str, Any]) -> str:
        uri, mode = output_uri(self.job, name, asked), asked.get("mode") or "ReadWriteMount"
        if mode == "Direct":
            return uri
        fetched, is_file = mode == "ReadWriteMount", asked["jobOutputType"] == "uri_file"
        mount = self._mount("outputs", name, asked, uri, is_file=is_file, fetched=fetched)
        mount.kept = True
        if fetched and not is_file and asked.get("uri"):
            mount = self.world.mounts.setdefault(mount.place, replace(mount, folder=self._shared(mount.place)))
            self._mounts[-1] = mount
        await mount.fetch()
        return mount.path

    def _shared(self, place: Place) -> Path:
        return shared_mounts(self.world) / hashlib.sha256("/".join(place).encode()).hexdigest()[:16]

    def _mount(
        self, side: str, name: str, asked: Mapping[str, Any], uri: str, *, is_file: bool, fetched: bool
    ) -> Mount:
        if asked.get("pathOnCompute"):
            raise Refused("pathOnCompute needs a node of its own, which the emulator does not have; leave it out")
        if str(asked.get("mode")).startswith("Eval"):
            raise Refused(f"mode {asked['mode']} evaluates an MLTable, which the emulator does not; take ReadOnlyMount")
        folder, place = self.folder / side / name, place_of(self.world, uri)
        mount = Mount(self.world.storage, place, folder, is_file=is_file, fetched=fetched, kept=False)
        self._mounts.append(mount)
        return mount
