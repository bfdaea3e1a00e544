"""The workspace's storage account as the emulator itself uses it: signatures for clients, and blobs of its own."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode
from xml.etree import ElementTree

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from mlflow_azure_backend.emulator.authority import Authority
from mlflow_azure_backend.emulator.azure_errors import expired_signature
from mlflow_azure_backend.emulator.azurite import Azurite
from mlflow_azure_backend.emulator.clock import Clock
from mlflow_azure_backend.emulator.settings import Settings

VERSION = "2021-08-06"
ARTIFACTS = "azureml"
"""The container of ``workspaceartifactstore``: logs and artifacts of runs."""
_OURS = timedelta(days=7)
_INSTANT = "%Y-%m-%dT%H:%M:%SZ"


class StorageRefused(Exception):
    """Azurite answered with an error; the text is its own."""


class Storage:
    """The account's blobs. Nothing waits for Azurite before the first use.

    Args:
        settings: Names and key of the account.
        clock: The service's time.
        authority: Made the certificate that Azurite shows.
        folder: Where Azurite's data lives.
        cache: Where Azurite is installed.
    """

    def __init__(self, settings: Settings, clock: Clock, authority: Authority, folder: Path, cache: Path) -> None:
        self._settings = settings
        self._clock = clock
        self._authority = authority
        self._folder = folder
        self._cache = cache
        self._starting: asyncio.Task[Azurite] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._containers: set[str] = set()

    @property
    def blobstore(self) -> str:
        """The container of ``workspaceblobstore``."""
        return f"azureml-blobstore-{self._settings.workspace_id}"

    @property
    def datastores(self) -> dict[str, str]:
        """The workspace's datastores, and the container of each."""
        return {"workspaceblobstore": self.blobstore, "workspaceartifactstore": ARTIFACTS}

    def start(self) -> asyncio.Task[Azurite]:
        """Begin to start Azurite; the task ends when it listens, or fails with `EmulatorProblem`."""
        if self._starting is None:
            certificate = self._authority.files(self._settings.blob_host)
            starting = Azurite.start(self._settings, self._folder, self._cache, certificate)
            self._starting = asyncio.ensure_future(starting)
        return self._starting

    async def close(self) -> None:
        """Stop Azurite and close connections to it."""
        if self._session is not None:
            await self._session.close()
        if self._starting is not None:
            self._starting.cancel()
            (started,) = await asyncio.gather(self._starting, return_exceptions=True)
            if isinstance(started, Azurite):
                await started.process.stop()

    def url(self, container: str, blob: str = "") -> str:
        """The address of a container or blob, without a signature."""
        path = f"/{container}/{quote(blob, safe='/~')}" if blob else f"/{container}"
        return f"https://{self._settings.blob_host}{path}"

    def signed_url(
        self, container: str, blob: str = "", *, permissions: str = "r", lifetime: timedelta | None = None
    ) -> str:
        """An address with a shared access signature.

        Args:
            container: A container's name.
            blob: A blob in it; empty: the signature is for the whole container.
            permissions: Azure's letters, in the order ``racwdxltmeop``.
            lifetime: How long it holds; None: as the settings say.
        """
        return (
            f"{self.url(container, blob)}?{self.signature(container, blob, permissions=permissions, lifetime=lifetime)}"
        )

    def signature(
        self, container: str, blob: str = "", *, permissions: str = "r", lifetime: timedelta | None = None
    ) -> str:
        """A service SAS as a query string."""
        now = self._clock.now()
        ends = now + (timedelta(seconds=self._settings.sas_lifetime) if lifetime is None else lifetime)
        return self._service_signature(container, blob, permissions, now - timedelta(minutes=10), ends)

    def retimed(self, raw_path_and_query: str) -> str:
        """An address that was signed by a skewed clock, as Azurite takes it, whose clock is this machine's.

        Raises:
            AzureError: 403, the signature's time is over, or has not come, by the service's clock.
        """
        path, _, query = raw_path_and_query.partition("?")
        told = dict(parse_qsl(query, keep_blank_values=True))
        if not self._clock.skew or not {"sig", "st", "se", "sp", "sr"} <= told.keys():
            return raw_path_and_query
        container, _, blob = unquote(path).lstrip("/").partition("/")
        start, end = (datetime.strptime(told[key], _INSTANT).replace(tzinfo=timezone.utc) for key in ("st", "se"))
        place = (container, blob if told["sr"] == "b" else "", told["sp"])
        if dict(parse_qsl(self._service_signature(*place, start, end)))["sig"] != told["sig"]:
            return raw_path_and_query  # Azurite refuses it
        now = self._clock.now()
        if not start <= now < end:
            raise expired_signature(start, end, now)
        real = self._service_signature(*place, start - self._clock.skew, end - self._clock.skew)
        return f"{path}?{urlencode({**told, **dict(parse_qsl(real))})}"

    def _service_signature(self, container: str, blob: str, permissions: str, starts: datetime, ends: datetime) -> str:
        """The string to sign is that of version 2020-12-06 and later in Microsoft's "Create a service SAS"."""
        start, end = starts.strftime(_INSTANT), ends.strftime(_INSTANT)
        kind = "b" if blob else "c"
        name = f"/blob/{self._settings.storage_account}/{container}" + (f"/{blob}" if blob else "")
        to_sign = "\n".join([permissions, start, end, name, "", "", "https", VERSION, kind, "", "", "", "", "", "", ""])
        return urlencode(
            {
                "sv": VERSION,
                "spr": "https",
                "sr": kind,
                "st": start,
                "se": end,
                "sp": permissions,
                "sig": self._sign(to_sign),
            }
        )

    def _account_signature(self) -> str:
        """An account SAS for our own requests: "Create an account SAS", version 2020-12-06 and later."""
        now = datetime.now(timezone.utc)  # Azurite's clock is this machine's
        start, end = (now - _OURS).strftime(_INSTANT), (now + _OURS).strftime(_INSTANT)
        permissions, services, types = "rwdlacup", "b", "sco"
        parts = [self._settings.storage_account, permissions, services, types, start, end, "", "https", VERSION, "", ""]
        signature = self._sign("\n".join(parts))
        names = {"sv": VERSION, "ss": services, "srt": types, "sp": permissions, "spr": "https", "st": start, "se": end}
        return urlencode({**names, "sig": signature})

    def _sign(self, text: str) -> str:
        key = base64.b64decode(self._settings.storage_key)
        return base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()

    async def forward(
        self, method: str, raw_path_and_query: str, headers: Mapping[str, str], body: Any
    ) -> aiohttp.ClientResponse:
        """Ask Azurite what a client asked the storage account; the caller releases the answer."""
        azurite = await asyncio.shield(self.start())
        if self._session is None:
            context = ssl.create_default_context(cafile=str(self._authority.certificate_file))
            connector = aiohttp.TCPConnector(resolver=_Loopback(), ssl=context, limit=256)
            timeout = aiohttp.ClientTimeout(total=None)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        url = URL(f"https://{self._settings.blob_host}:{azurite.port}{raw_path_and_query}", encoded=True)
        return await self._session.request(
            method,
            url,
            headers={**headers, "Host": self._settings.blob_host},
            data=body,
            allow_redirects=False,
            skip_auto_headers=(
                "Accept",
                "Accept-Encoding",
                "Content-Type",
                "User-Agent",
            ),  # some are part of what is signed
        )

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str], body: bytes = b"", **headers: str
    ) -> tuple[int, bytes]:
        """A request of our own; status and body.

        Raises:
            StorageRefused: Any status from 400 on, except 404 and 409, which callers expect.
        """
        signed = (
            f"{path}?{urlencode(query)}&{self._account_signature()}" if query else f"{path}?{self._account_signature()}"
        )
        sent = {"x-ms-version": VERSION, **{name.replace("_", "-"): value for name, value in headers.items()}}
        response = await self.forward(method, signed, sent, body)
        async with response:
            told = await response.read()
        if response.status >= 400 and response.status not in {404, 409}:
            raise StorageRefused(f"{method} {path}: {response.status} {told.decode('utf-8', 'replace')}")
        return response.status, told

    async def make_container(self, name: str) -> None:
        """Make a container unless it is there."""
        if name not in self._containers:
            await self._ask("PUT", f"/{name}", {"restype": "container"})
            self._containers.add(name)

    async def put(self, container: str, blob: str, data: bytes) -> None:
        """Write a block blob."""
        await self.make_container(container)
        await self._ask("PUT", _path(container, blob), {}, data, x_ms_blob_type="BlockBlob")

    async def append(self, container: str, blob: str, data: bytes, *, create: bool) -> None:
        """Append to an append blob, made first when ``create``; Azure takes 4 MiB at once."""
        await self.make_container(container)
        path = _path(container, blob)
        if create:
            await self._ask("PUT", path, {}, x_ms_blob_type="AppendBlob")
        for start in range(0, len(data), 4 * 1024 * 1024):
            await self._ask("PUT", path, {"comp": "appendblock"}, data[start : start + 4 * 1024 * 1024])

    async def get(self, container: str, blob: str) -> bytes | None:
        """A blob's bytes; None: there is none."""
        status, data = await self._ask("GET", _path(container, blob), {})
        return None if status == 404 else data

    async def delete(self, container: str, blob: str) -> None:
        """Delete a blob where there is one."""
        await self._ask("DELETE", _path(container, blob), {})

    async def names(
        self, container: str, prefix: str = "", *, after: str = "", few: int | None = None
    ) -> AsyncIterator[tuple[str, str]]:
        """Names and etags of the blobs whose name starts with ``prefix``, in order.

        Args:
            container: A container's name.
            prefix: What the names start with.
            after: Only of the names after this one, which is what Azurite's markers are.
            few: How many are asked for at a time; None: as many as Azurite gives.
        """
        marker = after
        size = {} if few is None else {"maxresults": str(few)}
        while True:
            query = {"restype": "container", "comp": "list", "prefix": prefix, "marker": marker, **size}
            status, told = await self._ask("GET", f"/{container}", query)
            if status == 404:
                return
            listing = ElementTree.fromstring(told)  # noqa: S314  # Azurite's own answer
            for blob in listing.iter("Blob"):
                yield blob.findtext("Name") or "", blob.findtext("Properties/Etag") or ""
            marker = listing.findtext("NextMarker") or ""
            if not marker:
                return


class _Loopback(AbstractResolver):
    """The account's real host name is on loopback."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        del family
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=2, proto=0, flags=0)]

    async def close(self) -> None:
        return


def _path(container: str, blob: str) -> str:
    return f"/{container}/{quote(blob, safe='/~')}"
