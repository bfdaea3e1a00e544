"""Projects that bring a Dockerfile: their image, built from the snapshot's own files, once for each content."""

from __future__ import annotations

import io
import posixpath
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from docker.utils.build import PatternMatcher

from mlflow_azure_backend.containers.building import build_image, built_once
from mlflow_azure_backend.containers.images import Image
from mlflow_azure_backend.errors import ProjectError
from mlflow_azure_backend.snapshot import content_hash

if TYPE_CHECKING:
    from mlflow_azure_backend.containers.engine import Engine
    from mlflow_azure_backend.project import DockerEnvironment
    from mlflow_azure_backend.snapshot import Snapshot, SnapshotFile

REPOSITORY: Final = "mlflow-azure/dockerfile"
"""The name of images that were built from a project's Dockerfile; the tag is the content of their build context."""

_FROM_OUTSIDE: Final = ".mlflow-azure.Dockerfile"
"""What a Dockerfile is called in the context that is not in its folder, or that ``.dockerignore`` names."""


def image_name(snapshot: Snapshot, docker: DockerEnvironment) -> str:
    """The name of a project's image, which follows from the content of its build context alone.

    Raises:
        ProjectError: The snapshot holds no such Dockerfile.
    """
    tag = content_hash([*_context(snapshot, docker).values(), _dockerfile(snapshot, docker)])
    return f"{REPOSITORY}:{tag[:32]}"


def ensure_project_image(
    engine: Engine,
    snapshot: Snapshot,
    docker: DockerEnvironment,
    *,
    cache: Path,
    progress: Callable[[str], None],
) -> tuple[Image, bool]:
    """The image of a project's Dockerfile, built if it is not here, and whether it was here.

    Several processes that want the same build it once.

    Args:
        engine: The engine.
        snapshot: The project's files.
        docker: What the project says of its container.
        cache: Our cache's folder, for the lock files.
        progress: Told of each stage.

    Raises:
        EnvironmentUnavailable: The build fails.
        ProjectError: The snapshot holds no such Dockerfile.
        TargetError: The engine fails.
    """
    name = image_name(snapshot, docker)

    def build() -> None:
        progress(f"building an image from {docker.dockerfile}")
        with tempfile.TemporaryFile() as stream:
            dockerfile = _pack(snapshot, docker, stream)
            stream.seek(0)
            build_image(["--file", dockerfile, "-"], name, progress, context=stream, file=docker.dockerfile)

    return built_once(engine, name, build, cache=cache, progress=progress)


def _context(snapshot: Snapshot, docker: DockerEnvironment) -> dict[str, SnapshotFile]:
    """The snapshot's files below the context's folder that its ``.dockerignore`` leaves in, by their paths there."""
    folder = posixpath.normpath(docker.build_context or ".")
    start = "" if folder == "." else f"{folder}/"
    files = {file.path.removeprefix(start): file for file in snapshot.files if file.path.startswith(start)}
    if (ignore := files.get(".dockerignore")) is None:
        return files
    text = Path(snapshot.location(ignore.path)).read_text(encoding="utf-8-sig", errors="replace")
    lines = (line.strip() for line in text.splitlines())
    ignored = PatternMatcher([line for line in lines if line and not line.startswith("#")])
    return {path: file for path, file in files.items() if not ignored.matches(path)}


def _dockerfile(snapshot: Snapshot, docker: DockerEnvironment) -> SnapshotFile:
    path = posixpath.normpath(docker.dockerfile)
    found = next((file for file in snapshot.files if file.path == path), None)
    if found is None:
        rule = next(
            (item.rule for item in snapshot.left_out if f"{path}/".startswith(f"{item.path.rstrip('/')}/")), None
        )
        what = f"the snapshot has no {path}" + ("" if rule is None else f", for {rule} leaves it out")
        raise ProjectError(what, where="docker_env", next_step="name the Dockerfile with dockerfile: PATH")
    return found


def _pack(snapshot: Snapshot, docker: DockerEnvironment, stream: IO[bytes]) -> str:
    """Write the context as a tar, with the same bytes for the same content; the Dockerfile's path in it."""
    files, dockerfile = _context(snapshot, docker), _dockerfile(snapshot, docker)
    place = next((path for path, file in files.items() if file is dockerfile), _FROM_OUTSIDE)
    files[place] = dockerfile
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path, file in sorted(files.items()):
            content = Path(snapshot.location(file.path)).read_bytes()
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755 if file.executable else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return place
