"""The docker engine, as its SDK reaches it, with its errors in our words."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from mlflow_azure_backend.errors import BackendError, EnvironmentUnavailable, TargetError

RUN_LABEL: Final = "mlflow_azure.run_id"
"""On every container of ours: the run that it belongs to."""
HOME_LABEL: Final = "mlflow_azure.home"
"""On every container of ours: the state folder of the client that made it."""

_VERSIONS: Final[dict[str, str]] = {}
"""By an engine's address, the version of its API that was agreed on: each connection would ask for it again."""
_INFO: Final[dict[str, Mapping[str, Any]]] = {}
"""By an engine's address, what it said of itself."""
_SECONDS: Final = 60
_START: Final = "start it (systemctl start docker, or Docker Desktop), or see that DOCKER_HOST is right"
_MANIFEST: Final = re.compile(r"manifest (for .* not found|unknown)|repository .* not found|does not exist", re.I)
_REFUSED: Final = re.compile(
    r"unauthorized|denied|authentication required|no basic auth|incorrect username|forbidden", re.I
)
_FULL: Final = re.compile(r"no space left on device|disk quota exceeded", re.I)
_OTHER_ARCHITECTURE: Final = re.compile(
    r"no matching manifest|does not match the (detected|specified)|exec format", re.I
)
_NO_GPU: Final = re.compile(
    r"could not select device driver|nvidia-container|libnvidia-ml|unknown or invalid runtime", re.I
)
_UNSHARED: Final = re.compile(r"bind source path does not exist|mounts denied", re.I)


class Engine:
    """A connection to the engine. Closed by ``with``."""

    def __init__(self, api: docker.APIClient, url: str) -> None:
        self.api = api
        self.url = url

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()

    @property
    def address(self) -> str:
        """Path of the engine's socket, or ``HOST:PORT``."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else urlsplit(self.url).netloc

    @property
    def info(self) -> Mapping[str, Any]:
        """What the engine said of itself when this process first asked it: what it is does not change."""
        if self.url not in _INFO:
            with engine_errors("asking the docker engine"):
                _INFO[self.url] = dict(self.api.info())
        return _INFO[self.url]

    @property
    def is_desktop(self) -> bool:
        """Whether it runs in a virtual machine whose loopback is not ours."""
        return "desktop" in str(self.info.get("OperatingSystem", "")).lower()

    @property
    def is_rootless(self) -> bool:
        """Whether its root is the user that runs it."""
        return any("rootless" in option for option in self.info.get("SecurityOptions") or ())


def engine_url() -> str:
    """Where the engine is: DOCKER_HOST, else the docker command's current context, else the usual socket."""
    if url := os.environ.get("DOCKER_HOST"):
        return url
    from docker.context import ContextAPI

    with contextlib.suppress(DockerException, OSError, ValueError, KeyError):
        context = ContextAPI.get_current_context()
        if context is not None and context.Host:
            return str(context.Host)
    return "unix:///var/run/docker.sock"


def connect() -> Engine:
    """Reach the engine.

    Raises:
        TargetError: It is not there, does not let us in, or is on another machine.
    """
    url = engine_url()
    address = urlsplit(url)
    if address.scheme != "unix" and not (
        address.scheme in ("tcp", "http") and address.hostname in ("localhost", "127.0.0.1")
    ):
        raise TargetError(
            "the docker engine is on another machine, which does not see the files of this one",
            where=url,
            next_step="unset DOCKER_HOST, or `docker context use default`",
        )
    with engine_errors("reaching the docker engine"):
        if address.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as knock:  # the SDK leaves the socket open whose connection fails
                knock.connect(address.path)
        api = docker.APIClient(base_url=url, version=_VERSIONS.get(url, "auto"), timeout=_SECONDS)
    _VERSIONS[url] = api.api_version
    return Engine(api, url)


@contextlib.contextmanager
def engine_errors(doing: str, *, image: str | None = None) -> Iterator[None]:
    """Say in one line what the SDK raises.

    Args:
        doing: What we were about, for errors that have no better name.
        image: The image that it is about; None when it is about none.

    Raises:
        TargetError: The engine, or what was asked of it.
        EnvironmentUnavailable: The image.
    """
    try:
        yield
    except APIError as error:
        raise named(
            str(error.explanation or error), doing, image=image, is_missing=isinstance(error, NotFound)
        ) from error
    except (DockerException, RequestException, OSError) as error:
        raise _unreachable(error) from error


def named(answer: str, doing: str, *, image: str | None = None, is_missing: bool = False) -> BackendError:
    """The engine's answer in our words.

    Args:
        answer: What it said.
        doing: What we were about.
        image: The image that it is about; None when it is about none.
        is_missing: Whether it says that something is not there.
    """
    said = " ".join(answer.split())
    if _FULL.search(said):
        step = "make room: docker system prune, or another data-root"
        return TargetError(f"the disk of the docker engine is full: {said}", next_step=step)
    if _NO_GPU.search(said):
        step = "install the NVIDIA Container Toolkit, or leave out resources.gpus"
        return TargetError(f"this docker engine has no GPUs to give: {said}", next_step=step)
    if image is not None and _OTHER_ARCHITECTURE.search(said):
        step = "name an image that is made for this machine"
        return EnvironmentUnavailable(f"image {image} is for another architecture: {said}", next_step=step)
    if image is not None and _REFUSED.search(said):
        step = f"see that its name is right, and log in: docker login {registry_of(image)}"
        return EnvironmentUnavailable(f"the registry refuses image {image}: {said}", next_step=step)
    if image is not None and (is_missing or _MANIFEST.search(said)):
        step = "see that its name and tag are right, or build it: docker build -t NAME ."
        return EnvironmentUnavailable(f"there is no image {image}: {said}", next_step=step)
    if _UNSHARED.search(said):
        return TargetError(f"the docker engine does not see a folder of this machine: {said}")
    if image is not None:
        return EnvironmentUnavailable(f"{doing} failed: {said}", next_step="try again, or see what the registry says")
    return TargetError(f"{doing} failed: {said}")


def registry_of(image: str) -> str:
    """The registry in an image's name; empty for the default one."""
    first, slash, _ = image.partition("/")
    return first if slash and (set(first) & {".", ":"} or first == "localhost") else ""


def _unreachable(error: Exception) -> TargetError:
    url, text = engine_url(), str(error)
    if "Permission denied" in text:
        step = "add yourself to its group: sudo usermod -aG docker $USER, then log in again"
        return TargetError("the docker engine does not let this user in", where=url, next_step=step)
    if "No such file" in text or "Connection refused" in text:
        return TargetError("the docker engine is not running", where=url, next_step=_START)
    if "timed out" in text.lower():
        return TargetError(f"the docker engine did not answer within {_SECONDS} s", where=url, next_step=_START)
    reason = " ".join(text.split())
    return TargetError(f"the docker engine cannot be reached: {reason}", where=url, next_step=_START)
