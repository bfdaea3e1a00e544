"""Environments as folders of this machine, by rattler and uv.

A conda file that asks for Python and pip packages alone becomes a virtual environment by uv, so that it needs no
channel; one that asks for more is solved and installed by rattler.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from uv import find_uv_bin

from mlflow_azure_backend.emulator.execution.building import build_once, carry_out
from mlflow_azure_backend.emulator.execution.conda_file import CondaFile

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.jobs import Job
    from mlflow_azure_backend.emulator.world import World

BARE = CondaFile((f"python={sys.version_info.major}.{sys.version_info.minor}",), (), (), {})
"""The emulator's own Python and nothing else."""
_INSTALLER = Path(__file__).with_name("conda_prefix.py")


async def build_prefix(world: World, job: Job, wanted: CondaFile) -> Path:
    """The folder of a conda file's environment, built when it is not there yet.

    Raises:
        Refused: An installer refused.
    """
    prefix = _prefix(world, wanted)

    async def build(log: Path) -> None:
        await _install(prefix, wanted, log)

    await build_once(world, job, prefix, build)
    return prefix


async def build_prefix_within(world: World, wanted: CondaFile, log: Path) -> Path:
    """As `build_prefix`, as a part of another build, and into its log."""
    prefix = _prefix(world, wanted)
    async with world.building.setdefault(prefix.name, asyncio.Lock()):
        if not (prefix / "built").exists():
            await _install(prefix, wanted, log)
            (prefix / "built").touch()
    return prefix


def _prefix(world: World, wanted: CondaFile) -> Path:
    return world.folder / "environments" / environment_name(wanted)


async def _install(prefix: Path, wanted: CondaFile, log: Path) -> None:
    prefix.parent.mkdir(exist_ok=True)
    await asyncio.to_thread(shutil.rmtree, prefix, ignore_errors=True)
    for step in _steps(prefix, wanted):
        await carry_out(step, prefix.parent, log)


def environment_name(*wanted: object) -> str:
    """A name that says what is in an environment, in the form of Azure's."""
    return f"azureml_{hashlib.sha256(repr(wanted).encode()).hexdigest()[:32]}"


def activated(prefix: Path | str, wanted: CondaFile) -> Mapping[str, str]:
    """What Azure's images set for the environment in them, the search path apart."""
    name = Path(prefix).name
    conda = {"CONDA_PREFIX": str(prefix), "CONDA_DEFAULT_ENV": name, "AZUREML_CONDA_ENVIRONMENT_PATH": str(prefix)}
    return {**conda, **wanted.variables}


def _steps(prefix: Path, wanted: CondaFile) -> list[list[str]]:
    uv = find_uv_bin()
    if wanted.needs_conda:
        installer = [sys.executable, "-I", str(_INSTALLER), str(prefix)]
        first = [*installer, *wanted.channels, "--", *wanted.specifications]
    else:
        python = ["--python", wanted.python] if wanted.python else []
        first = [uv, "venv", "--no-progress", *python, str(prefix)]
    if not wanted.packages:
        return [first]
    requirements = prefix.with_name(f"{prefix.name}.txt")
    requirements.write_text(wanted.requirements, "utf-8")
    into = ["--python", str(prefix / "bin" / "python"), "--break-system-packages"]
    return [first, [uv, "pip", "install", "--no-progress", *into, "--requirement", str(requirements)]]
