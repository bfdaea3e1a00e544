"""Environments as images of a container engine, and commands in containers of them, by the docker command line.

An image is built upon what the setting ``base_images`` puts in the place of Azure's. Conda packages are installed on
this machine and copied to the same place in the image, for a conda prefix may not move; Python and pip packages are
installed in the image by uv, with the image's own Python.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uv import find_uv_bin

from mlflow_azure_backend.emulator.execution.attempt import Start
from mlflow_azure_backend.emulator.execution.building import build_once, carry_out
from mlflow_azure_backend.emulator.execution.conda_file import CondaFile
from mlflow_azure_backend.emulator.execution.ends import Refused
from mlflow_azure_backend.emulator.execution.mounts import Mount
from mlflow_azure_backend.emulator.execution.places import blob_place, place_of
from mlflow_azure_backend.emulator.execution.prefixes import activated, build_prefix_within, environment_name

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.jobs import Job
    from mlflow_azure_backend.emulator.world import World

_FROM = re.compile(r"^(\s*FROM\s+(?:--\S+\s+)*)(\S+)", re.IGNORECASE | re.MULTILINE)
_IN_IMAGE = "/azureml-envs"
_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")


def mapped(image: str, base_images: Mapping[str, str]) -> str | None:
    """What stands for an image on this machine; None: nothing was said.

    Args:
        image: As an environment names it.
        base_images: Patterns (``*`` and ``?``) and what stands for the images that they match, the first that does;
            ``{image}`` in it is the image's own name.
    """
    for pattern, local in base_images.items():
        if fnmatch.fnmatchcase(image, pattern):
            return local.replace("{image}", image)
    return None


async def check_engine() -> None:
    """That an engine answers.

    Raises:
        Refused: None does.
    """
    docker = shutil.which("docker")
    if docker is not None:
        nothing = asyncio.subprocess.DEVNULL
        asking = await asyncio.create_subprocess_exec(docker, "version", stdin=nothing, stdout=nothing, stderr=nothing)
        if await asking.wait() == 0:
            return
    why = "there is no docker command" if docker is None else "`docker version` fails"
    raise Refused(f"the job's environment needs a container engine, and {why}; start one, or give a conda file alone")


async def build_context(world: World, job: Job, build: Mapping[str, Any]) -> str:
    """The image of an environment that is a Dockerfile and its context.

    Raises:
        Refused: The context is not there, or the build failed.
    """
    await check_engine()
    uri, dockerfile = build["contextUri"], build.get("dockerfilePath") or "Dockerfile"
    place = blob_place(uri) if uri.startswith("https:") else place_of(world, uri)
    name = environment_name(uri, dockerfile, world.settings.base_images)

    async def fill(folder: Path, _: Path) -> None:
        await Mount(world.storage, place, folder, is_file=False, fetched=True, kept=False).fetch()
        file = folder / dockerfile
        if not file.is_file():
            raise Refused(f"the environment's build context has no {dockerfile}; give its place as dockerfile_path")
        text = file.read_text("utf-8")
        file.write_text(_FROM.sub(lambda found: found[1] + _stand_in(world, found[2]), text), "utf-8")

    return await _image(world, job, name, dockerfile, fill)


async def build_upon(world: World, job: Job, base: str, wanted: CondaFile) -> str:
    """The image of a conda file upon a base image of this machine.

    Raises:
        Refused: An installer refused, or the build failed.
    """
    await check_engine()

    async def fill(folder: Path, log: Path) -> None:
        prefix = await build_prefix_within(world, wanted, log) if wanted.needs_conda else None
        await asyncio.to_thread(_fill, folder, base, prefix, wanted)

    return await _image(world, job, environment_name(base, wanted), "Dockerfile", fill)


def in_container(image: str, start: Start, folders: Sequence[Path], resources: Mapping[str, Any]) -> Start:
    """A command as one in a container, on this machine's network; the container goes when the command's keeper does.

    Args:
        image: The image.
        start: The command.
        folders: What it works in, bound into the container at the same places.
        resources: The job's ``resources``.
    """
    name = f"azureml-{hashlib.sha256(f'{start.log} {start.cwd}'.encode()).hexdigest()[:16]}"
    docker = shutil.which("docker") or "docker"
    variables = {key: value for key, value in start.variables.items() if key not in {"PATH", "HOME"}}
    bundle = variables["SSL_CERT_FILE"]
    options = ["--rm", "--init", "--name", name, "--network", "host", "--workdir", str(start.cwd)]
    options += ["--volume", f"{bundle}:{bundle}:ro"]
    options += [word for folder in folders for word in ("--volume", f"{folder}:{folder}")]
    options += ["--shm-size", str(resources["shmSize"]), *shlex.split(resources.get("dockerArgs") or "")]
    # By name alone, so that no value can be read off the command line.
    options += [word for key in variables for word in ("--env", key)]
    ours = {key: os.environ[key] for key in ("PATH", "HOME", *_docker_variables()) if key in os.environ}
    argv = [docker, "run", *options, "--entrypoint", "", image, *start.argv]
    return start._replace(argv=argv, variables={**variables, **ours}, after=[[docker, "rm", "--force", name]])


async def remove_images(names: set[str]) -> None:
    """Remove images that were built; one that is used stays."""
    if names:
        nothing = asyncio.subprocess.DEVNULL
        removing = await asyncio.create_subprocess_exec(
            "docker", "image", "rm", "--force", *names, stdin=nothing, stdout=nothing, stderr=nothing
        )
        await removing.wait()


def _docker_variables() -> list[str]:
    return [name for name in os.environ if name.startswith("DOCKER_")]


def _stand_in(world: World, image: str) -> str:
    return mapped(image, world.settings.base_images) or image


async def _image(
    world: World, job: Job, name: str, dockerfile: str, fill: Callable[[Path, Path], Awaitable[None]]
) -> str:
    """Build an image in a folder that ``fill`` puts its context into, told of the log; its name."""
    tag = f"{name.replace('_', '-')}:{world.settings.workspace_id}"
    folder = world.folder / "images" / name

    async def build(log: Path) -> None:
        context = folder / "context"
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        context.mkdir(parents=True)
        await fill(context, log)
        docker, file = shutil.which("docker") or "docker", str(context / dockerfile)
        arguments = [word for one in _INDEX_VARIABLES if one in os.environ for word in ("--build-arg", one)]
        step = [docker, "build", "--network", "host", *arguments, "--tag", tag, "--file", file, str(context)]
        await carry_out(step, context, log)
        await asyncio.to_thread(shutil.rmtree, context)
        world.images.add(tag)

    await build_once(world, job, folder, build)
    return tag


def _fill(folder: Path, base: str, prefix: Path | None, wanted: CondaFile) -> None:
    """Write the Dockerfile of a conda file, and what it copies."""
    lines = [f"FROM {base}"]
    place = f"{_IN_IMAGE}/{environment_name(wanted)}" if prefix is None else str(prefix)
    if prefix is None:
        shutil.copy(find_uv_bin(), folder / "uv")
        (folder / "requirements.txt").write_text(wanted.requirements, "utf-8")
        lines += [f"ARG {name}" for name in _INDEX_VARIABLES]
        lines += [f"COPY uv requirements.txt {_IN_IMAGE}/"]
        python = f"--python {wanted.python} " if wanted.python else ""
        lines += [f"RUN {_IN_IMAGE}/uv venv --no-progress --no-python-downloads {python}{place}"]
        if wanted.packages:
            install = f"{_IN_IMAGE}/uv pip install --no-progress --no-cache --python {place}/bin/python"
            lines += [f"RUN {install} --requirement {_IN_IMAGE}/requirements.txt"]
    else:
        shutil.copytree(prefix, folder / "prefix", symlinks=True)
        lines += [f"COPY prefix {place}"]
    lines += [f"ENV {name}={_quoted(value)}" for name, value in activated(place, wanted).items()]
    lines += [f"ENV PATH={place}/bin:$PATH"]
    (folder / "Dockerfile").write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _quoted(value: str) -> str:
    """A value as an ``ENV`` line has it."""
    return '"' + re.sub(r'([\\"$])', r"\\\1", value).replace("\n", " ") + '"'
