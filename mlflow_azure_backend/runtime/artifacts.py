"""MLflow's artifact repository in a workspace."""

from __future__ import annotations

import logging
import os
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, INVALID_STATE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import ArtifactRepository, verify_artifact_path
from mlflow.tracking import get_tracking_uri

from .artifact_service import ArtifactPlace, ArtifactService
from .blobs import SignedAddress, size_of
from .downloads import BigBlob, begin, finish, get_file
from .mlflow_api import ServiceRefusal
from .parallel import side_by_side
from .progress import Progress
from .reference import MalformedReference
from .refusals import ServiceError
from .session import Session
from .transport import Transport
from .uploads import ONE_REQUEST, put_file

_WINDOW = 1000
"""Files that are announced to the service before the first of them is sent."""
_SIZED = 1000
"""Files of one folder whose sizes a listing asks for; each is a request to the storage."""
_NAMED = 10
"""Artifacts that a message lists."""
_logger = logging.getLogger(__name__)


class WorkspaceArtifactRepository(ArtifactRepository):
    """Artifacts of a run, or of a container, in the workspace's storage.

    Args:
        artifact_uri: As ``ArtifactPlace`` reads it.
        connect: Gives the session with the workspace of a tracking URI, which may be a short one.
        tracking_uri: Of the caller; tells the workspace where the artifact URI does not.
        registry_uri: The same, after ``tracking_uri``.

    Raises:
        MlflowException: It is no artifact URI of a workspace; or what ``connect`` raises.
    """

    def __init__(
        self,
        artifact_uri: str,
        connect: Callable[[str], Session],
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
    ) -> None:
        super().__init__(artifact_uri)  # the oldest MLflow takes no more
        self.tracking_uri, self.registry_uri = tracking_uri, registry_uri
        try:
            self._place = ArtifactPlace.of(artifact_uri)
        except MalformedReference as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None
        named = (self._place.workspace, tracking_uri, registry_uri, get_tracking_uri())
        workspace = next((uri for uri in named if uri is not None and uri.startswith("azureml:")), "azureml://")
        self._service = ArtifactService(connect(workspace), self._place)
        self._storage = _storage()

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Upload a file into a folder of the artifacts; one of that name is overwritten.

        Raises:
            MlflowException: Refused, or no answer in time.
            OSError: The file cannot be read.
        """
        self._upload([Path(local_file)], [Path(local_file).name], artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Upload all files of a folder, links followed, devices and pipes left out; errors as for ``log_artifact``."""
        found = [Path(folder, name) for folder, _, names in os.walk(local_dir) for name in names]
        files = [file for file in found if file.is_file()]
        for left_out in sorted(set(found).difference(files)):
            _logger.warning("%s is no file, and is not uploaded", left_out)
        self._upload(files, [file.relative_to(local_dir).as_posix() for file in files], artifact_path)

    def _upload(self, files: Sequence[Path], paths: Sequence[str], folder: str | None) -> None:
        verify_artifact_path(folder)
        names = [self._place.full(posixpath.join(folder or "", path)) for path in paths]
        for name in names:
            _check_encodable(name)
        sizes = [file.stat().st_size for file in files]
        with _refusals(), Progress("Uploading artifacts", sum(sizes)) as progress:
            for start in range(0, len(files), _WINDOW):
                window = slice(start, start + _WINDOW)
                jobs = list(zip(files[window], self._service.writable(names[window]), sizes[window]))
                side_by_side(lambda job: self._put(job, progress), [job for job in jobs if job[2] <= ONE_REQUEST])
                for job in jobs:
                    if job[2] > ONE_REQUEST:
                        self._put(job, progress)

    def _put(self, job: tuple[Path, SignedAddress, int], progress: Callable[[int], None]) -> None:
        put_file(self._storage, job[1], job[0], progress=progress)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """What is directly in a folder of the artifacts, in the order of names; nothing for a file.

        Sizes are in bytes; None for folders, and for files of a folder of more than a thousand.

        Raises:
            MlflowException: Refused, or no answer in time.
        """
        full = self._place.full((path or "").strip("/"))
        folders: set[str] = set()
        files: dict[str, SignedAddress] = {}
        with _refusals():
            for name, address in self._service.below(full):
                child, below, _ = name[len(full) + 1 if full else 0 :].partition("/")
                place = posixpath.join(full, child)
                if below:
                    folders.add(place)
                elif name != full:
                    files[place] = address
            few = list(files.values()) if len(files) <= _SIZED else []
            sizes = dict(zip(files, side_by_side(lambda address: size_of(self._storage, address), few)))
        found = [FileInfo(self._place.relative(name), True, None) for name in folders]
        found += [FileInfo(self._place.relative(name), False, sizes.get(name)) for name in files]
        return sorted(found, key=lambda one: one.path)

    def download_artifacts(self, artifact_path: str | None, dst_path: str | None = None) -> str:
        """Download a file, or a folder with all that is below it.

        Args:
            artifact_path: Where it is among the artifacts; None and empty: all of them.
            dst_path: A folder that is there; None: a new temporary one.

        Returns:
            Where it is now: ``artifact_path`` in ``dst_path``.

        Raises:
            MlflowException: There is no such artifact, it would be written outside of ``dst_path``, it is refused, or
                there is no answer in time.
            OSError: It cannot be written.
        """
        wanted = (artifact_path or "").rstrip("/")
        _check_path(wanted)
        with _destination(dst_path) as folder:
            try:
                with _refusals():
                    self._download_all(wanted, folder)
            except ServiceRefusal as refused:
                _logger.warning("%s", refused)  # MLflow 3 says only "Failed to download" of what is at runs:/
                raise
        return str(folder / wanted)

    def _download_all(self, wanted: str, folder: Path) -> None:
        found = list(self._service.below(self._place.full(wanted)))
        if not found and wanted:
            raise self._missing(wanted)
        targets = _targets(folder, [self._place.relative(name) for name, _ in found])
        with Progress("Downloading artifacts", None) as progress:
            self._download(list(zip(targets, (address for _, address in found))), progress)

    def _download(self, targets: Sequence[tuple[Path, SignedAddress]], progress: Callable[[int], None]) -> None:
        def start(target: tuple[Path, SignedAddress]) -> BigBlob | None:
            return begin(self._storage, target[1], target[0], progress=progress)

        for big in side_by_side(start, targets):
            if big is not None:
                finish(self._storage, big, progress=progress)

    def _download_file(self, remote_file_path: str, local_path: str, **_newer: Any) -> None:
        """Download one file to where MLflow wants it."""
        with _refusals():
            address = self._service.readable(self._place.full(remote_file_path))
            if address is None:
                raise self._missing(remote_file_path)
            get_file(self._storage, address, Path(local_path))

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file, a folder with all that is below it, or, with None, all artifacts; nothing where there is none.

        Raises:
            MlflowException: Refused, or no answer in time.
        """
        wanted = (artifact_path or "").rstrip("/")
        _check_path(wanted)
        with _refusals():
            self._service.delete([name for name, _ in self._service.below(self._place.full(wanted))])

    def _missing(self, path: str) -> MlflowException:
        there = sorted(
            {self._place.relative(name).partition("/")[0] for name, _ in self._service.below(self._place.path)}
        )
        listed = ", ".join(there[:_NAMED]) + (f" and {len(there) - _NAMED} more" if len(there) > _NAMED else "")
        return MlflowException(
            f"{self._place} has no artifact {self._place.full(path)!r}; it has {listed or 'none at all'}",
            RESOURCE_DOES_NOT_EXIST,
        )


@contextmanager
def _refusals() -> Iterator[None]:
    """A service's refusals as MLflow's exceptions."""
    try:
        yield
    except ServiceError as problem:
        raise ServiceRefusal(problem) from None


@lru_cache
def _storage() -> Transport:
    """The connections of this process to storage; the addresses themselves grant access."""
    return Transport(None, tell=_logger.warning)


@contextmanager
def _destination(dst_path: str | None) -> Iterator[Path]:
    """Where a download goes; a folder that is made for it goes away again when it fails."""
    if dst_path is None:
        made = Path(tempfile.mkdtemp())
        try:
            yield made
        except BaseException:  # Ctrl-C, too, and nobody else knows of the folder
            shutil.rmtree(made, ignore_errors=True)
            raise
        return
    folder = Path(dst_path).absolute()
    if not folder.is_dir():
        code = INVALID_PARAMETER_VALUE if folder.exists() else RESOURCE_DOES_NOT_EXIST
        raise MlflowException(f"the destination of the download, {folder}, is no folder; make it first", code)
    yield folder


def _check_path(path: str) -> None:
    """Refuse a path that leaves the artifacts.

    Raises:
        MlflowException: It does.
    """
    if path and any(part in ("", ".", "..") for part in path.split("/")):
        raise MlflowException(
            f"{path!r} is no path of an artifact: it must be relative, without '.' and '..'", INVALID_PARAMETER_VALUE
        )


def _check_encodable(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise MlflowException(
            f"the name of file {name!r} is no UTF-8, as an artifact's must be; rename it", INVALID_PARAMETER_VALUE
        ) from None


def _targets(folder: Path, paths: Sequence[str]) -> list[Path]:
    """Where artifacts go; the folders for them are made.

    Raises:
        MlflowException: The name of one would lead out of the folder, or a link in the folder does.
    """
    for path in paths:
        if any(part in ("", ".", "..") or "\0" in part for part in path.split("/")):
            raise _outside(path, folder)
    targets = [folder / path for path in paths]
    inside = folder.resolve()
    for parent in {target.parent for target in targets}:
        if inside not in (parent.resolve(), *parent.resolve().parents):
            raise _outside(str(parent.relative_to(folder)), folder)
        parent.mkdir(parents=True, exist_ok=True)
    return targets


def _outside(path: str, folder: Path) -> MlflowException:
    return MlflowException(
        f"artifact {path!r} would be written outside of {folder}, so nothing was downloaded", INVALID_STATE
    )
