"""A job's course from Starting to its end: its phases, and what becomes of whatever goes wrong in them."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_azure_backend.emulator.execution.attempt import Attempt, Ended, Start
from mlflow_azure_backend.emulator.execution.data import JobData, asset_properties
from mlflow_azure_backend.emulator.execution.ends import Refused, TimedOut
from mlflow_azure_backend.emulator.execution.environments import Environment, prepare
from mlflow_azure_backend.emulator.execution.ranks import Rank, ranks_of
from mlflow_azure_backend.emulator.execution.variables import runtime_variables

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.jobs import Job
    from mlflow_azure_backend.emulator.world import World

_DURATION = re.compile(r"P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?$")
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

    async def run(self) -> None:
        """Carry the job out; whatever goes wrong becomes the job's end, not the emulator's."""
        jobs, name = self.world.jobs, self.job.name
        try:
            await self._run()
        except Refused as error:
            jobs.move(name, "Failed", {"code": "UserError", "message": str(error)})
        except TimedOut:
            # "When this limit is reached, the system cancels the job": the reference of command jobs, `limits.timeout`.
            jobs.move(name, "CancelRequested")
            jobs.move(name, "Canceled")
        except asyncio.CancelledError:
            if jobs.move(name, "Canceled"):
                return
            raise
        except Exception as error:  # a bug of ours must not leave a job running for ever
            jobs.move(name, "Failed", {"code": "SystemError", "message": f"{type(error).__name__}: {error}"})
            raise
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _run(self) -> None:
        jobs, name, settings = self.world.jobs, self.job.name, self.world.settings
        data = JobData(self.world, self.job, self.folder)
        jobs.move(name, "Preparing")
        ranks, timeout = ranks_of(self.job.properties.get("distribution"), self.job.nodes), self._timeout()
        properties = asset_properties(self.world, self.job.properties["environmentId"], "environments")
        environment = await prepare(self.world, self.job, properties)
        jobs.move(name, "Queued")
        await asyncio.sleep(settings.queue_seconds)
        jobs.move(name, "Provisioning")
        await asyncio.sleep(settings.provisioning_seconds)
        for node in {rank.node for rank in ranks}:
            await data.fetch_code(self._working(node))
        command = _filled(self.job.properties["command"], await data.places())
        jobs.move(name, "Running")
        ended = await Attempt(self.world.storage, self.folder / "logs").run(
            self._starts(command, ranks, environment, data), timeout
        )
        jobs.move(name, "Finalizing")
        for node in {rank.node for rank in ranks}:
            await data.collect(self._working(node))
        await data.collect_outputs()
        self._end(ended)

    def _working(self, node: int) -> Path:
        """A node's working folder."""
        return self.folder / f"node-{node}" / "wd"

    def _starts(self, command: str, ranks: list[Rank], environment: Environment, data: JobData) -> list[Start]:
        shared = {**environment.variables, **runtime_variables(self.world, self.job, data.outputs)}
        return [
            Start(
                argv=["/bin/bash", "-c", command],
                cwd=self._working(rank.node),
                variables={**rank.variables, **shared},
                log=f"{self.job.artifacts}user_logs/{rank.log}",
            )
            for rank in ranks
        ]

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
        found = _DURATION.match(asked)
        if found is None:
            raise Refused(f"limits.timeout: {asked} is no duration of days, hours, minutes and seconds, like PT1H30M")
        return timedelta(**{unit: int(number) for unit, number in found.groupdict("0").items()}).total_seconds()


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
