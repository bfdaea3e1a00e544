"""A job's course from Starting to its end: its phases and attempts, and what becomes of whatever goes wrong in them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_azure_backend.emulator.durations import duration
from mlflow_azure_backend.emulator.execution.attempt import Attempt, Ended, Start
from mlflow_azure_backend.emulator.execution.data import JobData, shared_mounts
from mlflow_azure_backend.emulator.execution.ends import Preempted, Refused, TimedOut
from mlflow_azure_backend.emulator.execution.environments import Environment, prepare
from mlflow_azure_backend.emulator.execution.images import in_container
from mlflow_azure_backend.emulator.execution.logs import bring_held
from mlflow_azure_backend.emulator.execution.mounts import Mount
from mlflow_azure_backend.emulator.execution.places import asset_properties
from mlflow_azure_backend.emulator.execution.ranks import Rank, ranks_of
from mlflow_azure_backend.emulator.execution.variables import runtime_variables
from mlflow_azure_backend.emulator.nodes import Cluster, Loan, Scale, scale_of

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.jobs import Job
    from mlflow_azure_backend.emulator.orders import Orders
    from mlflow_azure_backend.emulator.world import World

_LOOK = 1.0
"""Seconds between two looks at ``./logs``."""
_PLACE = re.compile(r"\$\{\{\s*([\w.]+)\s*\}\}")


@dataclass
class Execution:
    """One job on its way from Starting to its end."""

    world: World
    job: Job

    @property
    def folder(self) -> Path:
        """Where the job's nodes keep everything."""
        return self.world.folder / "nodes" / hashlib.sha256(self.job.name.encode()).hexdigest()[:16]

    @property
    def orders(self) -> Orders:
        """What a test ordered for the job."""
        return self.world.orders_for(self.job.name)

    async def run(self) -> None:
        """Carry the job out; whatever goes wrong becomes the job's end, not the emulator's."""
        jobs, name = self.world.jobs, self.job.name
        try:
            await self._run()
        except Refused as error:
            jobs.move(name, "Failed", {"code": "UserError", "message": str(error)})
        except TimedOut:
            jobs.move(name, "Canceled")
        except asyncio.CancelledError:
            if jobs.move(name, "Canceled"):
                return
            raise
        except Exception as error:  # a bug of ours must not leave a job running for ever
            jobs.move(name, "Failed", {"code": "SystemError", "message": f"{type(error).__name__}: {error}"})
            raise
        finally:
            try:
                if not self.world.closing.is_set():
                    await bring_held(self.world.storage, self.orders)
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)

    async def _run(self) -> None:
        jobs, name = self.world.jobs, self.job.name
        jobs.move(name, "Preparing")
        ranks, timeout = ranks_of(self.job.properties.get("distribution"), self.job.nodes), self._timeout()
        properties = asset_properties(self.world, self.job.properties["environmentId"], "environments")
        environment = await prepare(self.world, self.job, properties)
        number = 1
        while True:
            try:
                ended = await self._attempt(number, ranks, environment, timeout)
                break
            except Preempted:
                number += 1
        self._end(ended)

    async def _attempt(self, number: int, ranks: list[Rank], environment: Environment, timeout: float | None) -> Ended:
        """Wait for nodes, and run the commands on them.

        Raises:
            Preempted: The nodes were taken away; the job waits in the queue again.
            TimedOut: Time is over; cancellation is asked for.
        """
        jobs, settings = self.world.jobs, self.world.settings
        jobs.move(self.job.name, "Queued")
        await asyncio.sleep(settings.queue_seconds)
        async with self._nodes() as loan:
            jobs.move(self.job.name, "Provisioning")
            await asyncio.sleep(settings.provisioning_seconds if loan.cold else 0)
            try:
                return await self._on_nodes(number, ranks, environment, timeout)
            except Preempted:
                loan.lost = True
                jobs.move(self.job.name, "Queued")
                raise

    def _nodes(self) -> AbstractAsyncContextManager[Loan]:
        """The job's nodes: its cluster's, or new ones."""
        name, count = self.job.compute, self.job.nodes
        if name is None:
            return Cluster(self.world.clock).lend(count, lambda: Scale(0, count, 0))
        return self.world.cluster(name).lend(count, lambda: scale_of(self.world.state, name))

    async def _on_nodes(self, number: int, ranks: list[Rank], environment: Environment, timeout: float | None) -> Ended:
        """Run the commands; what they have written by their end is kept, however they end."""
        folder = self.folder / f"attempt-{number}"
        data, workings = JobData(self.world, self.job, folder), {rank.node: _working(folder, rank) for rank in ranks}
        for working in workings.values():
            await data.fetch_code(working)
        command = _filled(self.job.properties["command"], await data.fetch())
        # Where logs of later attempts are is inferred from what clients of Azure's clusters look for.
        logs = f"{self.job.artifacts}user_logs/" + (f"retry_{number - 1:03}/" if number > 1 else "")
        variables = {**environment.variables, **runtime_variables(self.world, self.job, data.variables)}
        starts = [
            Start(["/bin/bash", "-c", command], workings[rank.node], {**rank.variables, **variables}, logs + rank.log)
            for rank in ranks
        ]
        if environment.image is not None:
            starts = self._in_containers(environment.image, starts, folder)
        artifacts = [data.artifacts(working) for working in workings.values()]
        appearing = asyncio.ensure_future(_appear([parts["logs"] for parts in artifacts]))
        try:
            self.world.jobs.move(self.job.name, "Running")
            ended = await Attempt(self.world.storage, folder / "logs", self.orders).run(starts, timeout)
            self.world.jobs.move(self.job.name, "Finalizing")
            return ended
        except TimedOut:
            # "When this limit is reached, the system cancels the job": the reference of command jobs, `limits.timeout`.
            self.world.jobs.move(self.job.name, "CancelRequested")
            raise
        finally:
            appearing.cancel()
            await asyncio.gather(appearing, return_exceptions=True)
            if not self.world.closing.is_set():
                for mount in [mount for parts in artifacts for mount in parts.values()]:
                    await mount.keep()
                await data.keep()

    def _in_containers(self, image: str, starts: list[Start], folder: Path) -> list[Start]:
        shared, resources = shared_mounts(self.world), self.job.properties["resources"]
        shared.mkdir(exist_ok=True)
        return [in_container(image, start, (folder, shared), resources) for start in starts]

    def _end(self, ended: Ended) -> None:
        if ended.code == 0:
            self.world.jobs.move(self.job.name, "Completed")
            return
        log = ended.log.removeprefix(self.job.artifacts)
        message = f"Execution failed. User process exited with status code {ended.code}. Please check log file '{log}' "
        message += "for error details."
        self.world.jobs.move(self.job.name, "Failed", {"code": "UserError", "message": message})

    def _timeout(self) -> float | None:
        """How long the command may run, seconds; None: for ever."""
        asked = (self.job.properties.get("limits") or {}).get("timeout")
        if asked is None:
            return None
        limit = duration(asked)
        if limit is None:
            raise Refused(f"limits.timeout: {asked} is no duration of days, hours, minutes and seconds, like PT1H30M")
        return limit.total_seconds()


async def _appear(mounts: Sequence[Mount]) -> None:
    """Bring what is written into ``./logs`` while the command runs, as the documentation of job logs says."""
    while True:
        await asyncio.sleep(_LOOK)
        for mount in mounts:
            with contextlib.suppress(OSError):  # a file that went away while we looked
                await mount.keep()


def _working(folder: Path, rank: Rank) -> Path:
    """The working folder of a rank's node."""
    return folder / f"node-{rank.node}" / "wd"


def _filled(command: str, places: Mapping[str, str]) -> str:
    """The command with its inputs and outputs in place.

    Raises:
        Refused: It names one that the job does not have.
    """

    def replace(match: re.Match[str]) -> str:
        if match[1] not in places:
            raise Refused(f"{match[0]}: the job has no such input or output")
        return places[match[1]]

    return _PLACE.sub(replace, command)
