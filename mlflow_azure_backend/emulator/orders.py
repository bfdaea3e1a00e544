"""What a test orders to happen to a job, whether it is there yet or not; kept until the emulator ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Held(NamedTuple):
    """A log that its blob has not got all of."""

    file: Path
    blob: str
    offset: int
    """Bytes that the blob has."""


@dataclass
class Orders:
    """What is ordered for one job.

    Attributes:
        preempted: Set when its nodes are to be taken away, once.
        status: Shown in place of its status; None: the true one.
        late_logs: Nothing that it writes from now on is in its logs until it is over; half of it is then, and the rest
            so many seconds later. None: logs appear while it runs.
        vanished: Whether nobody is to find it any more.
        held: What ``late_logs`` kept back.
    """

    preempted: asyncio.Event = field(default_factory=asyncio.Event)
    status: str | None = None
    late_logs: float | None = None
    vanished: bool = False
    held: list[Held] = field(default_factory=list)
