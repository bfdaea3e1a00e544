"""Logs that grow in a file of this machine and follow into their blob."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from mlflow_azure_backend.emulator.storage import ARTIFACTS, Storage

_POLL = 0.2
"""Seconds between two looks at a file that grows."""


@contextlib.asynccontextmanager
async def followed(storage: Storage, file: Path, blob: str) -> AsyncIterator[None]:
    """Bring a file to its blob in ``workspaceartifactstore`` while it grows, and all of it before the block is left."""
    ended = asyncio.Event()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"")
    following = asyncio.ensure_future(_follow(storage, file, blob, ended))
    try:
        yield
    finally:
        ended.set()
        await following


async def _follow(storage: Storage, file: Path, blob: str, ended: asyncio.Event) -> None:
    await storage.append(ARTIFACTS, blob, b"", create=True)
    with file.open("rb") as reading:
        last = False
        while not last:
            last = ended.is_set()
            if data := reading.read():
                await storage.append(ARTIFACTS, blob, data, create=False)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ended.wait(), _POLL)
