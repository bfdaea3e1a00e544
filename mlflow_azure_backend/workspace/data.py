"""Local data for a job: put into the workspace's default datastore by its content's hash, so that it is sent once."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from mlflow_azure_backend.errors import ParameterError, WorkspaceError
from mlflow_azure_backend.runtime.blobs import SignedAddress, put_bytes, size_of
from mlflow_azure_backend.runtime.parallel import side_by_side
from mlflow_azure_backend.runtime.transport import Transport
from mlflow_azure_backend.runtime.uploads import put_file
from mlflow_azure_backend.workspace.arm import ResourceManager, service_errors

DATASTORE: Final = "workspaceblobstore"
"""Every workspace's default one."""
_FOLDER: Final = "LocalUpload"
"""Where azure-ai-ml puts local data, too."""
_COMPLETE: Final = ".complete"
"""At the end of a marker's name, which is beside the data: written when all of it is there."""
_HOURS: Final = 1
_UNQUOTABLE: Final = re.compile(r'["$`\\\n]')
"""What Azure ML would put into a command as it is, and means something there even between double quotes."""


def ensure_data(manager: ResourceManager, storage: Transport, source: Path, progress: Callable[[str], None]) -> str:
    """The ``azureml://`` URI of a file or folder of this machine in the workspace; nothing is sent that is there.

    Args:
        manager: Of the workspace.
        storage: Writes to addresses that grant access themselves.
        source: What the job is to read.
        progress: Told what is being sent.

    Raises:
        ParameterError: It cannot be read.
        WorkspaceError: Refused, or no answer in time.
    """
    name = _UNQUOTABLE.sub("_", source.name)
    files = dict(_files(source, name))
    place = f"{_FOLDER}/{_digest(source, files)[:32]}"
    container = datastore_container(manager, DATASTORE)
    marker = container.within(f"{place}{_COMPLETE}")
    with service_errors():
        if size_of(storage, marker) is None:
            progress(f"sending {source.name}: {len(files):,} files")
            side_by_side(
                lambda name: put_file(storage, container.within(f"{place}/{name}"), files[name], overwrite=False),
                sorted(files),
            )
            put_bytes(storage, marker, b"")
    end = "" if source.is_file() else "/"
    return f"azureml://datastores/{DATASTORE}/paths/{place}/{name}{end}"


def datastore_container(manager: ResourceManager, name: str) -> SignedAddress:
    """The container behind a blob datastore, with access for a while.

    Raises:
        WorkspaceError: There is no such datastore, or it grants no access by signatures.
    """
    path = f"/datastores/{name}"
    found = manager.get(path)
    if found is None:
        raise WorkspaceError(f"the workspace has no datastore {name}")
    properties: dict[str, Any] = found["properties"]
    host = f"{properties['accountName']}.blob.{properties['endpoint']}"

    def signed() -> str:
        told = manager.post(f"{path}/listSecrets", {"expirableSecret": True, "expireAfterHours": _HOURS})
        if told.get("secretsType") != "Sas":
            raise WorkspaceError(f"datastore {name} gives no signature", next_step="upload the data with `az ml data`")
        return f"https://{host}/{properties['containerName']}?{str(told['sasToken']).lstrip('?')}"

    return SignedAddress(signed(), signed)


def _files(source: Path, root: str) -> Iterator[tuple[str, Path]]:
    """Every file, by its name in the workspace; links are followed, as a program that reads the folder would."""
    if source.is_file():
        yield root, source
        return
    for folder, _, names in os.walk(source, followlinks=True):
        for name in names:
            place = Path(folder, name)
            yield f"{root}/{place.relative_to(source).as_posix()}", place


def _digest(source: Path, files: dict[str, Path]) -> str:
    digest = hashlib.sha256()
    try:
        for name, place in sorted(files.items()):
            with place.open("rb") as stream:
                content = hashlib.sha256()
                while block := stream.read(1024 * 1024):
                    content.update(block)
            digest.update(f"{name}\0{content.hexdigest()}\n".encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise ParameterError(f"cannot be read ({error.strerror})", where=error.filename or source) from None
    return digest.hexdigest()
