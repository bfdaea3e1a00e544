"""Where the files of an asset go: storage of the workspace's, at an address that grants access for a while."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow_azure_backend.runtime.blobs import SignedAddress
from mlflow_azure_backend.workspace.arm import ResourceManager


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """An upload that Azure has granted.

    Attributes:
        address: Of the container, without the grant: what is written down.
        container: The same, with the grant.
    """

    address: str
    container: SignedAddress


def start_upload(manager: ResourceManager, version: str, upload_id: str) -> PendingUpload:
    """Ask for the place of an asset version's files.

    Args:
        manager: Of the workspace.
        version: The version's path below the workspace, like ``/codes/NAME/versions/1``.
        upload_id: Ours; the same one means the same upload, so that one that was broken off goes on (specification
            2024-10-01, ``PendingUploadRequestDto``).

    Raises:
        WorkspaceError: Refused, or no answer in time.
    """

    def granted() -> tuple[str, str]:
        asked = {"pendingUploadId": upload_id, "pendingUploadType": "TemporaryBlobReference"}
        told = manager.post(f"{version}/startPendingUpload", asked)["blobReferenceForConsumption"]
        return str(told["blobUri"]).rstrip("/"), str(told["credential"]["sasUri"])

    address, signed = granted()
    return PendingUpload(address, SignedAddress(signed, lambda: granted()[1]))
