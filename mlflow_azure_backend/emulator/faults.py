"""Scripted faults: what a test orders to go wrong at a route, before or after the request was carried out."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields
from typing import Any

from aiohttp import web

BEFORE = ("status", "reset-before", "hang", "garbage")
"""Kinds that keep the request from being carried out."""
AFTER = ("reset-after", "slow", "truncated", "garbage-after", "hang-after")
"""Kinds that carry the request out and spoil the answer."""
BESIDE = ("latency", "expired-token")
"""Kinds that change the request's way: a delay before it, or its token taken for expired."""
KINDS = (*BEFORE, *AFTER, *BESIDE)


@dataclass
class Fault:
    """One order.

    Attributes:
        kind: One of ``KINDS``.
        method: Of the requests that it strikes; None: any.
        host: A pattern (``*`` and ``?``) for the host; None: any.
        path: A pattern for the path; None: any.
        operation: The operation's name; None: any.
        times: How often it strikes; None: until it is taken back.
        after: How many matching requests pass before the first is struck.
        status: The HTTP status of kind ``status``.
        retry_after: Seconds for the ``Retry-After`` header of kind ``status``; None: no such header.
        seconds: Of ``latency`` and between the bytes of ``slow``.
        struck: How often it has struck.
        number: What it is taken back by.
    """

    kind: str
    method: str | None = None
    host: str | None = None
    path: str | None = None
    operation: str | None = None
    times: int | None = 1
    after: int = 0
    status: int = 503
    retry_after: float | None = None
    seconds: float = 0.0
    struck: int = 0
    number: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind}: no such kind of fault; there are {', '.join(KINDS)}")

    def strikes(self, request: web.BaseRequest, operation: str) -> bool:
        """Whether this request is one of those that are meant, counted."""
        wanted = ((self.method, request.method), (self.operation, operation))
        patterns = ((self.host, request.host), (self.path, request.path))
        if any(want is not None and want != have for want, have in wanted):
            return False
        if any(want is not None and not fnmatch.fnmatchcase(have.lower(), want.lower()) for want, have in patterns):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None and self.struck >= self.times:
            return False
        self.struck += 1
        return True


@dataclass
class Faults:
    """The orders in force."""

    orders: list[Fault] = field(default_factory=list)
    _last: int = 0

    def order(self, what: dict[str, Any]) -> Fault:
        """Put an order in force.

        Raises:
            ValueError: An unknown field or kind.
        """
        names = {one.name for one in fields(Fault)} - {"struck", "number"}
        unknown = sorted(set(what) - names)
        if unknown or "kind" not in what:
            wrong = f"{unknown[0]}: no such field" if unknown else "kind is missing"
            raise ValueError(f"{wrong}; a fault has {', '.join(sorted(names))}")
        self._last += 1
        fault = Fault(**what, number=self._last)
        self.orders.append(fault)
        return fault

    def clear(self, number: int | None = None) -> None:
        """Take back one order, or all of them."""
        self.orders = [one for one in self.orders if number is not None and one.number != number]

    def striking(self, request: web.BaseRequest, operation: str) -> list[Fault]:
        """The orders that strike this request; none strikes the emulator's own host."""
        return [one for one in self.orders if one.strikes(request, operation)]


async def spoil(
    request: web.BaseRequest, faults: list[Fault], carry_out: Callable[[], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Carry out the request with the faults that strike it."""
    for fault in faults:
        if fault.kind == "latency":
            await asyncio.sleep(fault.seconds)
    spoiling = [one for one in faults if one.kind not in BESIDE]
    if not spoiling:
        return await carry_out()
    fault = spoiling[0]
    if fault.kind == "status":
        headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
        error = {"error": {"code": _CODES.get(fault.status, "InternalServerError"), "message": "An ordered fault."}}
        return web.json_response(error, status=fault.status, headers=headers)
    if fault.kind == "hang":
        return await _hang(request)
    if fault.kind == "reset-before":
        return await _reset(request)
    if fault.kind == "garbage":
        return await _raw(request, b"\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\n")
    response = await carry_out()
    if fault.kind == "hang-after":
        return await _hang(request)
    if fault.kind == "reset-after":
        return await _reset(request)
    body = response.body if isinstance(response, web.Response) and isinstance(response.body, bytes) else b""
    if fault.kind == "garbage-after":
        return web.Response(body=b"<html>\x00\xff not what you asked for", content_type="text/html")
    return await _by_and_by(request, response, body, fault)


_CODES = {
    429: "TooManyRequests",
    500: "InternalServerError",
    502: "BadGateway",
    503: "ServerBusy",
    504: "GatewayTimeout",
}


async def _by_and_by(
    request: web.BaseRequest, response: web.StreamResponse, body: bytes, fault: Fault
) -> web.StreamResponse:
    """The answer byte by byte, or half of it and then a reset."""
    if response.prepared:
        return response
    copy = web.StreamResponse(status=response.status, headers=response.headers)
    copy.content_length = len(body)
    await copy.prepare(request)
    if fault.kind == "truncated":
        await copy.write(body[: len(body) // 2])
        return await _reset(request)
    for place in range(len(body)):
        await copy.write(body[place : place + 1])
        await asyncio.sleep(fault.seconds)
    await copy.write_eof()
    return copy


async def _hang(request: web.BaseRequest) -> web.StreamResponse:
    """Say nothing until the client has left."""
    while request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(0.2)
    return web.Response(status=499)


async def _reset(request: web.BaseRequest) -> web.StreamResponse:
    """End the connection with a reset."""
    transport = request.transport
    if transport is not None:
        peer: socket.socket | None = transport.get_extra_info("socket")
        if peer is not None:
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=499)


async def _raw(request: web.BaseRequest, data: bytes) -> web.StreamResponse:
    """Write what is no HTTP, and end the connection."""
    transport = request.transport
    if transport is not None:
        transport.write(data)
        transport.close()
    return web.Response(status=499)
