"""The layers that every request passes: dispatch, refuse the unknown, authenticate, validate, handle, serialise."""

from __future__ import annotations

import json
import sys
import time
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from mlflow_azure_backend.emulator import azure_errors
from mlflow_azure_backend.emulator.azure_errors import AzureError
from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.faults import AFTER
from mlflow_azure_backend.emulator.routing import ARM, CONTROL, Operation, Router, host_pattern
from mlflow_azure_backend.emulator.spoiling import spoil
from mlflow_azure_backend.emulator.throttle import Throttle
from mlflow_azure_backend.emulator.tokens import BadToken

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.faults import Fault
    from mlflow_azure_backend.emulator.world import World

LONGEST_BODY = 64 * 1024 * 1024
"""Bytes of a JSON body; blobs are streamed and have no such limit."""


class Front:
    """Answers the requests of all emulated hosts."""

    def __init__(self, world: World, router: Router) -> None:
        self._world = world
        self._router = router
        self._throttle = Throttle()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """What aiohttp's server calls for each request."""
        started = time.monotonic()
        pattern = host_pattern(request.host.partition(":")[0])
        found = (
            None if pattern is None else self._router.find(pattern, request.method, request.raw_path.partition("?")[0])
        )
        if found is None:
            error = azure_errors.not_emulated(request.method, request.host, request.path, "is not emulated")
            response: web.StreamResponse = self._serialise(self._error(error), started)
        else:
            response = await self._answer(request, *found, started)
        if pattern != CONTROL:
            await self._world.exchanges.keep("" if found is None else found[0].name, request, response)
        return response

    async def _answer(
        self, request: web.BaseRequest, operation: Operation, path: dict[str, str], started: float
    ) -> web.StreamResponse:
        """The answer with the faults that strike the request."""
        faults = []
        if operation.host != CONTROL:
            asked = {"host": request.host, "method": request.method, "path": request.path}
            faults = self._world.faults.striking(operation, **asked)

        def refuse(fault: Fault) -> web.Response:
            return self._serialise(self._error(self._refusal(request, operation, fault)), started)

        async def carry_out() -> web.StreamResponse:
            whole = any(fault.kind in AFTER for fault in faults)
            return await self._carry_out(request, operation, path, whole, started)

        return await spoil(request, faults, refuse, carry_out)

    async def _carry_out(
        self, request: web.BaseRequest, operation: Operation, path: dict[str, str], whole: bool, started: float
    ) -> web.StreamResponse:
        more: dict[str, str] = {}
        try:
            claims = self._authenticate(request, operation)
            if self._world.settings.throttled and operation.host == ARM and claims:
                name, left = self._throttle.take(request.method, self._world.settings.subscription_id, claims["oid"])
                more = {name: left}
            body = await self._validate(request, operation)
            call = Call(self._world, request, operation, path, request.query, body, claims, whole)
            answer = await operation.handle(call)
        except AzureError as error:
            answer = self._error(error)
        except ConnectionError:
            raise
        except Exception as error:  # a bug of ours: it is said here in full and to the client in one line
            traceback.print_exc(file=sys.stderr)
            answer = Answer(_internal_error(operation, error), 500)
        if not isinstance(answer, Answer):
            return answer
        return self._serialise(replace(answer, headers={**answer.headers, **more}), started)

    def _authenticate(self, request: web.BaseRequest, operation: Operation) -> Mapping[str, Any]:
        if not operation.audiences:
            return {}
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise azure_errors.no_token(operation.host, self._world.settings.tenant_id)
        try:
            return self._world.tokens.verify(token.strip(), operation.audiences)
        except BadToken as bad:
            raise self._unauthenticated(operation, bad) from None

    def _unauthenticated(self, operation: Operation, bad: BadToken) -> AzureError:
        return azure_errors.unauthenticated(operation.host, self._world.settings.tenant_id, bad.code, bad.message)

    def _refusal(self, request: web.BaseRequest, operation: Operation, fault: Fault) -> AzureError:
        """The error that a fault was ordered to be."""
        now = self._world.clock.now()
        if fault.kind == "expired-token":
            return self._unauthenticated(operation, self._world.tokens.expired(now.timestamp() - 1))
        if fault.kind == "expired-sas":
            return azure_errors.expired_signature(now - timedelta(days=1), now - timedelta(seconds=1), now)
        if fault.kind == "forbidden":
            principal = self._world.settings.client_id
            return azure_errors.forbidden(operation.host, request.method, request.path, principal)
        error = azure_errors.failure(operation.host, fault.status, fault.code)
        if fault.retry_after is not None:
            error.headers["Retry-After"] = f"{fault.retry_after:g}"
        return error

    async def _validate(self, request: web.BaseRequest, operation: Operation) -> Any:
        versions = operation.api_versions
        version = request.query.get("api-version")
        if versions is not None and version not in versions:
            raise azure_errors.unsupported_api_version(version, operation.name.partition("_")[0].lower(), versions)
        if operation.raw:
            return None
        text = await request.read()
        body = None
        if text:
            try:
                body = json.loads(text)
            except ValueError as error:
                raise azure_errors.invalid_request_content(f"The request content was invalid: {error}.") from None
        if operation.body is not None:
            problems = list(operation.body.problems(body, ""))
            if problems:
                raise azure_errors.invalid_body(problems)
        return body

    def _error(self, error: AzureError) -> Answer:
        return error.answer(self._world.clock.now(), self._world.settings.region)

    def _serialise(self, answer: Answer, started: float) -> web.Response:
        identity = str(uuid.uuid4())
        headers = {
            "Date": format_datetime(self._world.clock.now(), usegmt=True),
            "x-ms-request-id": identity,
            "x-ms-correlation-request-id": identity,
            "x-ms-response-type": "standard" if answer.status < 400 else "error",
            "x-aml-cluster": "emulator",
            "x-request-time": f"{time.monotonic() - started:.3f}",
            **answer.headers,
        }
        if answer.body is None or isinstance(answer.body, bytes):
            return web.Response(body=answer.body, status=answer.status, headers=headers)
        text = json.dumps(answer.body, ensure_ascii=False)
        return web.Response(text=text, status=answer.status, headers=headers, content_type="application/json")


def _internal_error(operation: Operation, error: Exception) -> dict[str, Any]:
    message = f"The emulator failed in {operation.name}: {type(error).__name__}: {error}"
    return {"error": {"code": "InternalServerError", "message": message}}
