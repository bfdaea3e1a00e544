"""Scripted faults: what a test orders to go wrong at a route, before or after the request was carried out."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from mlflow_azure_backend.emulator.routing import BLOB, Operation

CONNECTION = ("unreachable", "bad-certificate")
"""Kinds that strike when a connection to a host is asked for: the proxy cannot reach it, or another answers for it."""
REFUSALS = ("status", "forbidden", "expired-token", "expired-sas")
"""Kinds that answer with an error, in the words of the service that is asked, and keep it from being carried out."""
BEFORE = (*REFUSALS, "reset-before", "hang", "garbage")
"""Kinds that keep the request from being carried out."""
AFTER = ("reset-after", "slow", "truncated", "garbage-after", "hang-after")
"""Kinds that carry the request out and spoil the answer."""
KINDS = (*CONNECTION, *BEFORE, *AFTER, "latency")
"""All kinds; ``latency`` delays a request and lets other faults strike it as well."""


@dataclass
class Fault:
    """One order.

    Attributes:
        kind: One of ``KINDS``.
        method: Of the requests that it strikes; None: any.
        host: A pattern (``*`` and ``?``) for the host; None: any.
        path: A pattern for the path as it was sent; None: any.
        operation: A pattern for the operation's name in docs/emulator_coverage.md; None: any.
        times: How often it strikes; None: until it is taken back.
        after: How many matching requests pass before the first is struck.
        status: The HTTP status of kind ``status``.
        code: The error's code with kind ``status``; None: Azure's usual one for that status.
        retry_after: Seconds for the ``Retry-After`` header of kind ``status``; None: no such header.
        seconds: Of ``latency`` and between the bytes of ``slow``.
        struck: How often it has struck.
        number: What it is taken back by.
    """

    kind: str
    method: str | None = None
    host: str | None = None
    path: str | None = None
    operation: str | None = None
    times: int | None = 1
    after: int = 0
    status: int = 503
    code: str | None = None
    retry_after: float | None = None
    seconds: float = 1.0
    struck: int = 0
    number: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind}: no such kind of fault; there are {', '.join(KINDS)}")

    def strikes(
        self, *, host: str, method: str | None = None, path: str | None = None, operation: str | None = None
    ) -> bool:
        """Whether this request is one of those that are meant, counted; None: what asks has no such thing."""
        if self.method is not None and self.method != method:
            return False
        patterns = ((self.host, host), (self.path, path), (self.operation, operation))
        for want, have in patterns:
            if want is not None and (have is None or not fnmatch.fnmatchcase(have.lower(), want.lower())):
                return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None and self.struck >= self.times:
            return False
        self.struck += 1
        return True

    def can_strike(self, operation: Operation) -> bool:
        """Whether its kind means anything to this operation: what asks for no token knows no expired one."""
        if self.kind == "expired-token":
            return bool(operation.audiences)
        if self.kind == "expired-sas":
            return operation.host == BLOB
        return self.kind not in CONNECTION


@dataclass
class Faults:
    """The orders in force."""

    orders: list[Fault] = field(default_factory=list)
    _last: int = 0

    def order(self, what: dict[str, Any]) -> Fault:
        """Put an order in force.

        Raises:
            ValueError: An unknown field or kind.
        """
        names = {one.name for one in fields(Fault)} - {"struck", "number"}
        unknown = sorted(set(what) - names)
        if unknown or "kind" not in what:
            wrong = f"{unknown[0]}: no such field" if unknown else "kind is missing"
            raise ValueError(f"{wrong}; a fault has {', '.join(sorted(names))}")
        fault = Fault(**what, number=self._last + 1)
        self._last += 1
        self.orders.append(fault)
        return fault

    def clear(self, number: int | None = None) -> None:
        """Take back one order, or all of them."""
        self.orders = [one for one in self.orders if number is not None and one.number != number]

    def striking(self, operation: Operation, *, host: str, method: str, path: str) -> list[Fault]:
        """The orders that strike a request: every ``latency``, and of the others the first that was ordered."""
        return self._first(
            fault
            for fault in self.orders
            if fault.can_strike(operation)
            and fault.strikes(host=host, method=method, path=path, operation=operation.name)
        )

    def connecting(self, host: str) -> str | None:
        """The kind of the order that strikes a connection to a host; None: there is none."""
        for fault in self.orders:
            if fault.kind in CONNECTION and fault.strikes(host=host):
                return fault.kind
        return None

    def _first(self, striking: Iterable[Fault]) -> list[Fault]:
        found: list[Fault] = []
        for fault in striking:
            found.append(fault)
            if fault.kind != "latency":
                break
        return found
