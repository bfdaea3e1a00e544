"""A job's environment: what its conda file asks for, made once by uv."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mlflow_azure_backend.emulator.execution.ends import Refused

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.world import World

_PYTHON = re.compile(r"python\s*(=|==|>=|~=)?\s*(?P<version>\d+\.\d+)?[\d.*]*$")


async def prepare(world: World, properties: Mapping[str, Any]) -> Path:
    """The prefix of an environment version, built when it is not there yet.

    Raises:
        Refused: It cannot be made faithfully, or an installer refused.
    """
    if properties.get("build"):
        raise Refused("a Dockerfile needs a container engine, which the emulator does not use; give a conda file")
    if not properties.get("condaFile"):
        raise Refused("an image alone needs a container engine, which the emulator does not use; give a conda file")
    python, packages = _wanted(properties["condaFile"])
    await asyncio.sleep(world.settings.image_build_seconds)
    key = hashlib.sha256(repr((python, packages)).encode()).hexdigest()[:16]
    prefix = world.folder / "environments" / key
    async with world.building.setdefault(key, asyncio.Lock()):
        if not (prefix / "built").exists():
            await asyncio.to_thread(_build, prefix, python, packages)
    return prefix


def _wanted(conda_file: str) -> tuple[str | None, list[str]]:
    """Python's version (None: any) and the pip packages of a conda file.

    Raises:
        Refused: It wants something else.
    """
    try:
        told = yaml.safe_load(conda_file)
    except yaml.YAMLError as error:
        raise Refused(f"the environment's conda file is no YAML: {error}") from None
    python: str | None = None
    packages: list[str] = []
    for one in (told or {}).get("dependencies") or [] if isinstance(told, dict) else []:
        if isinstance(one, dict):
            packages += [str(package) for package in one.get("pip") or []]
        elif found := _PYTHON.match(str(one)):
            python = found["version"]
        elif not re.match(r"pip\b", str(one)):
            raise Refused(f"conda package {one}: the emulator makes environments of Python and pip packages only")
    return python, packages


def _build(prefix: Path, python: str | None, packages: list[str]) -> None:
    shutil.rmtree(prefix, ignore_errors=True)
    uv = shutil.which("uv") or _uv()
    wanted = ["--python", python] if python else []
    steps = [[uv, "venv", "--quiet", *wanted, str(prefix)]]
    if packages:
        (prefix.parent / f"{prefix.name}.txt").parent.mkdir(parents=True, exist_ok=True)
        requirements = prefix.parent / f"{prefix.name}.txt"
        requirements.write_text("\n".join(packages) + "\n")
        steps.append([uv, "pip", "install", "--quiet", "--python", str(prefix), "--requirement", str(requirements)])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise Refused(f"the environment cannot be built: {last.strip()}")
    (prefix / "built").touch()


def _uv() -> str:
    from uv import find_uv_bin

    return str(find_uv_bin())
