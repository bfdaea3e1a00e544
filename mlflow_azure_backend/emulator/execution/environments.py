"""What a job's commands run in: a container where its image is mapped to one of this machine, else processes.

Microsoft's images cannot always be had, so the setting ``base_images`` says what stands for which. Where it says
nothing, a conda file becomes a folder of this machine, whatever its image; a stock image of Microsoft's, which holds
little but a Python, alone becomes an empty environment of the emulator's own Python; and a Dockerfile is built all the
same, by an engine, and never carried out otherwise.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow_azure_backend.emulator.execution.conda_file import CondaFile, read
from mlflow_azure_backend.emulator.execution.ends import Refused
from mlflow_azure_backend.emulator.execution.images import build_context, build_upon, check_engine, mapped
from mlflow_azure_backend.emulator.execution.prefixes import BARE, activated, build_prefix

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.jobs import Job
    from mlflow_azure_backend.emulator.world import World

PROCESS = "process"
"""What ``base_images`` says of an image whose jobs are to run as processes."""
_STOCK = ("mcr.microsoft.com/azureml/openmpi*", "mcr.microsoft.com/azureml/minimal-*")


@dataclass(frozen=True)
class Environment:
    """What a job's commands run in.

    Attributes:
        image: The image of their containers; None: they are processes of this machine.
        variables: What the environment sets beyond the image's own.
    """

    image: str | None
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
    if properties.get("build"):
        return Environment(await build_context(world, job, properties["build"]), {})
    image, conda_file = properties.get("image") or "", properties.get("condaFile")
    wanted = read(conda_file, world.settings.conda_mirror) if conda_file else None
    local = mapped(image, world.settings.base_images)
    if local is None or local == PROCESS:
        return await _as_processes(world, job, wanted or _bare(image, local))
    if wanted is not None:
        return Environment(await build_upon(world, job, local, wanted), {})
    await check_engine()
    return Environment(local, {})


def _bare(image: str, local: str | None) -> CondaFile:
    """What stands for an image alone.

    Raises:
        Refused: Nobody can know what is in it.
    """
    if local == PROCESS or any(fnmatch.fnmatchcase(image, pattern) for pattern in _STOCK):
        return BARE
    raise Refused(
        f"{image}: an image alone needs a container; say what stands for it with --base-image '{image}=LOCAL-IMAGE', "
        f"or with ={PROCESS} for a bare Python, or give a conda file"
    )


async def _as_processes(world: World, job: Job, wanted: CondaFile) -> Environment:
    prefix = await build_prefix(world, job, wanted)
    path = f"{prefix / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    return Environment(None, {"PATH": path, **activated(prefix, wanted)})
