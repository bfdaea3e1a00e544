"""The storage account's blob service: every request goes on to Azurite, which checks signatures and answers."""

from __future__ import annotations

from aiohttp import web
from multidict import CIMultiDict

from mlflow_azure_backend.emulator.azure_errors import not_emulated
from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.routing import BLOB, Known, Service

service = Service("Azure Blob Storage", host=BLOB)

_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
}


@service.operation(
    "Blob_Any", "*", "/{path*}", known=Known.SPECIFIED, source="Azurite, Microsoft's own emulator", raw=True
)
async def forward(call: Call) -> Answer | web.StreamResponse:
    """Azurite's answer, streamed."""
    request, settings = call.request, call.world.settings
    if request.host.partition(":")[0].lower() != settings.blob_host:
        raise not_emulated(
            request.method, request.host, request.path, f"is not the storage account {settings.blob_host}"
        )
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
    body = request.content if request.body_exists else None
    address = call.world.storage.retimed(request.raw_path)
    answer = await call.world.storage.forward(request.method, address, headers, body)
    async with answer:
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP]
        if call.whole:
            told = await answer.read()
            return web.Response(status=answer.status, reason=answer.reason, headers=CIMultiDict(kept), body=told)
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        response.headers.extend(kept)
        await response.prepare(request)
        if request.method != "HEAD":
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
        await response.write_eof()
        return response
