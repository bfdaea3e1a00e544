"""The nodes of clusters: which jobs have them, which wait for them, and how many stand ready."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from mlflow_azure_backend.emulator.clock import Clock
from mlflow_azure_backend.emulator.durations import duration
from mlflow_azure_backend.emulator.state import State

KIND = "computes"
"""What clusters are kept as in the state, by their name in small letters."""


class Scale(NamedTuple):
    """How a cluster scales."""

    least: int
    most: int
    idle_seconds: float
    """How long nodes stand ready with nothing to do before they are given back, the least apart."""


def scale_of(state: State, name: str) -> Scale:
    """How the cluster of this name scales; one that is not there has no nodes."""
    document = state.get(KIND, name.lower())
    if document is None:
        return Scale(0, 0, 0)
    told = document["resource"]["properties"]["properties"]["scaleSettings"]
    idle = duration(told["nodeIdleTimeBeforeScaleDown"])
    return Scale(told["minNodeCount"], told["maxNodeCount"], 120.0 if idle is None else idle.total_seconds())


@dataclass
class Loan:
    """Nodes that a job has.

    Attributes:
        cold: How many of them have yet to come up.
        lost: Whether they were taken away; then none of them stands ready for the next job.
    """

    cold: int
    lost: bool = False


@dataclass(frozen=True)
class _Request:
    count: int
    scale: Callable[[], Scale]
    granted: asyncio.Future[Loan]


@dataclass
class Cluster:
    """The nodes of one cluster, given in the order in which they were asked for.

    Attributes:
        clock: The service's time.
        busy: Those that jobs have.
        idle: Those that stand ready.
    """

    clock: Clock
    busy: int = 0
    idle: int = 0
    _freed_at: float = 0
    _waiting: list[_Request] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def lend(self, count: int, scale: Callable[[], Scale]) -> AsyncIterator[Loan]:
        """Wait for so many nodes, and have them for the block."""
        asked = _Request(count, scale, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self.look()
        try:
            yield await asked.granted
        finally:
            if asked in self._waiting:
                self._waiting.remove(asked)
            elif not asked.granted.cancelled():
                self.busy -= count
                self.idle += 0 if asked.granted.result().lost else count
                self._freed_at = self.clock.now().timestamp()
            self.look()

    def look(self) -> None:
        """Give nodes to those who wait, as far as there are any: some are free again, or the cluster was scaled."""
        while self._waiting:
            first = self._waiting[0]
            if not first.granted.cancelled():
                scale = first.scale()
                if self.busy + first.count > scale.most:
                    return
                self.settle(scale)
                warm = min(self.idle, first.count)
                self.idle -= warm
                self.busy += first.count
                first.granted.set_result(Loan(cold=first.count - warm))
            self._waiting.pop(0)

    def settle(self, scale: Scale) -> None:
        """Give back the nodes that stood ready for too long or are too many, and have the least there."""
        if self.clock.now().timestamp() - self._freed_at >= scale.idle_seconds:
            self.idle = 0
        self.idle = max(scale.least - self.busy, min(self.idle, scale.most - self.busy), 0)
