"""How Azure's services are talked to: patiently, within bounds, and their refusals said in one line.

What is safe to send again is sent again (GET, PUT, DELETE, and what the caller says is idempotent); ``Retry-After`` is
obeyed; a token that is refused is renewed once. Nothing waits for ever.
"""

from __future__ import annotations

import json as json_format
import platform
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from .refusals import ServiceError, refusal, request_id_of, route_of, unanswered
from .tokens import NoToken, TokenSource

PATIENCE_SECONDS = 240.0
"""How long one call may take with all its repetitions."""
RETRY_AFTER_AT_MOST = 300.0
"""Seconds; a service that asks for more is not waited for longer."""
_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 60.0
"""How long a service may say nothing in the middle of an answer."""
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
_CHUNK = 64 * 1024
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})

USER_AGENT = f"mlflow-azure-backend python/{platform.python_version()}"


class Patience:
    """How long one call is tried, and when again.

    Args:
        seconds: For all its repetitions together.
    """

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds
        self._attempt = 0

    def pause(self, problem: ServiceError) -> float:
        """Seconds before the next attempt.

        Raises:
            ServiceError: It is ``problem``: there is no time for another one.
        """
        self._attempt += 1
        pause = _pause(self._attempt, problem.retry_after)
        if time.monotonic() + pause > self.ends:
            raise problem
        return pause


class Pace:
    """So many calls a second, after a burst: what a service allows, kept by the client. Used from several threads.

    Args:
        burst: Calls that may be made at once.
        each_second: Calls a second after that.
    """

    def __init__(self, burst: int, each_second: float) -> None:
        self._burst = float(burst)
        self._each_second = each_second
        self._lock = threading.Lock()
        self._left = self._burst
        self._at = time.monotonic()

    def wait(self) -> None:
        """Return when one more call may be made."""
        with self._lock:
            now = time.monotonic()
            self._left = min(self._burst, self._left + (now - self._at) * self._each_second) - 1
            self._at = now
            debt = -self._left
        if debt > 0:
            time.sleep(debt / self._each_second)


class Transport:
    """Sends requests; one instance may be used from several threads.

    Args:
        tokens: For the ``Authorization`` header; None: the address itself grants access (a signature).
        tell: Told one line for each route whose service is waited for, and once only.
        pace: Waited for before each call; None: none.
        patience: Seconds that one call may take with all its repetitions.
        parallel: Connections that are kept open to one host.
    """

    def __init__(
        self,
        tokens: TokenSource | None,
        *,
        tell: Callable[[str], None] = lambda _: None,
        pace: Callable[[str], None] | None = None,
        patience: float = PATIENCE_SECONDS,
        parallel: int = 16,
    ) -> None:
        self._tokens = tokens
        self._tell = tell
        self._pace = pace
        self._patience = patience
        self._told: set[str] = set()
        self._session = requests.Session()
        self._session.mount("https://", _AtOnce(pool_connections=8, pool_maxsize=parallel, max_retries=0))
        self._session.headers["User-Agent"] = USER_AGENT

    def json(self, method: str, url: str, **request: Any) -> Any:
        """As ``send``, and the answer read as JSON; None for an empty one.

        Raises:
            ServiceError: As ``send``; also: the answer is no JSON.
        """
        response = self.send(method, url, **request)
        if not response.content:
            return None
        try:
            return json_format.loads(response.content)
        except ValueError:
            raise ServiceError(
                f"the answer is no JSON: {response.content[:80]!r}",
                route=route_of(method, url),
                status=response.status_code,
                request_id=request_id_of(response),
                next_step="something between here and Azure (a proxy, a sign-in page) answers instead",
            ) from None

    def send(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        data: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        idempotent: bool | None = None,
        accept: tuple[int, ...] = (),
        patience: float | None = None,
    ) -> requests.Response:
        """Send a request until there is an answer, and read all of it.

        Args:
            method: HTTP's.
            url: An ``https`` address.
            params: Of the query.
            json: Body, written as JSON.
            data: Body, as it is.
            headers: Further ones.
            idempotent: Whether sending it twice does no more than once; None: what the method says.
            accept: Statuses of 400 and above that are answers, not errors.
            patience: Seconds for all repetitions together; None: the transport's.

        Raises:
            ServiceError: Refused, or no answer in time.
        """
        repeatable = method in _IDEMPOTENT if idempotent is None else idempotent
        call = _Call(method, url, dict(params or {}), json, data, dict(headers or {}))
        waiting = Patience(self._patience if patience is None else patience)
        token, renewed, uncertain = self._token(call), False, False
        while True:
            if self._pace is not None:
                self._pace(method)
            try:
                return _read(self._once(call, token, accept, waiting.ends), call, waiting.ends)
            except ServiceError as problem:
                problem.uncertain_before = uncertain
                if problem.status == 401 and token is not None and not renewed:
                    token, renewed = self._token(call, refused=token), True
                    continue
                if not problem.is_transient or not (repeatable or problem.never_done):
                    raise
                uncertain = uncertain or not problem.never_done
                self.wait(problem, waiting)

    def wait(self, problem: ServiceError, patience: Patience) -> None:
        """Return when the next attempt is due, having told that it is waited for.

        Raises:
            ServiceError: It is ``problem``: there is no time for another attempt.
        """
        pause = patience.pause(problem)
        self._tell_once(problem, pause)
        time.sleep(pause)

    def open(self, url: str, *, headers: Mapping[str, str]) -> requests.Response:
        """One GET whose body the caller reads and closes; not repeated, as only the caller knows how far it came.

        Raises:
            ServiceError: Refused or unreachable.
        """
        call = _Call("GET", url, {}, None, None, dict(headers))
        return self._once(call, self._token(call), (), time.monotonic() + _SILENCE_SECONDS)

    def bearer(self, url: str) -> str | None:
        """A token that is good now, for a request to ``url`` that somebody else sends; None where none is needed.

        Raises:
            ServiceError: There is none.
        """
        return self._token(_Call("GET", url, {}, None, None, {}))

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _token(self, call: _Call, *, refused: str | None = None) -> str | None:
        if self._tokens is None:
            return None
        try:
            return self._tokens.token(refused=refused)
        except NoToken as error:
            raise ServiceError(str(error), route=call.route, status=401) from None

    def _once(self, call: _Call, token: str | None, accept: tuple[int, ...], ends: float) -> requests.Response:
        """One attempt: an answer whose body is not read yet."""
        try:
            response = self._session.request(
                call.method,
                call.url,
                params=call.params,
                json=call.json,
                data=call.data,
                headers={"x-ms-client-request-id": str(uuid.uuid4()), **call.headers},
                auth=_Bearer(token),
                timeout=(_CONNECT_SECONDS, max(1.0, min(_SILENCE_SECONDS, ends - time.monotonic()))),
                allow_redirects=False,
                stream=True,
            )
        except (requests.exceptions.RequestException, OSError) as error:
            raise unanswered(call.route, error) from None  # its text has the whole address, signature included
        if response.status_code < 400 or response.status_code in accept:
            return response
        raise refusal(call.route, _read(response, call, ends))

    def _tell_once(self, problem: ServiceError, pause: float) -> None:
        if problem.route not in self._told:
            self._told.add(problem.route)
            self._tell(f"{problem.what} ({problem.route}); trying again in {max(pause, 1):.0f} s")


@dataclass
class _Call:
    """One request, whatever the number of its attempts."""

    method: str
    url: str
    params: dict[str, Any]
    json: Any
    data: bytes | str | None
    headers: dict[str, str]

    @property
    def route(self) -> str:
        return route_of(self.method, self.url)


class _AtOnce(HTTPAdapter):
    """Sends all of a request at once.

    Behind a proxy, urllib3 leaves it to the system to hold a body back until the header has been acknowledged (Nagle's
    algorithm), which doubles how long a small request takes.
    """

    _OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """See ``HTTPAdapter``."""
        super().init_poolmanager(*arguments, **{**options, "socket_options": list(self._OPTIONS)})

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """See ``HTTPAdapter``."""
        return super().proxy_manager_for(proxy, **{**options, "socket_options": list(self._OPTIONS)})


class _Bearer(requests.auth.AuthBase):
    """Keeps requests from taking a password for the host out of ``.netrc`` instead."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _read(response: requests.Response, call: _Call, ends: float) -> requests.Response:
    """Read an answer's body until ``ends``: one byte a minute is no answer.

    Raises:
        ServiceError: It did not come whole, or not in time.
    """
    pieces = []
    try:
        with response:
            for piece in response.iter_content(_CHUNK):
                pieces.append(piece)
                if time.monotonic() > ends:
                    raise requests.exceptions.ReadTimeout("the answer did not end in time")
    except (requests.exceptions.RequestException, OSError) as error:
        raise unanswered(call.route, error) from None  # its text has the whole address, signature included
    response._content = b"".join(pieces)
    return response


def _pause(attempt: int, asked: float | None) -> float:
    """Seconds before the next attempt: what the service asks for, else twice as long each time, never in step."""
    wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (attempt - 1)) if asked is None else min(asked, RETRY_AFTER_AT_MOST)
    return wait + random.uniform(0, wait / 4 + 0.1)  # noqa: S311 - spreads the clients, guards nothing
