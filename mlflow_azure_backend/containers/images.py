"""Which image a container is made from: the one that is here, else pulled, always for this machine's processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from docker.errors import APIError
from docker.utils import parse_repository_tag

from mlflow_azure_backend.containers.engine import Engine, connect, engine_errors, named
from mlflow_azure_backend.errors import EnvironmentUnavailable, TargetError

if TYPE_CHECKING:
    from pydantic import SecretStr

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
"""The kernel's names of processors, and those that images have."""
_EMULATORS: Final = {"amd64": "x86_64", "arm64": "aarch64", "arm": "arm"}


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the engine.

    Attributes:
        id: ``sha256:…`` of its configuration; what a container is made from.
        digest: ``NAME@sha256:…`` by which a registry has it; None for one that no registry is known to have.
        architecture: In Go's words: ``amd64``, ``arm64``.
        variables: Its own environment variables.
        entrypoint: What it starts every command with.
    """

    id: str
    digest: str | None
    architecture: str
    variables: Mapping[str, str]
    entrypoint: tuple[str, ...]

    @property
    def identity(self) -> str:
        """What names it best: by its registry, else by its content."""
        return self.digest or self.id


def find_image(name: str) -> Image | None:
    """The image of that name that is here now; None when there is none, or no engine: for plans, which ask only."""
    try:
        with connect() as engine:
            return image_here(engine, name)
    except (TargetError, EnvironmentUnavailable):
        return None


def image_here(engine: Engine, name: str) -> Image | None:
    """The image of that name or digest that the engine has; None when it has none.

    Raises:
        TargetError: The engine cannot be asked.
    """
    try:
        with engine_errors(f"looking for image {name}"):
            found = engine.api.inspect_image(name)
    except (TargetError, EnvironmentUnavailable) as error:
        cause = error.__cause__
        if isinstance(cause, APIError) and cause.status_code == 404:
            return None
        raise
    settings = found.get("Config") or {}
    variables = dict(pair.partition("=")[::2] for pair in settings.get("Env") or ())
    digests = found.get("RepoDigests") or ()
    repository = parse_repository_tag(name)[0]
    own = [digest for digest in digests if digest.startswith(f"{repository}@")]
    return Image(
        found["Id"],
        (own or digests or [None])[0],
        found["Architecture"],
        variables,
        tuple(settings.get("Entrypoint") or ()),
    )


def ensure_image(
    engine: Engine, name: str, *, auth: Mapping[str, SecretStr] | None, progress: Callable[[str], None]
) -> tuple[Image, bool]:
    """The image of that name, pulled if it is not here, and whether it was here.

    Args:
        engine: The engine.
        name: As ``docker run`` takes it: with a tag, by digest, or neither.
        auth: ``docker_auth``: what the docker SDK's ``login`` takes; None for the docker command's own logins.
        progress: Told how far the pull is.

    Raises:
        EnvironmentUnavailable: There is no such image, the registry refuses, or it is for another architecture.
        TargetError: The engine fails.
    """
    image = image_here(engine, name)
    was_here = image is not None
    if image is None and name.startswith("sha256:"):
        step = "build it again, or run the project itself in place of the rerun"
        raise EnvironmentUnavailable(f"image {name} is not here any more, and no registry has it", next_step=step)
    if image is None:
        _pull(engine, name, auth, progress)
        image = image_here(engine, name)
        if image is None:
            raise EnvironmentUnavailable(f"image {name} was pulled and is not there", next_step="try again")
    _check_architecture(engine, name, image)
    return image, was_here


def _pull(engine: Engine, name: str, auth: Mapping[str, SecretStr] | None, progress: Callable[[str], None]) -> None:
    progress(f"pulling {name}")
    repository, tag = parse_repository_tag(name)
    login = None if auth is None else {key: value.get_secret_value() for key, value in auth.items()}
    sizes: dict[str, tuple[int, int]] = {}
    refusal: str | None = None
    with engine_errors(f"pulling image {name}", image=name):
        # Read to its end also after an error, for a stream that is left half read keeps its connection.
        for event in engine.api.pull(repository, tag=tag or "latest", stream=True, decode=True, auth_config=login):
            refusal = refusal or event.get("error")
            if text := _progress(event, sizes):
                progress(f"pulling {name}: {text}")
    if refusal is not None:
        raise named(refusal, f"pulling image {name}", image=name)


def _progress(event: Mapping[str, Any], sizes: dict[str, tuple[int, int]]) -> str | None:
    """How much of the layers known so far has come: ``12 of 48 MB``; None when that has not changed."""
    detail = event.get("progressDetail") or {}
    if event.get("status") != "Downloading" or "total" not in detail:
        return None
    sizes[event["id"]] = (detail.get("current", 0), detail["total"])
    done, total = (sum(column) / 1e6 for column in zip(*sizes.values(), strict=True))
    return f"{done:.0f} of {total:.0f} MB"


def _check_architecture(engine: Engine, name: str, image: Image) -> None:
    here = _ARCHITECTURES.get(engine.info["Architecture"], engine.info["Architecture"])
    if image.architecture in (here, "") or engine.is_desktop:  # Docker Desktop brings emulators
        return
    if Path(f"/proc/sys/fs/binfmt_misc/qemu-{_EMULATORS.get(image.architecture, image.architecture)}").exists():
        return
    raise EnvironmentUnavailable(
        f"image {name} is for another architecture: {image.architecture}, and this machine is {here}",
        next_step=f"pull the right one: docker pull --platform linux/{here} {name}",
    )
