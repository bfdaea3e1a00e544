"""Environments are built once, while their jobs are Preparing, and the log is at the job that waited for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_azure_backend.emulator.execution.ends import Refused
from mlflow_azure_backend.emulator.execution.logs import followed
from mlflow_azure_backend.emulator.orders import Orders
from mlflow_azure_backend.emulator.processes import CannotStart, Process

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.jobs import Job
    from mlflow_azure_backend.emulator.world import World

BUILD_LOG = "azureml-logs/20_image_build_log.txt"
"""Where a job that had to wait for a build shows it; Azure's documentation of job logs."""
_NOT_FOR_BUILDS = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "UV_PYTHON")


async def build_once(world: World, job: Job, folder: Path, build: Callable[[Path], Awaitable[None]]) -> None:
    """Build what is in ``folder`` unless it was built already; who else wants it waits.

    Args:
        world: Knows what is being built.
        job: Whose log shows the build.
        folder: Where it is; ``built`` in it says that it is whole.
        build: Builds it, and writes into the log that it is given.

    Raises:
        Refused: It cannot be built.
    """
    async with world.building.setdefault(folder.name, asyncio.Lock()):
        if (folder / "built").exists():
            return
        log = folder.with_name(f"{folder.name}.log")
        async with followed(world.storage, log, job.artifacts + BUILD_LOG, Orders()):
            await asyncio.sleep(world.settings.image_build_seconds)
            await build(log)
        folder.mkdir(exist_ok=True)
        (folder / "built").touch()


async def carry_out(step: Sequence[str], folder: Path, log: Path) -> None:
    """One step of a build.

    Raises:
        Refused: It failed; the last line of the log says why.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_BUILDS}
    try:
        process = await Process.start(step, cwd=folder, env=environment, log=log)
    except CannotStart as error:
        raise Refused(f"Image build failed: {step[0]}: {error}") from None
    try:
        code = await process.ended()
    finally:
        await process.stop()
    if code != 0:
        last = (log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1].strip()
        raise Refused(f"Image build failed. For more details, check log file {BUILD_LOG}. {last}")
