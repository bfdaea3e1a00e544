"""Bearer tokens: where they come from, and that they are new enough."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

_EARLY_SECONDS = 300.0
"""A token is renewed this long before its end: a request may take as long."""


class NoToken(Exception):
    """No token can be had; one line that says why and what to do."""


class TokenSource(ABC):
    """Gives tokens for the requests to one service. One instance may be used from several threads."""

    @abstractmethod
    def token(self, *, refused: str | None = None) -> str:
        """A token that is good now.

        Args:
            refused: A token that the service has just refused: another one is wanted.

        Raises:
            NoToken: There is none.
        """


class RenewedToken(TokenSource):
    """A token that is kept until shortly before its end.

    Args:
        fetch: Gets a token and when it ends, in seconds of ``time.time``; raises ``NoToken``.
    """

    def __init__(self, fetch: Callable[[], tuple[str, float]]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._text: str | None = None
        self._ends = 0.0

    def token(self, *, refused: str | None = None) -> str:
        """A token that is good now; fetched by one thread while the others wait for it.

        Raises:
            NoToken: There is none.
        """
        with self._lock:
            if self._text is None or self._text == refused or time.time() > self.renewed_at:
                self._text, self._ends = self._renewed(refused)
            return self._text

    @property
    def renewed_at(self) -> float:
        """From when on it is renewed, in seconds of ``time.time``."""
        return self._ends - _EARLY_SECONDS

    def _renewed(self, refused: str | None) -> tuple[str, float]:
        try:
            return self._fetch()
        except NoToken:
            if self._text is None or self._text == refused or time.time() >= self._ends:
                raise
            return self._text, self._ends  # not renewed early, but still good
