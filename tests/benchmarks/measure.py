"""Measuring: ours and the peer's by turns, and what may be said of the ratios."""

from __future__ import annotations

import random
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

PAIRS: Final = 9
"""How often each is measured, beside a first time that only warms up."""
FEW: Final = 3
"""The same for what takes half a minute each time."""
MANY: Final = 25
"""The same where the goal is near to what is measured, and each time takes a moment."""
_RESAMPLES: Final = 4000


class Cost(NamedTuple):
    """What one call took, in seconds; ``cpu`` is that of this process and of all children that it waited for."""

    wall: float
    cpu: float


Action = Callable[[], Cost]


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached: at most ``limit`` (or at least), in ``unit``; no unit means a ratio."""

    limit: float
    unit: str = ""
    at_least: bool = False

    def verdict(self, low: float, high: float) -> str:
        """Whether the whole interval is on the right side, on the wrong one, or neither."""
        right = (low >= self.limit, high >= self.limit) if self.at_least else (low <= self.limit, high <= self.limit)
        if all(right):
            return "met"
        return "**not shown**" if any(right) else "**missed**"

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{self.unit and ' '}{self.unit}"


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table.

    Attributes:
        id: Of the goal, in the order of the table.
        ours: What of ours was measured.
        peer: What it was compared to; empty for a plain quantity.
        goal: What is to be reached.
        values: A ratio for each pair, or the quantity itself.
        cpu: The same ratios of CPU time; empty when it was not measured.
        memory: The same ratios of the largest process's peak memory, in MiB where there is no peer; empty when it was not
            measured.
        why: Says what the rest is spent on, measured; asked only when the goal is missed.
    """

    id: str
    ours: str
    peer: str
    goal: Goal
    values: Sequence[float]
    cpu: Sequence[float] = ()
    why: Callable[[], str] | None = field(default=None, repr=False)
    memory: Sequence[float] = ()

    @property
    def interval(self) -> tuple[float, float]:
        """The bootstrap's 95 % interval of the median."""
        return interval_of_median(self.values)

    @property
    def verdict(self) -> str:
        """Whether the goal is reached."""
        return self.goal.verdict(*self.interval)


def timed(call: Callable[[], object]) -> Action:
    """The cost of a call."""

    def action() -> Cost:
        cpu, wall = _cpu_seconds(), time.perf_counter()
        call()
        return Cost(time.perf_counter() - wall, _cpu_seconds() - cpu)

    return action


def by_turns(ours: Action, *peers: Action, pairs: int = PAIRS) -> list[tuple[list[float], list[float]]]:
    """Measure A B A B …, drop the first round, and compare ours to each peer.

    Returns:
        For each peer the ratios of wall time and those of CPU time.
    """
    rounds = [(ours(), *(peer() for peer in peers)) for _ in range(pairs + 1)][1:]
    return [
        (
            [each[0].wall / each[number].wall for each in rounds],
            [each[0].cpu / each[number].cpu for each in rounds if each[number].cpu > 0],
        )
        for number in range(1, len(peers) + 1)
    ]


def seconds(call: Callable[[], object], times: int = 3) -> float:
    """The median wall time of a call, for a sentence that explains."""
    return statistics.median(timed(call)().wall for _ in range(times))


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median, by the bootstrap's percentiles; the same values give the same interval."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return medians[int(0.025 * _RESAMPLES)], medians[int(0.975 * _RESAMPLES) - 1]


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which ``share`` of the values are."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
