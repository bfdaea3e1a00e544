"""Logs that grow in a file of this machine and follow into their blob."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from mlflow_azure_backend.emulator.orders import Held, Orders
from mlflow_azure_backend.emulator.storage import ARTIFACTS, Storage

_POLL = 0.2
"""Seconds between two looks at a file that grows."""


@contextlib.asynccontextmanager
async def followed(storage: Storage, file: Path, blob: str, orders: Orders) -> AsyncIterator[None]:
    """Bring a file to its blob in ``workspaceartifactstore`` while it grows, and all of it before the block is left.

    What ``orders`` keep back stays to be brought by `bring_held`.
    """
    ended = asyncio.Event()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"")
    following = asyncio.ensure_future(_follow(storage, file, blob, orders, ended))
    try:
        yield
    finally:
        ended.set()
        offset = await following
        if offset < file.stat().st_size:
            orders.held.append(Held(file, blob, offset))


async def _follow(storage: Storage, file: Path, blob: str, orders: Orders, ended: asyncio.Event) -> int:
    """Returns how many bytes the blob has in the end."""
    await storage.append(ARTIFACTS, blob, b"", create=True)
    with file.open("rb") as reading:
        last = False
        while not last:
            last = ended.is_set()
            if orders.late_logs is None and (data := reading.read()):
                await storage.append(ARTIFACTS, blob, data, create=False)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ended.wait(), _POLL)
        return reading.tell()


async def bring_held(storage: Storage, orders: Orders) -> None:
    """Bring what was kept back: half of each log now, the rest ``orders.late_logs`` seconds later."""
    held, orders.held = orders.held, []
    rests = []
    for one in held:
        data = one.file.read_bytes()[one.offset :]
        await storage.append(ARTIFACTS, one.blob, data[: len(data) // 2], create=False)
        rests.append((one.blob, data[len(data) // 2 :]))
    if rests:
        await asyncio.sleep(orders.late_logs or 0)
    for blob, data in rests:
        await storage.append(ARTIFACTS, blob, data, create=False)
