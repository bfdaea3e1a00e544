"""Blobs of the emulated workspace's storage account, by our code and by Microsoft's."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest
from azure.storage.blob import BlobClient, ContainerClient, generate_container_sas

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.runtime.blobs import SignedAddress
from mlflow_azure_backend.runtime.transport import Transport


@dataclass(frozen=True)
class Container:
    """A container of the storage account, empty at first."""

    emulator: EmulatorServer
    name: str

    def client(self) -> ContainerClient:
        """Microsoft's, with the account's key."""
        settings = self.emulator.settings
        return ContainerClient(
            f"https://{settings['storage_account']}.blob.core.windows.net",
            self.name,
            credential=settings["storage_key"],
            connection_verify=str(self.emulator.bundle),
            proxies={"https": self.emulator.proxy},
        )

    def blob(self, name: str) -> BlobClient:
        return self.client().get_blob_client(name)

    def url(self, *, permission: str = "rcwl", minutes: float = 60) -> str:
        settings = self.emulator.settings
        signature = generate_container_sas(
            settings["storage_account"],
            self.name,
            account_key=settings["storage_key"],
            permission=permission,
            expiry=datetime.now(timezone.utc) + timedelta(minutes=minutes),
        )
        return f"https://{settings['storage_account']}.blob.core.windows.net/{self.name}?{signature}"

    def address(self) -> SignedAddress:
        return SignedAddress(self.url())


@pytest.fixture
def container(emulator: EmulatorServer) -> Container:
    made = Container(emulator, f"test-{uuid.uuid4().hex}")
    made.client().create_container()
    return made


@pytest.fixture
def transport(emulator: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    """What the doors have for blobs, led to the emulator."""
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    made = Transport(None)
    yield made
    made.close()
    emulator.clear()
