"""Azure's error codes and words, in one place: what is raised here is what a client reads.

Resource Manager (ARM) writes ``{"error": {"code", "message"}}``; Azure Machine Learning's front end behind it ("MFE")
adds ``additionalInfo`` with the inner error; the identity service writes OAuth's form. The MFE form is from the
recordings of azure-sdk-for-python (``sdk/ml/azure-ai-ml/tests/recordings``).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from mlflow_azure_backend.emulator.call import Answer, Call
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
        if isinstance(error, dict) and "additionalInfo" in error:
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


def no_token() -> AzureError:
    """ARM's answer to a request without a bearer token."""
    return arm_error(
        401,
        "AuthenticationFailed",
        "Authentication failed. The 'Authorization' header is missing.",
        {"WWW-Authenticate": 'Bearer authorization_uri="https://login.microsoftonline.com/"'},
    )


def bad_token(code: str, message: str) -> AzureError:
    """ARM's answer to a bearer token that it cannot accept."""
    login = 'Bearer authorization_uri="https://login.microsoftonline.com/"'
    challenge = f'{login}, error="invalid_token", error_description="{message}"'
    return arm_error(401, code, message, {"WWW-Authenticate": challenge})


def expired_token() -> AzureError:
    """ARM's answer to a bearer token whose time is over."""
    return bad_token("ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than current UTC time.")


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


def data_plane_error(status: int, call: Call, message: str, *inner: str, component: str = "run-history") -> AzureError:
    """What the services behind ``*.api.azureml.ms`` say of a mistake of the caller's.

    The form is azureml-mlflow's ``ErrorResponse``; filled in as InnerEye-DeepLearning#335 shows it.
    """
    nested: dict[str, Any] | None = None
    for code in reversed(inner):
        nested = {"code": code, "innerError": nested}
    region = call.world.settings.region
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
    }
    return AzureError(
        status,
        {
            "error": error,
            "correlation": {"operation": uuid.uuid4().hex, "request": uuid.uuid4().hex[:16]},
            "environment": region,
            "location": region,
            "time": call.world.clock.now().isoformat(),
            "componentName": component,
        },
    )
