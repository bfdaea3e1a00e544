"""What a service's refusal or silence says, in one line."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that say: not now."""
_SKEW_SECONDS = 300.0
"""A clock that is this far off has its tokens refused."""
_NOT_THROUGH = ("Tunnel connection failed", "NewConnectionError")
"""What an error says when nothing got through the proxy; requests blames it for connections that were lost, too."""
_WORKSPACE = re.compile(r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/[^/]+/workspaces", re.IGNORECASE)
_REQUEST_IDS = ("x-ms-correlation-request-id", "x-ms-request-id", "x-request-id")


class ServiceError(Exception):
    """A service refused, or could not be reached.

    Args:
        what: What is wrong, in one sentence.
        route: Method and address, without its query (which may hold a signature).
        status: The HTTP status; None when there was no answer.
        code: The service's innermost error code, or ours where asking again is of no use; None when there is none.
        request_id: What support asks for; None when there was no answer.
        next_step: What the user can do; None when there is nothing.
        retry_after: Seconds after which the service wants to be asked again; None when it does not say.
        never_done: Whether it is certain that the service has done nothing of what was asked.

    Attributes:
        uncertain_before: Whether the same request had been sent before, and nobody knows what became of that.
    """

    def __init__(
        self,
        what: str,
        *,
        route: str,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        next_step: str | None = None,
        retry_after: float | None = None,
        never_done: bool = False,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.route = route
        self.status = status
        self.code = code
        self.request_id = request_id
        self.next_step = next_step
        self.retry_after = retry_after
        self.never_done = never_done
        self.uncertain_before = False

    def __str__(self) -> str:
        request = "" if self.request_id is None else f", request {self.request_id}"
        step = "" if self.next_step is None else f"; {self.next_step}"
        return " ".join(f"{self.what} ({self.route}{request}){step}".split())

    @property
    def is_transient(self) -> bool:
        """Whether the same request may be answered later: there was no answer, or one that says "not now"."""
        return self.status in TRANSIENT if self.status is not None else self.code is None


def unanswered(route: str, error: Exception) -> ServiceError:
    """Why there is no answer, in the user's words."""
    host = route.partition(" ")[2].partition("/")[0]
    text, code = str(error), None
    never_done = isinstance(error, requests.exceptions.ConnectTimeout)
    if isinstance(error, requests.exceptions.ProxyError) and any(words in text for words in _NOT_THROUGH):
        what, step = f"the proxy does not let us through to {host}", "look at HTTPS_PROXY and NO_PROXY"
        never_done = True
    elif "CERTIFICATE_VERIFY_FAILED" in text:
        what, code = f"the certificate of {host} is not trusted", "CertificateNotTrusted"
        step = "behind a proxy that opens TLS, set REQUESTS_CA_BUNDLE to its certificates"
    elif "NameResolutionError" in text or "getaddrinfo" in text:
        what, step, never_done = f"{host} has no address", "look at the network, and at the region's name", True
    elif isinstance(error, requests.exceptions.Timeout):
        what, step = f"{host} does not answer in time", "look at the network"
    elif isinstance(error, requests.exceptions.ConnectionError):
        never_done = never_done or "NewConnectionError" in text
        what, step = f"the connection to {host} was lost or refused", "look at the network"
    else:
        what, step = f"the answer of {host} cannot be read", "something between here and Azure garbles it"
    return ServiceError(what, route=route, code=code, next_step=step, never_done=never_done)


def refusal(route: str, response: requests.Response) -> ServiceError:
    """What a service's refusal says; ARM, the workspace's services, MLflow's API and storage each have a form."""
    code, message = _code_and_message(response)
    status = response.status_code
    skew = _clock_skew(response) if status in (401, 403) else None
    step: str | None = None
    if skew is not None:
        step = f"this machine's clock is {abs(skew) / 60:.0f} minutes off; set it right"
    elif status == 401:
        step = "sign in again: az login"
    elif status == 403:
        step = "ask for a role on the workspace (AzureML Data Scientist is enough to run and track)"
    elif status in TRANSIENT:
        step = "try again later"
    return ServiceError(
        "{} {}".format(status, message or response.reason or "without a word").rstrip(". "),
        route=route,
        status=status,
        code=code,
        request_id=request_id_of(response),
        next_step=step,
        retry_after=_retry_after(response),
        never_done=status == 429,
    )


def _code_and_message(response: requests.Response) -> tuple[str | None, str]:
    storage = response.headers.get("x-ms-error-code")
    try:
        told = json.loads(response.content)
    except ValueError:
        return storage, storage or ""
    if not isinstance(told, dict):
        return storage, ""
    error = told.get("error") or told.get("Error")
    if not isinstance(error, dict):
        message = told.get("error_description") or told.get("message") or ""
        return told.get("error_code") or storage, str(message)
    small = {key[:1].lower() + key[1:]: value for key, value in error.items()}  # some services write Message
    return told.get("error_code") or _innermost_code(small), str(told.get("message") or small.get("message") or "")


def _innermost_code(error: Mapping[str, Any]) -> str | None:
    """The last code of a chain; ARM hides the chain in ``additionalInfo``."""
    inner = error.get("innerError") or next(
        (
            (one.get("info") or {}).get("value")
            for one in error.get("additionalInfo") or ()
            if isinstance(one, dict) and one.get("type") == "InnerError"
        ),
        None,
    )
    code = error.get("code")
    while isinstance(inner, dict):
        code, inner = inner.get("code") or code, inner.get("innerError")
    return None if code is None else str(code)


def _clock_skew(response: requests.Response) -> float | None:
    """Seconds that this machine is ahead of the service; None when it is not worth a word or not known."""
    date = response.headers.get("Date")
    if not date:
        return None
    try:
        skew = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None
    return skew if abs(skew) > _SKEW_SECONDS else None


def _retry_after(response: requests.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def request_id_of(response: requests.Response) -> str | None:
    """What Azure's support asks for; None when the answer has none."""
    return next((response.headers[name] for name in _REQUEST_IDS if name in response.headers), None)


def route_of(method: str, url: str) -> str:
    """A request as it may be shown: without the query, which may hold a signature, nor all that names the workspace."""
    address = urlsplit(url)
    return f"{method} {address.netloc}{_WORKSPACE.sub('…/workspaces', address.path)}"
