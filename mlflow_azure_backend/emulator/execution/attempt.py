"""One attempt at a job's commands: all its processes, their logs, and the end of all when one fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mlflow_azure_backend.emulator.execution.ends import Preempted, Refused, TimedOut
from mlflow_azure_backend.emulator.execution.logs import followed
from mlflow_azure_backend.emulator.orders import Orders
from mlflow_azure_backend.emulator.processes import CannotStart, Process
from mlflow_azure_backend.emulator.storage import Storage


class Start(NamedTuple):
    """What one rank is started with."""

    argv: Sequence[str]
    cwd: Path
    variables: Mapping[str, str]
    log: str
    """The log's blob in ``workspaceartifactstore``."""
    after: Sequence[Sequence[str]] = ()
    """Commands that remove what the rank made elsewhere, run when it is gone."""


class Ended(NamedTuple):
    """How the commands ended: the first exit code that is not 0, with its rank's log; or 0 and the first rank's log."""

    code: int
    log: str


@dataclass(frozen=True)
class Attempt:
    """The processes of one attempt.

    Attributes:
        storage: Where the logs go while they grow.
        folder: Where they grow.
        orders: What a test ordered for the job.
    """

    storage: Storage
    folder: Path
    orders: Orders

    async def run(self, starts: Sequence[Start], timeout: float | None) -> Ended:
        """Run all ranks to their end; when one fails, or time is over, or we are cancelled, the others are ended.

        Args:
            starts: The ranks.
            timeout: Seconds; None: for ever.

        Raises:
            Refused: A command cannot be started.
            TimedOut: Time is over.
            Preempted: The nodes are taken away, as was ordered.
        """
        files = [self.folder / f"{number}.log" for number in range(len(starts))]
        async with contextlib.AsyncExitStack() as stack:
            for file, start in zip(files, starts, strict=True):
                await stack.enter_async_context(followed(self.storage, file, start.log, self.orders))
            processes: list[Process] = []
            try:
                for start, file in zip(starts, files, strict=True):
                    processes.append(await _start(start, file))
                return await asyncio.wait_for(self._end(processes, starts), timeout)
            except CannotStart as error:
                raise Refused(f"the command cannot be started: {error}") from None
            except asyncio.TimeoutError:
                raise TimedOut from None
            finally:
                await asyncio.gather(*(process.stop() for process in processes))

    async def _end(self, processes: Sequence[Process], starts: Sequence[Start]) -> Ended:
        """The end of the commands, unless the nodes are taken away first."""
        ending = asyncio.ensure_future(_first_failure(processes, starts))
        preempted = asyncio.ensure_future(self.orders.preempted.wait())
        try:
            await asyncio.wait({ending, preempted}, return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                return ending.result()
            self.orders.preempted.clear()
            await asyncio.gather(*(process.kill() for process in processes))
            raise Preempted
        finally:
            ending.cancel()
            preempted.cancel()


async def _start(start: Start, log: Path) -> Process:
    return await Process.start(start.argv, cwd=start.cwd, env=start.variables, log=log, after=start.after)


async def _first_failure(processes: Sequence[Process], starts: Sequence[Start]) -> Ended:
    """Wait until all ranks have ended, or one has failed."""
    running = {asyncio.ensure_future(process.ended()): start for process, start in zip(processes, starts, strict=True)}
    try:
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                start = running.pop(one)
                if one.result() != 0:
                    return Ended(one.result(), start.log)
    finally:
        for one in running:
            one.cancel()
    return Ended(0, starts[0].log)
