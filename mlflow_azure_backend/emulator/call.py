"""One request on its way through the layers, and what a handler answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

    from mlflow_azure_backend.emulator.routing import Operation
    from mlflow_azure_backend.emulator.world import World


@dataclass(frozen=True)
class Answer:
    """What a handler says; the last layer makes JSON of it.

    Attributes:
        body: JSON, or bytes that are sent as they are, or None for an empty body.
        status: The HTTP status.
        headers: Beyond those that every answer carries.
    """

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A request that was dispatched, authenticated and validated.

    Attributes:
        world: Everything that the emulator has.
        request: aiohttp's, for those who answer it themselves.
        operation: What it asks for.
        path: The values of the path's template.
        query: The query; a name that comes twice has its last value.
        body: The JSON body; None when there is none.
        claims: Of the bearer token; empty when the operation asks for none.
        whole: Whether the answer must be in one piece, for a fault that will spoil it.
    """

    world: World
    request: web.BaseRequest
    operation: Operation
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    claims: Mapping[str, Any]
    whole: bool = False

    @property
    def origin(self) -> str:
        """The scheme and host that were asked, for links in answers."""
        return f"https://{self.request.host}"
