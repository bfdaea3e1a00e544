"""The front door: an HTTP CONNECT proxy on loopback that ends TLS itself for the hosts that are emulated.

Clients are pointed here by ``HTTPS_PROXY`` alone and keep using the real host names; nothing in them is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from mlflow_azure_backend.emulator.routing import CONTROL, host_pattern

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.authority import Authority

_LONGEST_HEAD = 16384
_CHUNK = 65536


class ConnectProxy(asyncio.Protocol):
    """One connection to the proxy, until its CONNECT is answered.

    Args:
        authority: Makes certificates for emulated hosts.
        make_http: Makes the HTTP protocol that takes over once TLS stands.
        outside: Whether other hosts are reached; else they get 403.
        tasks: Where running tasks are kept, so that they are not lost.
        fault: Says which fault strikes a connection to a host (`Faults.connecting`).
    """

    def __init__(
        self,
        authority: Authority,
        make_http: Callable[[], asyncio.Protocol],
        outside: bool,
        tasks: set[asyncio.Task[None]],
        fault: Callable[[str], str | None],
    ) -> None:
        self._fault = fault
        self._authority = authority
        self._make_http = make_http
        self._outside = outside
        self._tasks = tasks
        self._head = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Asyncio's: gather the CONNECT request, then act on it."""
        transport = self._transport
        if transport is None:
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > _LONGEST_HEAD:
                _refuse(transport, 431, "the request's head is too long")
            return
        words = bytes(self._head[:end]).split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or words[0] != "CONNECT":
            _refuse(transport, 405, "this is the emulator's proxy: set HTTPS_PROXY to it, and ask for https addresses")
            return
        host, _, port = words[1].rpartition(":")
        host = host.strip("[]").lower()
        transport.pause_reading()
        fault = self._fault(host) if host_pattern(host) not in {None, CONTROL} else None
        if fault == "unreachable":
            _refuse(transport, 502, f"{host} cannot be reached, as was ordered")
        elif host_pattern(host) is not None:
            self._start(self._terminate(transport, "wrong.example" if fault == "bad-certificate" else host))
        elif self._outside:
            self._start(self._tunnel(transport, host, int(port)))
        else:
            _refuse(transport, 403, f"{host} is not emulated, and nothing outside is reached: --set outside=true")

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _terminate(self, transport: asyncio.Transport, host: str) -> None:
        context = self._authority.context(host)
        protocol = self._make_http()
        transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        loop = asyncio.get_running_loop()
        try:
            secured = await loop.start_tls(transport, protocol, context, server_side=True)
        except (OSError, ConnectionError):
            transport.abort()  # the client does not trust us, or left
            return
        if secured is not None:
            protocol.connection_made(secured)

    async def _tunnel(self, transport: asyncio.Transport, host: str, port: int) -> None:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError as error:
            _refuse(transport, 502, f"{host}:{port} cannot be reached: {error}")
            return
        upward = _Upward(writer, transport)
        transport.set_protocol(upward)
        transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        transport.resume_reading()
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                transport.write(data)
                await upward.room.wait()
        transport.close()


class _Upward(asyncio.Protocol):
    """What the client says, to the far end."""

    def __init__(self, writer: asyncio.StreamWriter, transport: asyncio.Transport) -> None:
        self._writer = writer
        self._transport = transport
        self.room = asyncio.Event()
        self.room.set()

    def data_received(self, data: bytes) -> None:
        self._writer.write(data)

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.room.set()
        self._writer.close()


def _refuse(transport: asyncio.Transport, status: int, why: str) -> None:
    body = f"{why}\n".encode()
    head = [
        f"HTTP/1.1 {status} {why.encode('ascii', 'replace').decode()}",  # clients show this line, and not the body
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    transport.write("\r\n".join([*head, "", ""]).encode() + body)
    transport.close()
