"""How far a transfer is, shown as MLflow shows it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

_SWITCH = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
"""MLflow's own, by its name: older versions have no constant of it."""
_MANY_BYTES = 8 * 1024 * 1024
_MANY_PIECES = 100
"""What moves more than either takes a while."""


class Progress:
    """MLflow's progress bar in bytes, where MLflow may show one; only of what takes a while.

    Args:
        what: In words.
        total: Bytes; None: not known.
    """

    def __init__(self, what: str, total: int | None) -> None:
        self._bar: Any = None
        self._make = partial(_bar, desc=what, total=total, unit="iB", unit_scale=True, unit_divisor=1024, miniters=1)
        self._moved = self._pieces = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Callable[[int], None]:
        return self._update

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _update(self, size: int) -> None:
        with self._lock:
            self._moved, self._pieces = self._moved + size, self._pieces + 1
            if self._bar is not None:
                self._bar.update(size)
            elif self._moved > _MANY_BYTES or self._pieces > _MANY_PIECES:
                self._bar = self._make(initial=self._moved)


def _bar(**options: Any) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:  # MLflow shows none either then
        return None
    return tqdm(disable=os.environ.get(_SWITCH, "true").lower() not in ("true", "1"), **options)
