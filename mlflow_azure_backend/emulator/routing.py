"""Which operation a request asks for: hosts, methods and path templates, declared by the services.

One file in ``services/`` is one service. It declares its operations with what is known of them, and that declaration is
also what ``docs/emulator_coverage.md`` is generated from.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote

if TYPE_CHECKING:
    from aiohttp import web

    from mlflow_azure_backend.emulator.call import Answer, Call
    from mlflow_azure_backend.emulator.shapes import Shape

ARM = "management.azure.com"
LOGIN = "login.microsoftonline.com"
DATA_PLANE = "*.api.azureml.ms"
STUDIO = "ml.azure.com"
BLOB = "*.blob.core.windows.net"
CONTROL = "emulator.test"
"""The emulator's own host, reached through its proxy like the others: scripted faults, the clock, preemptions."""
HOSTS = (ARM, LOGIN, DATA_PLANE, STUDIO, BLOB, CONTROL)

PROVIDER = "Microsoft.MachineLearningServices"
"""The resource provider's namespace."""
WORKSPACE = f"/subscriptions/{{subscription}}/resourceGroups/{{group}}/providers/{PROVIDER}/workspaces/{{workspace}}"

AUDIENCE_ARM = "https://management.azure.com"
AUDIENCE_ML = "https://ml.azure.com"
AUDIENCE_STORAGE = "https://storage.azure.com"
AUDIENCE_RUN = "azureml-run"
"""What the token of a run (``AZUREML_RUN_TOKEN``) is made out to; ours alone, for clients take it as an opaque text."""


class Known(enum.Enum):
    """How well the behaviour of an operation is known."""

    RECORDED = "recorded"
    """Traffic of the real service was read."""
    SPECIFIED = "specified"
    """Microsoft published a specification or a client that says so."""
    INFERRED = "inferred"
    """Neither; it is what would be consistent."""
    OURS = "the emulator's own"
    """The real service has no such operation."""


Handler: TypeAlias = "Callable[[Call], Awaitable[Answer | web.StreamResponse]]"


@dataclass(frozen=True)
class Operation:
    """One thing that a service can be asked.

    Attributes:
        name: The name in the published specification, like ``Jobs_Get``, or ours in the same style.
        host: One of ``HOSTS``.
        method: In capitals; ``*`` for any.
        template: The path; ``{name}`` stands for one segment, a last ``{name*}`` for all that follow.
        api_versions: Values of ``api-version`` that are taken; None: the operation has no versions.
        known: How well its behaviour is known.
        source: Where from, for the coverage table.
        risk: What of it is inferred all the same, and what a client must therefore not rely on; empty: nothing.
        audiences: Whom a bearer token may be made out to; empty: no token is asked for.
        raw: The body is not JSON, and is left for the handler to read.
        body: What the JSON body may hold; None: that is the handler's to say.
        handle: What answers.
    """

    name: str
    host: str
    method: str
    template: str
    api_versions: frozenset[str] | None
    known: Known
    source: str
    risk: str
    audiences: tuple[str, ...]
    raw: bool
    body: Shape | None
    handle: Handler


class Service:
    """The operations of one service; a module of ``services/`` has one, called ``service``."""

    def __init__(
        self,
        title: str,
        *,
        host: str,
        prefix: str = "",
        audiences: tuple[str, ...] = (),
        api_versions: Iterable[str] | None = None,
    ) -> None:
        self.title = title
        self.operations: list[Operation] = []
        self._host = host
        self._prefix = prefix
        self._audiences = audiences
        self._api_versions = None if api_versions is None else frozenset(api_versions)

    def operation(
        self,
        name: str,
        method: str,
        path: str,
        *,
        known: Known,
        source: str,
        risk: str = "",
        raw: bool = False,
        body: Shape | None = None,
        audiences: tuple[str, ...] | None = None,
    ) -> Callable[[Handler], Handler]:
        """Declare the decorated coroutine function as what answers ``method`` on ``path``; see `Operation`."""

        def declare(handle: Handler) -> Handler:
            self.operations.append(
                Operation(
                    name=name,
                    host=self._host,
                    method=method,
                    template=self._prefix + path,
                    api_versions=self._api_versions,
                    known=known,
                    source=source,
                    risk=risk,
                    audiences=self._audiences if audiences is None else audiences,
                    raw=raw,
                    body=body,
                    handle=handle,
                )
            )
            return handle

        return declare


def host_pattern(host: str) -> str | None:
    """Which of ``HOSTS`` a host name belongs to; None: not one that is emulated."""
    name = host.lower().rstrip(".")
    for pattern in HOSTS:
        if name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:])):
            return pattern
    return None


@dataclass
class _Node:
    literal: dict[str, _Node] = field(default_factory=dict)
    any_segment: _Node | None = None
    operations: dict[str, Operation] = field(default_factory=dict)
    tails: dict[str, Operation] = field(default_factory=dict)


class Router:
    """Finds the operation; fixed segments are compared without regard to case, as Azure's front ends do."""

    def __init__(self, services: Iterable[Service]) -> None:
        self.services = tuple(services)
        self._roots: dict[str, _Node] = {}
        for service in self.services:
            for operation in service.operations:
                self._add(operation)

    def find(self, pattern: str, method: str, raw_path: str) -> tuple[Operation, dict[str, str]] | None:
        """The operation and the values of its template; None: nobody declared it.

        Args:
            pattern: What `host_pattern` said.
            method: In capitals.
            raw_path: As it was sent, without the query; values are unquoted.
        """
        root = self._roots.get(pattern)
        if root is None:
            return None
        segments = raw_path.strip("/").split("/")
        for operation, values in _walk(root, segments, method):
            names = [part[1:-1].rstrip("*") for part in operation.template.split("/") if part.startswith("{")]
            return operation, dict(zip(names, (unquote(value) for value in values), strict=True))
        return None

    def _add(self, operation: Operation) -> None:
        node = self._roots.setdefault(operation.host, _Node())
        slots = node.operations
        for part in operation.template.strip("/").split("/"):
            if part.startswith("{") and part.endswith("*}"):
                slots = node.tails
                break
            if part.startswith("{"):
                node.any_segment = node = node.any_segment or _Node()
            else:
                node = node.literal.setdefault(part.lower(), _Node())
            slots = node.operations
        if operation.method in slots:
            raise ValueError(f"{operation.name} and {slots[operation.method].name} are declared for the same request")
        slots[operation.method] = operation


def _walk(node: _Node, segments: list[str], method: str) -> Iterator[tuple[Operation, list[str]]]:
    """What matches, the most literal first."""
    if not segments:
        operation = node.operations.get(method) or node.operations.get("*")
        if operation is not None:
            yield operation, []
    else:
        child = node.literal.get(segments[0].lower())
        if child is not None:
            yield from _walk(child, segments[1:], method)
        if node.any_segment is not None and segments[0]:
            for operation, values in _walk(node.any_segment, segments[1:], method):
                yield operation, [segments[0], *values]
    tail = node.tails.get(method) or node.tails.get("*")
    if tail is not None:
        yield tail, ["/".join(segments)]
