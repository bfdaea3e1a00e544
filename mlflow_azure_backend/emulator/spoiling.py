"""What an ordered fault does to a request: an error in the service's words, a reset, silence, or half an answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from mlflow_azure_backend.emulator.faults import REFUSALS

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.faults import Fault

_GARBAGE = b"\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\n"


async def spoil(
    request: web.BaseRequest,
    faults: list[Fault],
    refuse: Callable[[Fault], web.Response],
    carry_out: Callable[[], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Carry out a request with the faults that strike it.

    Args:
        request: What was asked.
        faults: As `Faults.striking` has them.
        refuse: Makes the answer of a fault that is an error.
        carry_out: Makes the answer without a fault, not yet begun to be sent where a fault is to spoil it.
    """
    for fault in faults:
        if fault.kind == "latency":
            await asyncio.sleep(fault.seconds)
    if not faults or faults[-1].kind == "latency":
        return await carry_out()
    fault = faults[-1]
    if fault.kind == "hang":
        return await _hang(request)
    if fault.kind == "reset-before":
        await _drain(request)
        return _reset(request)
    if fault.kind == "garbage":
        return _raw(request)
    if fault.kind in REFUSALS:
        await _drain(request)
        return refuse(fault)
    response = await carry_out()
    if fault.kind == "hang-after":
        return await _hang(request)
    if fault.kind == "reset-after":
        return _reset(request)
    if fault.kind == "garbage-after":
        return web.Response(body=b"<html>\x00\xff not what you asked for", content_type="text/html")
    return await _in_parts(request, response, fault)


async def _drain(request: web.BaseRequest) -> None:
    """Take what the client still sends, or it would see its own writing fail in place of the answer."""
    async for _ in request.content.iter_any():
        pass


async def _in_parts(request: web.BaseRequest, response: web.StreamResponse, fault: Fault) -> web.StreamResponse:
    """The answer byte by byte, or half of it and then a reset."""
    body = response.body if isinstance(response, web.Response) and isinstance(response.body, bytes) else b""
    copy = web.StreamResponse(status=response.status, headers=response.headers)
    copy.content_length = len(body)
    await copy.prepare(request)
    if fault.kind == "truncated":
        await copy.write(body[: len(body) // 2])
        return _reset(request)
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


def _reset(request: web.BaseRequest) -> web.StreamResponse:
    """End the connection with a reset."""
    transport = request.transport
    if transport is not None:
        peer: socket.socket | None = transport.get_extra_info("socket")
        if peer is not None:
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=499)


def _raw(request: web.BaseRequest) -> web.StreamResponse:
    """Write what is no HTTP, and end the connection."""
    transport = request.transport
    if transport is not None:
        transport.write(_GARBAGE)
        transport.close()
    return web.Response(status=499)
