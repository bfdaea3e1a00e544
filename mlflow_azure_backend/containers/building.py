"""Images that are built here: of an environment's lock, once; of a project's own files, for one run."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Final

from mlflow_azure_backend.containers.context import BuildContext, base_image_for, build_context
from mlflow_azure_backend.containers.engine import Engine, engine_errors, engine_url, named
from mlflow_azure_backend.containers.images import Image, image_here
from mlflow_azure_backend.containers.mounts import CODE
from mlflow_azure_backend.environment.cache import exclusive, private_folder
from mlflow_azure_backend.environment.conda.channels import authentication_entries, rattler_config
from mlflow_azure_backend.environment.lock import EnvironmentLock
from mlflow_azure_backend.environment.uv_process import uv_failure
from mlflow_azure_backend.errors import BackendError, EnvironmentUnavailable
from mlflow_azure_backend.files import fault_point

REPOSITORY: Final = "mlflow-azure/environment"
"""The name of built environments; the tag is the environment's key, and what it is built on and how."""

_STEP: Final = re.compile(r"(?:#\d+ \[\s*\d+/\d+\]|Step \d+/\d+ :) *(?P<what>\w+)")
_NOISE: Final = re.compile(
    r"^(#\d+ (\d+\.\d+ )?|Step \d+|--->|Removing|ERROR: failed to solve|executor failed|The command |-+$)"
)
_COLOUR: Final = re.compile(r"\x1b\[[\d;]*m")
_ECHO: Final = re.compile(r"^(Step \d+/|#\d+ \[| > \[|The command |executor failed|#\d+ ERROR: |[ >]*\d+ \| )")
"""What a builder repeats of the Dockerfile, whose words are no news."""
_BUILDER: Final = re.compile(r"^(?:executor failed running \[|process \").*(?:\]|successfully): (.*)$", re.M)
"""What BuildKit itself says of a step that printed nothing."""
_OWN_WORDS: Final = re.compile(r"^(?:#\d+ \d+\.\d+ )?(error: .*)$", re.M)


def ensure_built(
    engine: Engine,
    lock: EnvironmentLock,
    base_name: str | None,
    *,
    cache: Path,
    progress: Callable[[str], None],
    ensure_base: Callable[[str], Image],
) -> tuple[Image, bool]:
    """The image of an environment, built if it is not here, and whether it was here.

    Several processes that want the same build it once; what a killed build left is the engine's to forget.

    Args:
        engine: The engine.
        lock: What is to be in the image.
        base_name: The image to build on; None for the registry's image of the lock's Python.
        cache: Our cache's folder, for the lock files.
        progress: Told of each stage.
        ensure_base: Gets the base.

    Raises:
        EnvironmentUnavailable: The base or a package cannot be had, or the build failed.
        TargetError: The engine fails.
    """
    name = base_name or base_image_for(lock)
    base = ensure_base(name)
    certificates = _certificates(lock)
    context = build_context(
        lock,
        name,
        installers={package: metadata.version(package) for package in ("uv", "py-rattler")},
        certificates=certificates,
        rattler_config=rattler_config(os.environ) if lock.kind == "conda" else None,
        logins=authentication_entries(lock.sources.channels, os.environ),
    )
    recipe = hashlib.sha256(base.id.encode() + context.files["Dockerfile"]).hexdigest()[:8]
    tag = f"{REPOSITORY}:{lock.key[:32]}-{recipe}"

    def build() -> None:
        progress(f"building an image of {len(lock.packages)} packages on {name}")
        _build(context, tag, progress)

    return built_once(engine, tag, build, cache=cache, progress=progress)


def built_once(
    engine: Engine, name: str, build: Callable[[], None], *, cache: Path, progress: Callable[[str], None]
) -> tuple[Image, bool]:
    """The image of that name, built if it is not here, and whether it was here; by one of the processes that want it.

    Args:
        engine: The engine.
        name: Of the image; its tag says what is in it.
        build: Builds it.
        cache: Our cache's folder, for the lock files.
        progress: Told when another process builds it.

    Raises:
        EnvironmentUnavailable: The build failed.
        TargetError: The engine fails.
    """
    found = image_here(engine, name)
    if found is not None:
        return found, True
    with exclusive(private_folder(cache.absolute() / "images") / f"{name.rpartition(':')[2]}.lock", progress):
        found = image_here(engine, name)
        if found is None:
            build()
            found = image_here(engine, name)
    if found is None:
        raise EnvironmentUnavailable(f"image {name} was built and is not there", next_step="try again")
    return found, False


def bake(engine: Engine, image: str, folder: Path, tag: str, labels: Mapping[str, str]) -> None:
    """Copy a project's files into an image of their own: ``--build-image``.

    Args:
        engine: The engine.
        image: What it is built on.
        folder: The project's files.
        tag: The new image's name.
        labels: By which it is found again.

    Raises:
        TargetError: The engine refuses.
    """
    dockerfile = f"FROM {image}\nCOPY --chown={os.getuid()}:{os.getgid()} project/ {CODE}/\n"
    with tempfile.TemporaryFile() as stream:
        with tarfile.open(fileobj=stream, mode="w") as tar:
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = len(dockerfile)
            tar.addfile(entry, io.BytesIO(dockerfile.encode()))
            tar.add(folder, arcname="project")
        stream.seek(0)
        error: str | None = None
        with engine_errors("building the project's image"):
            for event in engine.api.build(
                fileobj=stream, custom_context=True, tag=tag, labels=labels, rm=True, forcerm=True, decode=True
            ):
                error = error or event.get("error")
    if error is not None:
        raise named(error, "building the project's image")


def _certificates(lock: EnvironmentLock) -> bytes | None:
    file = lock.sources.variables.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_FILE")
    return None if file is None else Path(file).read_bytes()


def _build(context: BuildContext, tag: str, progress: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="mlflow-azure-") as folder:
        for name, content in context.files.items():
            (Path(folder) / name).write_bytes(content)
        build_image([folder], tag, progress, secrets=context.secrets)


def build_image(
    arguments: list[str],
    tag: str,
    progress: Callable[[str], None],
    *,
    secrets: Mapping[str, str] | None = None,
    context: IO[bytes] | None = None,
    file: str | None = None,
) -> None:
    """Let the docker command build an image, in the host's network.

    Args:
        arguments: Of ``docker build``, the context as the last one.
        tag: The image's name.
        progress: Told of each step.
        secrets: By its id, what the build must see and the image must not hold; None for nothing.
        context: What ``docker build`` reads as its standard input; None for nothing.
        file: The Dockerfile, where the user wrote it; None for one of ours.

    Raises:
        EnvironmentUnavailable: There is no docker command that can do it, or the build failed.
        TargetError: The engine's disk is full.
    """
    secrets = secrets or {}
    docker = shutil.which("docker")
    if docker is None:
        step = "install it, or name an image that has the environment: docker_env"
        raise EnvironmentUnavailable("images are built with the docker command, and there is none", next_step=step)
    has_buildkit = _has_buildkit(docker)
    if secrets and not has_buildkit:
        raise EnvironmentUnavailable(
            "a package index or channel wants credentials, and this docker command can keep none out of an image",
            next_step="install docker-buildx, or name an image that has the environment: docker_env",
        )
    command = [docker, "build", "--network", "host", "--tag", tag]
    command += ["--progress", "plain"] if has_buildkit else ["--rm", "--force-rm"]
    for name in secrets:
        command += ["--secret", f"id={name},env=MLFLOW_AZURE_{name.upper()}"]
    variables = {f"MLFLOW_AZURE_{name.upper()}": value for name, value in secrets.items()}
    environ = {**os.environ, **variables, "DOCKER_HOST": engine_url(), "DOCKER_BUILDKIT": str(int(has_buildkit))}
    fault_point("docker.before_build")
    code, output = _run([*command, *arguments], environ, context, progress)
    if code != 0:
        raise _failure(output, tag, file)


def _run(
    command: list[str], environ: Mapping[str, str], context: IO[bytes] | None, progress: Callable[[str], None]
) -> tuple[int, str]:
    lines = []
    stdin = subprocess.DEVNULL if context is None else context
    with subprocess.Popen(
        command, env=environ, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            for line in process.stdout or ():
                lines.append(_COLOUR.sub("", line.decode("utf-8", "replace")).rstrip())
                if (step := _STEP.match(lines[-1])) is not None:
                    progress(f"building an image: {step['what']}")
        except BaseException:
            process.terminate()
            raise
    return process.returncode, "\n".join(lines)


def _failure(output: str, tag: str, file: str | None) -> BackendError:
    """What the build's output says of why it failed: the installer's own words, else the engine's."""
    builder = _BUILDER.search(output)
    output = "\n".join(line for line in output.splitlines() if not _ECHO.match(line))
    said = [match[1] for match in _OWN_WORDS.finditer(output)]
    if said and "the image has Python" in said[-1]:
        step = 'name an image with that Python: "environment": {"image": NAME}'
        return EnvironmentUnavailable(said[-1].removeprefix("error: "), next_step=step)
    plain = re.sub(r"(?m)^#\d+ \d+\.\d+ ", "", output)
    if "No space left on device" in plain or "no space left on device" in plain:
        return named("no space left on device", "building the image")
    installer = plain[plain.rfind("error:") :] if "error:" in plain else ""
    if installer.startswith("error:") and "failed to solve" not in installer.splitlines()[0]:
        return uv_failure(installer.split("The command '")[0].split("\n------")[0], origins={}, folder=Path(tag))
    words = [line for line in plain.splitlines() if line.strip() and not _NOISE.match(line)]
    silent = "the build failed and did not say why" if builder is None else builder[1]
    reason = words[-1].strip() if words else silent
    step = "see what the base image lacks" if file is None else f"correct it; by hand: docker build -f {file} ."
    return EnvironmentUnavailable(f"the image cannot be built: {reason}", where=file, next_step=step)


def _has_buildkit(docker: str) -> bool:
    """Whether the docker command can build with secrets: its builder is a plug-in since version 23."""
    asked = subprocess.run([docker, "buildx", "version"], check=False, capture_output=True, stdin=subprocess.DEVNULL)
    if asked.returncode == 0:
        return True
    asked = subprocess.run([docker, "--version"], check=False, capture_output=True, stdin=subprocess.DEVNULL)
    found = re.search(rb"version (\d+)\.", asked.stdout)
    return found is not None and 18 < int(found[1]) < 23
