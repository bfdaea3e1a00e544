"""The emulator's time: the machine's, shifted by what a test ordered."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone


class Clock:
    """Tells the time of the service, which a scripted skew moves away from the client's."""

    def __init__(self) -> None:
        self.skew = timedelta()

    def now(self) -> datetime:
        """The service's time, in UTC."""
        return datetime.now(timezone.utc) + self.skew
