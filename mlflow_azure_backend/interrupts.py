"""Ctrl-C that cannot get lost.

Python raises ``KeyboardInterrupt`` wherever the main thread happens to be, and drops it when that is a weak reference's
callback or a ``__del__`` (docs.python.org, ``sys.unraisablehook``). MLflow and SQLAlchemy have such, and other people's
code may swallow it, too. So our handler remembers what it raised, and whoever waits for something asks for it.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, TypeAlias

_Handler: TypeAlias = Callable[[int, FrameType | None], Any] | int | None


class _Memory:
    """The last interrupt that was raised in this process's main thread; None when there was none."""

    def __init__(self) -> None:
        self.last: KeyboardInterrupt | None = None

    def interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        self.last = KeyboardInterrupt()
        raise self.last


_memory = _Memory()


def raise_lost() -> None:
    """Raise the last interrupt again, unless somebody is handling it.

    Raises:
        KeyboardInterrupt: Nobody is. Only in the main thread, to which interrupts belong.
    """
    if _memory.last is None or threading.current_thread() is not threading.main_thread():
        return
    handled = sys.exc_info()[1]
    while handled is not None:
        if handled is _memory.last:
            return
        handled = handled.__context__
    raise _memory.last


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """While the block lasts, an interrupt is remembered. A handler that the embedding program has set stays."""
    with _handling({signal.SIGINT: _memory.interrupt}, in_place_of=signal.default_int_handler):
        yield


@contextlib.contextmanager
def command_line_signals() -> Iterator[None]:
    """For a command that watches a job: SIGTERM is Ctrl-C, and a terminal that goes away is no reason to stop.

    A handler that the embedding program has set stays.
    """
    ours: dict[signal.Signals, _Handler] = {signal.SIGTERM: _memory.interrupt, signal.SIGHUP: signal.SIG_IGN}
    with remembered(), _handling(ours, in_place_of=signal.SIG_DFL):
        yield


@contextlib.contextmanager
def _handling(handlers: Mapping[signal.Signals, _Handler], *, in_place_of: _Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in handlers if signal.getsignal(number) == in_place_of]
    for number in taken:
        signal.signal(number, handlers[number])
    before = sys.unraisablehook

    def say_unless_remembered(dropped: sys.UnraisableHookArgs) -> None:
        if dropped.exc_value is None or dropped.exc_value is not _memory.last:
            before(dropped)

    sys.unraisablehook = say_unless_remembered
    try:
        yield
    finally:
        sys.unraisablehook = before
        for number in taken:
            signal.signal(number, in_place_of)
        if taken:
            _memory.last = None
