"""What was asked of the emulator and what it answered: for tests that count requests, and to write exchanges down."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import web

_KEPT = 10_000
_TOLD = ("Location", "Azure-AsyncOperation", "Retry-After", "WWW-Authenticate")


@dataclass(frozen=True)
class Exchange:
    """One request and its answer.

    Attributes:
        operation: Its name in docs/emulator_coverage.md; empty: it is not emulated.
        method: In capitals.
        host: As the client named it.
        path: Without the query, decoded.
        query: As it was sent; signatures are in it.
        status: Of the answer; 499: a fault left the client without one.
        headers: Of the answer, those that clients act upon.
        sent: The JSON that was sent; None: no JSON, or bodies are not kept.
        answered: The JSON that was answered; None: no JSON, or bodies are not kept.
    """

    operation: str
    method: str
    host: str
    path: str
    query: str
    status: int
    headers: dict[str, str]
    sent: Any = None
    answered: Any = None


@dataclass
class Exchanges:
    """The last exchanges, the oldest first.

    Attributes:
        bodies: Whether bodies are kept from now on.
    """

    bodies: bool = False
    _kept: deque[Exchange] = field(default_factory=lambda: deque(maxlen=_KEPT))

    async def keep(self, operation: str, request: web.BaseRequest, answer: web.StreamResponse) -> None:
        """Keep one; the answer may have been sent by now."""
        sent = answered = None
        if self.bodies:
            if request.content_type == "application/json":
                sent = _json(await request.read())
            if isinstance(answer, web.Response) and answer.content_type == "application/json":
                answered = _json(answer.body)
        asked = (request.method, request.host, request.path, request.rel_url.raw_query_string)
        headers = {name: answer.headers[name] for name in _TOLD if name in answer.headers}
        self._kept.append(Exchange(operation, *asked, answer.status, headers, sent, answered))

    def all(self) -> list[dict[str, Any]]:
        """All that are kept, as JSON."""
        return [asdict(one) for one in self._kept]

    def forget(self) -> None:
        """Keep none of those until now."""
        self._kept.clear()


def _json(body: Any) -> Any:
    try:
        return json.loads(body) if isinstance(body, bytes) and body else None
    except ValueError:
        return None
