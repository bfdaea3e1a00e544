"""A job's environment, built once: what its conda file asks for by rattler and uv, or a bare one for a stock image.

A file that asks for Python and pip packages alone becomes a virtual environment by uv, so that it needs no channel; one
that asks for more is solved and installed by rattler. Microsoft's stock images hold little but a Python; without an
engine one of them alone stands for a virtual environment of the emulator's own Python, with nothing in it.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uv import find_uv_bin

from mlflow_azure_backend.emulator.execution.conda_file import CondaFile, read
from mlflow_azure_backend.emulator.execution.ends import Refused
from mlflow_azure_backend.emulator.execution.logs import followed
from mlflow_azure_backend.emulator.orders import Orders
from mlflow_azure_backend.emulator.processes import Process

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.jobs import Job
    from mlflow_azure_backend.emulator.world import World

BUILD_LOG = "azureml-logs/20_image_build_log.txt"
"""Where a job that had to wait for a build shows it; Azure's documentation of job logs."""
_STOCK = ("mcr.microsoft.com/azureml/openmpi*", "mcr.microsoft.com/azureml/minimal-*")
_BARE = CondaFile((f"python={sys.version_info.major}.{sys.version_info.minor}",), (), (), {})
_INSTALLER = Path(__file__).with_name("conda_prefix.py")
_NOT_FOR_BUILDS = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "UV_PYTHON")


@dataclass(frozen=True)
class Environment:
    """What a job's commands run in.

    Attributes:
        prefix: The folder of its Python.
        variables: What it sets, as Azure's images do.
    """

    prefix: Path
    variables: Mapping[str, str]


async def prepare(world: World, job: Job, properties: Mapping[str, Any]) -> Environment:
    """The environment of an environment version, built when it is not there yet.

    Args:
        world: Keeps the environments.
        job: Whose log shows the build.
        properties: The environment version's.

    Raises:
        Refused: It cannot be made faithfully, or an installer refused.
    """
    wanted = _wanted(properties, world.settings.conda_mirror)
    key = hashlib.sha256(repr(wanted).encode()).hexdigest()[:32]
    prefix = world.folder / "environments" / f"azureml_{key}"
    async with world.building.setdefault(key, asyncio.Lock()):
        if not (prefix / "built").exists():
            await _build(world, job, prefix, wanted)
    conda = {
        "CONDA_PREFIX": str(prefix),
        "CONDA_DEFAULT_ENV": prefix.name,
        "AZUREML_CONDA_ENVIRONMENT_PATH": str(prefix),
    }
    return Environment(prefix, {"PATH": f"{prefix / 'bin'}:/usr/local/bin:/usr/bin:/bin", **conda, **wanted.variables})


def _wanted(properties: Mapping[str, Any], mirror: str) -> CondaFile:
    if properties.get("build"):
        raise Refused("a Dockerfile needs a container engine, which the emulator does not use; give a conda file")
    if properties.get("condaFile"):
        return read(properties["condaFile"], mirror)
    image = properties.get("image") or ""
    if any(fnmatch.fnmatchcase(image, pattern) for pattern in _STOCK):
        return _BARE
    raise Refused(
        f"{image}: an image that is none of Azure's stock ones needs a container engine; give a conda file too"
    )


async def _build(world: World, job: Job, prefix: Path, wanted: CondaFile) -> None:
    log = prefix.with_name(f"{prefix.name}.log")
    async with followed(world.storage, log, job.artifacts + BUILD_LOG, Orders()):
        await asyncio.sleep(world.settings.image_build_seconds)
        await asyncio.to_thread(shutil.rmtree, prefix, ignore_errors=True)
        for step in _steps(prefix, wanted):
            await _carry_out(step, prefix.parent, log)
    (prefix / "built").touch()


def _steps(prefix: Path, wanted: CondaFile) -> list[list[str]]:
    uv = find_uv_bin()
    if wanted.needs_conda:
        installer = [sys.executable, "-I", str(_INSTALLER), str(prefix)]
        first = [*installer, *wanted.channels, "--", *wanted.specifications]
    else:
        first = [uv, "venv", "--no-progress", *(["--python", wanted.python] if wanted.python else []), str(prefix)]
    if not wanted.packages:
        return [first]
    requirements = prefix.with_name(f"{prefix.name}.txt")
    requirements.write_text("".join(f"{line}\n" for line in wanted.packages), "utf-8")
    python = ["--python", str(prefix / "bin" / "python"), "--break-system-packages"]
    return [first, [uv, "pip", "install", "--no-progress", *python, "--requirement", str(requirements)]]


async def _carry_out(step: Sequence[str], folder: Path, log: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_BUILDS}
    process = await Process.start(step, cwd=folder, env=environment, log=log)
    try:
        code = await process.ended()
    finally:
        await process.stop()
    if code != 0:
        last = (log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1].strip()
        raise Refused(f"Image build failed. For more details, check log file {BUILD_LOG}. {last}")
