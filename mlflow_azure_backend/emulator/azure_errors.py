"""Azure's error codes and words, in one place: what is raised here is what a client reads.

Resource Manager (ARM) writes ``{"error": {"code", "message"}}``; Azure Machine Learning's front end behind it ("MFE")
adds ``additionalInfo`` with the inner error; the services of the data plane have a form of their own; the identity
service writes OAuth's form; storage writes XML. The MFE form is from the recordings of azure-sdk-for-python
(``sdk/ml/azure-ai-ml/tests/recordings``).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any
from xml.sax.saxutils import escape

from mlflow_azure_backend.emulator.call import Answer
from mlflow_azure_backend.emulator.routing import BLOB, DATA_PLANE, PROVIDER
from mlflow_azure_backend.emulator.shapes import Problem


class AzureError(Exception):
    """Raised by any layer; the last one writes it as the answer."""

    def __init__(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body
        self.headers = dict(headers or {})

    def answer(self, now: datetime, region: str) -> Answer:
        """As an answer of the service in ``region``, given ``now``."""
        body = dict(self.body)
        error = body.get("error")
        if "correlation" in body:
            body |= {"environment": region, "location": region, "time": now.isoformat()}
        elif "Correlation" in body:
            body |= {"Environment": region, "Location": region, "Time": now.isoformat()}
        elif isinstance(error, dict) and "additionalInfo" in error:
            when_and_where = {"Environment": region, "Location": region, "Time": now.isoformat()}
            more = [{"type": kind, "info": {"value": value}} for kind, value in when_and_where.items()]
            body["error"] = {**error, "additionalInfo": [*error["additionalInfo"], *more]}
        return Answer(body, self.status, self.headers)


def arm_error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> AzureError:
    """What Resource Manager itself says, before Azure Machine Learning has seen the request."""
    return AzureError(status, {"error": {"code": code, "message": message}}, headers)


def user_error(status: int, message: str, *inner: str, **parameters: str) -> AzureError:
    """What Azure Machine Learning says of a mistake of the caller's.

    Args:
        status: The HTTP status.
        message: A format whose fields are ``parameters``.
        *inner: Codes of the inner error, the outermost first, like ``"NotFound", "JobNotFound"``.
        **parameters: The message's parts.
    """
    nested: dict[str, Any] | None = None
    for code in reversed(inner):
        nested = {"code": code, "innerError": nested}
    info = {
        "ComponentName": "managementfrontend",
        "Correlation": {"operation": uuid.uuid4().hex, "request": uuid.uuid4().hex[:16]},
        "InnerError": nested,
        "MessageFormat": message,
        "MessageParameters": parameters,
    }
    error = {
        "code": "UserError",
        "message": message.format(**parameters),
        "details": [],
        "additionalInfo": [{"type": kind, "info": {"value": value}} for kind, value in info.items()],
    }
    return AzureError(status, {"error": error})


def not_emulated(method: str, host: str, path: str, why: str) -> AzureError:
    """501: the emulator refuses what it does not know, and names it."""
    message = f"{method} https://{host}{path} {why}; docs/emulator_coverage.md lists what is emulated"
    return arm_error(501, "NotImplemented", message)


def unsupported_api_version(api_version: str | None, resource: str, supported: frozenset[str]) -> AzureError:
    """ARM's answers to an api-version that is missing or unknown."""
    if api_version is None:
        return arm_error(
            400,
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
        )
    return arm_error(
        400,
        "InvalidResourceType",
        f"The resource type '{resource}' could not be found in the namespace 'Microsoft.MachineLearningServices' for "
        f"api version '{api_version}'. The supported api-versions are '{','.join(sorted(supported))}'.",
    )


def unauthenticated(host: str, tenant: str, code: str, message: str) -> AzureError:
    """401 in the words of the service that was asked.

    Args:
        host: One of ``routing.HOSTS``.
        tenant: Where the client should get a token.
        code: Resource Manager's, like ``ExpiredAuthenticationToken``.
        message: What is wrong with the token.
    """
    login = f'Bearer authorization_uri="https://login.windows.net/{tenant}", error="invalid_token"'
    headers = {"WWW-Authenticate": f'{login}, error_description="{message}"'}
    if host == DATA_PLANE:
        return AzureError(401, _data_plane_body(message, ("AuthorizationError",), "mlflow"), headers)
    return arm_error(401, code, message, headers)


def no_token(host: str, tenant: str) -> AzureError:
    """401 for a request that bears no token; the data plane's words are those of mlflow#5846."""
    words = "Authentication failed. The 'Authorization' header is missing."
    words = "Bearer token not provided." if host == DATA_PLANE else words
    return unauthenticated(host, tenant, "AuthenticationFailed", words)


def forbidden(host: str, method: str, path: str, principal: str) -> AzureError:
    """403 for a principal that has no right to an operation, in the words of the service that was asked.

    Resource Manager's are those of azure-sdk-for-python#39980; the data plane's those of responsible-ai-hub#76, whose
    place in the answer is inferred; storage's are documented.
    """
    if host == BLOB:
        return storage_error(403, "AuthorizationPermissionMismatch")
    verb = {"GET": "read", "HEAD": "read", "DELETE": "delete", "POST": "action"}.get(method, "write")
    _, _, rest = path.partition(f"/{PROVIDER}/")
    if host == DATA_PLANE:
        kind = "models" if re.search("/(registered-models|model-versions)/", path) else "experiments/runs"
        verb = "read" if method == "GET" or path.endswith(("/search", "/rundata")) else "write"
        message = (
            f"Identity(object id: {principal}) does not have permissions for {PROVIDER}/workspaces/{kind}/{verb} "
            "actions. Please refer to https://aka.ms/azureml-auth-troubleshooting to fix the permissions issue."
        )
        return AzureError(403, _data_plane_body(message, ("ForbiddenError",), "mlflow"))
    kinds = "/".join(rest.split("/")[::2])
    return arm_error(
        403,
        "AuthorizationFailed",
        f"The client '{principal}' with object id '{principal}' does not have authorization to perform action "
        f"'{PROVIDER}/{kinds}/{verb}' over scope '{path}' or the scope is invalid. If access was recently granted, "
        "please refresh your credentials.",
    )


_CODES = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    408: "RequestTimeout",
    409: "Conflict",
    412: "PreconditionFailed",
    429: "TooManyRequests",
    500: "InternalServerError",
    502: "BadGateway",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}
_STORAGE_CODES = {
    403: "AuthorizationFailure",
    404: "BlobNotFound",
    408: "OperationTimedOut",
    412: "ConditionNotMet",
    500: "InternalError",
    503: "ServerBusy",
}
_STORAGE_WORDS = {
    "AuthenticationFailed": "Server failed to authenticate the request. Make sure the value of Authorization header is "
    "formed correctly including the signature.",
    "AuthorizationFailure": "This request is not authorized to perform this operation.",
    "AuthorizationPermissionMismatch": "This request is not authorized to perform this operation using this "
    "permission.",
    "BlobNotFound": "The specified blob does not exist.",
    "ConditionNotMet": "The condition specified using HTTP conditional header(s) is not met.",
    "InternalError": "Server encountered an internal error. Please try again after some time.",
    "OperationTimedOut": "Operation could not be completed within the specified time.",
    "ServerBusy": "The server is busy.",
}
"""From "Status and error codes" and "Blob service error codes" in Microsoft's documentation."""


def failure(host: str, status: int, code: str | None) -> AzureError:
    """An error that has no cause of its own, in the form of the service that was asked.

    Args:
        host: One of ``routing.HOSTS``.
        status: The HTTP status.
        code: The error's code; None: the usual one for that status.
    """
    if host == BLOB:
        return storage_error(status, code or _STORAGE_CODES.get(status, "InternalError"))
    code = code or _CODES.get(status, "InternalServerError")
    message = f"The service answers {status} {code}, as it was ordered to."
    if host == DATA_PLANE:
        return AzureError(status, {**_data_plane_body(message, (code,), "mlflow"), "error_code": code})
    return arm_error(status, code, message)


def storage_error(status: int, code: str, detail: str = "") -> AzureError:
    """What the storage account says: a code in a header, and in XML with its words.

    Args:
        status: The HTTP status.
        code: Storage's code.
        detail: The text of ``AuthenticationErrorDetail``; empty: none.
    """
    return _StorageError(status, {"code": code, "detail": detail}, {"x-ms-error-code": code})


class _StorageError(AzureError):
    """Storage writes XML, and its words end with the request and the time."""

    def answer(self, now: datetime, region: str) -> Answer:
        """See `AzureError`."""
        del region
        code, detail = self.body["code"], self.body["detail"]
        request = str(uuid.uuid4())
        words = f"{_STORAGE_WORDS.get(code, code)}\nRequestId:{request}\nTime:{now:%Y-%m-%dT%H:%M:%S.%f}0Z"
        more = f"<AuthenticationErrorDetail>{escape(detail)}</AuthenticationErrorDetail>" if detail else ""
        error = f"<Error><Code>{code}</Code><Message>{escape(words)}</Message>{more}</Error>"
        text = f'<?xml version="1.0" encoding="utf-8"?>\n{error}'
        headers = {**self.headers, "x-ms-request-id": request, "Content-Type": "application/xml"}
        return Answer(text.encode(), self.status, headers)


def expired_signature(start: datetime, expiry: datetime, now: datetime) -> AzureError:
    """What the storage account says of a shared access signature whose time is over."""
    told = [format_datetime(one, usegmt=True) for one in (start, expiry, now)]
    frame = f"Start [{told[0]}] - Expiry [{told[1]}] - Current [{told[2]}]"
    words = f"Signature not valid in the specified time frame: {frame}"
    return storage_error(403, "AuthenticationFailed", words)


def resource_not_found(kind: str, name: str, group: str) -> AzureError:
    """ARM's answer to a top-level resource that is not there."""
    return arm_error(
        404,
        "ResourceNotFound",
        f"The Resource 'Microsoft.MachineLearningServices/{kind}/{name}' under resource group '{group}' was not found. "
        "For more details please go to https://aka.ms/ARMResourceNotFoundFix",
    )


def invalid_request_content(message: str) -> AzureError:
    """ARM's answer to a body that is no JSON."""
    return arm_error(400, "InvalidRequestContent", message)


def invalid_body(problems: Iterable[Problem]) -> AzureError:
    """What Azure Machine Learning says of a body that is not as published; the required fields in its own words."""
    problems = list(problems)
    said = " ".join(one.words for one in problems)
    refused = user_error(400, "The request is invalid: {problems}", "BadArgument", problems=said)
    refused.body["error"]["details"] = [
        {"code": "InvalidField", "message": one.words, "target": one.where, "details": []} for one in problems
    ]
    return refused


def data_plane_error(status: int, message: str, *inner: str, component: str = "run-history") -> AzureError:
    """What the services behind ``*.api.azureml.ms`` say of a mistake of the caller's.

    The form is azureml-mlflow's ``ErrorResponse``; filled in as InnerEye-DeepLearning#335 shows it.
    """
    return AzureError(status, _data_plane_body(message, inner, component))


def mlflow_error(status: int, error_code: str, code: str, message: str) -> AzureError:
    """What the workspace's MLflow service itself says, beside what MLflow's code does: QwenLM/Qwen3#113.

    Args:
        status: The HTTP status.
        error_code: MLflow's word, which its clients raise.
        code: The service's own word.
        message: What is wrong.
    """
    told = _data_plane_body(message, (), "mlflow")
    capital = {
        key[0].upper() + key[1:]: value for key, value in {**told["error"], "code": code, "innerError": None}.items()
    }
    correlation = told["correlation"]
    body = {"Error": capital, "Correlation": correlation, "ComponentName": "mlflow"}
    return AzureError(status, {**body, "statusCode": status, "error_code": error_code})


def _data_plane_body(message: str, inner: tuple[str, ...], component: str) -> dict[str, Any]:
    nested: dict[str, Any] | None = None
    for code in reversed(inner):
        nested = {"code": code, "innerError": nested}
    error: dict[str, Any] = {
        "code": "UserError",
        "severity": None,
        "message": message,
        "messageFormat": None,
        "messageParameters": None,
        "referenceCode": None,
        "detailsUri": None,
        "target": None,
        "details": [],
        "innerError": nested,
        "debugInfo": None,
        "additionalInfo": None,
    }
    correlation = {"operation": uuid.uuid4().hex, "request": uuid.uuid4().hex[:16]}
    return {"error": error, "correlation": correlation, "componentName": component}
