"""Which of this machine's files a container sees, and where: the project, what it reads, its tracking store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from docker.types import Mount

from mlflow_azure_backend.errors import ParameterError, TargetError, TrackingError
from mlflow_azure_backend.outputs import OutputPlace
from mlflow_azure_backend.project import Argument, ParameterType

CODE: Final = "/mlflow/projects/code"
"""The working folder, where MLflow's own docker projects have it (MLFLOW_DOCKER_WORKDIR_PATH in mlflow 3.17)."""
INPUTS: Final = "/mlflow/inputs"
"""Below it each thing that a job reads has a folder of its own."""
OUTPUTS: Final = "/mlflow/outputs"
"""Below it each named output has a folder of its own."""

_SYSTEM: Final = tuple(
    map(Path, ("/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr"))
)
_CREDENTIALS: Final = {
    "s3": ("AWS_", "MLFLOW_S3_"),
    "wasb": ("AZURE_",),
    "wasbs": ("AZURE_",),
    "abfss": ("AZURE_",),
    "gs": ("GOOGLE_", "MLFLOW_GCS_"),
    "databricks": ("DATABRICKS_",),
}
"""By the scheme of an artifact store: how the variables begin that let a client in."""
_FILES: Final = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
)
"""Variables that name a file, which the container must see under the same name."""


def bind(source: Path, target: str, *, read_only: bool) -> Mount:
    """A folder or file of this machine in the container; any character may be in its name."""
    return Mount(target=target, source=str(source), type="bind", read_only=read_only)


def place_of(name: str, source: Path) -> str:
    """Where an input is in the container: a folder of its own, and its own name, which may say what it is."""
    folder = re.sub(r"[^\w.-]", "_", name)
    return f"{INPUTS}/{folder}/{source.name or 'root'}"


def output_folder(name: str) -> str:
    """The folder of a named output in the container."""
    return f"{OUTPUTS}/{name}"


def output_place(name: str, place: OutputPlace) -> str:
    """Where the job writes a named output."""
    return f"{output_folder(name)}/{place.file}" if place.file else output_folder(name)


def path_arguments(arguments: Sequence[Argument], fetched: Mapping[str, str]) -> dict[str, Path]:
    """Where on this machine each ``path`` parameter is.

    Args:
        arguments: The job's parameters.
        fetched: The local copies of remote ones.

    Raises:
        ParameterError: One is not there.
    """
    paths = {}
    for argument in arguments:
        if argument.type is not ParameterType.PATH:
            continue
        path = Path(fetched.get(argument.name, argument.value))
        if not path.exists():
            step = f"give one that is:  -P {argument.name}=PATH"
            raise ParameterError(f"{argument.logged} is not there", where=argument.name, next_step=step)
        paths[argument.name] = path.absolute()
    return paths


def tracking_folders(uri: str, artifact_uri: str | None) -> tuple[Path, ...]:
    """The folders that the job writes to when it tracks on this machine, which keep their own paths.

    They are made if they are not there, lest the engine makes them as root.

    Raises:
        TrackingError: One is a folder that every container has for itself.
    """
    wanted = list(_store_folders(uri))
    location = _local(artifact_uri or "")
    if location is not None:
        # An experiment's folder holds its runs' artifacts, and the job may start runs of its own in it.
        wanted.append(location.parent.parent if location.name == "artifacts" else location)
    for folder in wanted:
        if folder in _SYSTEM:
            what = f"the folder {folder} cannot be shared with a container"
            raise TrackingError(what, where=uri, next_step="put the tracking store into a folder of its own")
        folder.mkdir(parents=True, exist_ok=True)
    return tuple(folder for folder in dict.fromkeys(wanted) if not _is_below(folder, wanted))


def tracking_variables(uri: str, artifact_uri: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The client's variables that a job needs to reach its tracking and artifact stores."""
    schemes = {urlsplit(place).scheme.partition("+")[0] for place in (uri, artifact_uri or "")}
    if uri == "databricks":
        schemes.add("databricks")
    beginnings = ("MLFLOW_TRACKING_", *(start for scheme in schemes for start in _CREDENTIALS.get(scheme, ())))
    return {name: value for name, value in environ.items() if name.startswith(beginnings)}


def named_files(variables: Mapping[str, str]) -> Iterator[Path]:
    """The files that such variables name."""
    for name in _FILES:
        if (value := variables.get(name)) and Path(value).is_file():
            yield Path(value).absolute()


def is_loopback(uri: str) -> bool:
    """Whether a tracking server can be reached from this machine only."""
    return urlsplit(uri).hostname in ("localhost", "127.0.0.1", "::1")


def user_binds(volumes: Iterable[str], folder: Path) -> list[str]:
    """Volumes as the user wrote them, relative folders taken from ``folder``, home expanded.

    Raises:
        TargetError: A folder is not there; the engine would make one as root.
    """
    binds = []
    for volume in volumes:
        source, colon, rest = volume.partition(":")
        if not colon:
            what = f"volume {volume!r} names no place in the container"
            raise TargetError(what, next_step="write HOST:CONTAINER")
        if source.startswith((".", "~", "/")):
            path = (folder / Path(source).expanduser()).resolve()
            if not path.exists():
                raise TargetError(f"volume {volume!r}: there is no {path} here", next_step="create it, or correct it")
            source = str(path)
        binds.append(f"{source}:{rest}")
    return binds


def _store_folders(uri: str) -> Iterator[Path]:
    address = urlsplit(uri)
    if address.scheme == "sqlite":
        path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        if path.is_absolute():
            yield path.parent  # SQLite keeps its journal beside the database
    elif (folder := _local(uri)) is not None:
        yield folder


def _local(uri: str) -> Path | None:
    address = urlsplit(uri)
    if address.scheme == "file" and address.path:
        return Path(unquote(address.path))
    return Path(uri) if uri.startswith("/") else None


def _is_below(folder: Path, others: Sequence[Path]) -> bool:
    return any(other != folder and folder.is_relative_to(other) for other in others)
