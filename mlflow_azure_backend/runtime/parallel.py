"""Work side by side, in threads that nobody has to wait for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = 16
"""Threads, and so requests at once: enough to hide the network's latency, few enough for the service."""


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], *, workers: int = WORKERS) -> list[Result]:
    """What ``work`` makes of each of ``items``, in their order; several at once.

    The first failure, and Ctrl-C, end it at once: nothing more is begun, and what is in the middle of a request is not
    waited for. (``concurrent.futures`` would wait, also when the interpreter ends.)

    Args:
        work: Called in other threads, so it must not count on any of its own.
        items: Read whole before the first is worked on.
        workers: Threads at most.

    Raises:
        BaseException: The first that ``work`` raised.
    """
    waiting = list(items)
    if len(waiting) < 2:
        return [work(item) for item in waiting]
    numbers = iter(range(len(waiting)))
    taking, stopped = threading.Lock(), threading.Event()
    done: queue.SimpleQueue[tuple[int, Result | None, BaseException | None]] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            with taking:
                number = None if stopped.is_set() else next(numbers, None)
            if number is None:
                return
            try:
                done.put((number, work(waiting[number]), None))
            except BaseException as error:  # raised again where it is waited for
                stopped.set()
                done.put((number, None, error))
                return

    results: dict[int, Result | None] = {}
    try:
        for _ in range(min(workers, len(waiting))):
            threading.Thread(target=serve, daemon=True).start()
        while len(results) < len(waiting):
            number, result, error = done.get()
            if error is not None:
                raise error
            results[number] = result
    finally:
        stopped.set()
    return [results[number] for number in range(len(waiting))]  # type: ignore[misc]  # Result may itself be None
