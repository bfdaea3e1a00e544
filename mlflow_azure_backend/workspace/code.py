"""The project's files in the workspace: a code version that is named by its content, so that it is sent once."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final, cast

from mlflow_azure_backend.runtime.order import FOLDER
from mlflow_azure_backend.runtime.parallel import side_by_side
from mlflow_azure_backend.runtime.transport import Transport
from mlflow_azure_backend.runtime.uploads import put_file
from mlflow_azure_backend.snapshot import Snapshot, extract_archive, write_archive
from mlflow_azure_backend.workspace.arm import ResourceManager, service_errors
from mlflow_azure_backend.workspace.pending_upload import PendingUpload, start_upload

MOST_FILES: Final = 100
"""With more, the project travels as one archive: each file is a request of its own, and the studio shows few well."""
CODE_ARCHIVE: Final = f"{FOLDER}/code.tar.gz"
"""The project's files where they travel as one; the runtime unpacks it beside itself."""
_FOLDER: Final = "project"


def ensure_code(
    manager: ResourceManager,
    storage: Transport,
    snapshot: Snapshot,
    brought: Mapping[str, bytes],
    progress: Callable[[str], None],
) -> tuple[str, bool]:
    """A code version that holds a snapshot and what we bring along; nothing is sent when the workspace has it.

    Args:
        manager: Of the workspace.
        storage: Writes to addresses that grant access themselves.
        snapshot: The project's files.
        brought: Our own files, by their paths beside the project's.
        progress: Told what is being sent.

    Returns:
        The version's ARM id, and whether it was there already.

    Raises:
        SnapshotError: A file has changed since the snapshot was taken.
        WorkspaceError: Refused, or no answer in time.
    """
    packed = len(snapshot.files) > MOST_FILES
    digest = _digest(snapshot, brought, packed=packed)
    name = str(uuid.UUID(digest[:32]))
    path = f"/codes/{name}/versions/1"
    if (found := manager.get(path)) is not None:
        return str(found["id"]), True
    upload = start_upload(manager, path, name)
    with tempfile.TemporaryDirectory(prefix="mlflow-azure-") as folder:
        staged = _stage(Path(folder), snapshot, brought, packed=packed)
        _send(storage, upload, staged, progress)
    hashes = {"hash_sha256": digest, "hash_version": "202208"}
    properties = {"codeUri": f"{upload.address}/{_FOLDER}", "isAnonymous": True, "properties": hashes}
    return str(manager.put(path, {"properties": properties})["id"]), False


def _digest(snapshot: Snapshot, brought: Mapping[str, bytes], *, packed: bool) -> str:
    ours = sorted((name, hashlib.sha256(content).hexdigest()) for name, content in brought.items())
    return hashlib.sha256(json.dumps([packed, snapshot.content_hash, ours]).encode()).hexdigest()


def _stage(folder: Path, snapshot: Snapshot, brought: Mapping[str, bytes], *, packed: bool) -> dict[str, Path]:
    """The files to send, by their paths; their content is the snapshot's, whatever happens to the project meanwhile."""
    archive, files = folder / "snapshot.tar.zst", folder / "files"
    write_archive(snapshot, archive)
    staged = {}
    for name, content in brought.items():
        place = folder / "brought" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        staged[name] = place
    if packed:
        staged[CODE_ARCHIVE] = folder / "code.tar.gz"
        _recompress(archive, staged[CODE_ARCHIVE])
        return staged
    extract_archive(archive, files, max_size=snapshot.size)
    return staged | {file.path: files / file.path for file in snapshot.files}


def _recompress(source: Path, target: Path) -> None:
    """From Zstandard, which a node's Python may not know, to gzip, which every one does; the same bytes each time."""
    import zstandard

    with (
        source.open("rb") as packed,
        zstandard.ZstdDecompressor().stream_reader(packed) as stream,
        target.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as compressed,
    ):
        shutil.copyfileobj(cast("IO[bytes]", stream), compressed, 1024 * 1024)


def _send(
    storage: Transport, upload: PendingUpload, staged: Mapping[str, Path], progress: Callable[[str], None]
) -> None:
    size = sum(place.stat().st_size for place in staged.values())
    progress(f"sending {len(staged):,} files, {size:,} bytes")

    def send(name: str) -> None:
        put_file(storage, upload.container.within(f"{_FOLDER}/{name}"), staged[name], overwrite=False)

    with service_errors():
        side_by_side(send, sorted(staged))
