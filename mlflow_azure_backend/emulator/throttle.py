"""Resource Manager's throttling: a bucket of requests for each kind, which fills again by the second.

Numbers and words are those of "Understand how Azure Resource Manager throttles requests" in Microsoft's documentation,
for one principal, subscription and region.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mlflow_azure_backend.emulator.azure_errors import AzureError, arm_error

_RATES = {"read": (250, 25), "write": (200, 10), "delete": (200, 10)}
"""Requests in a burst, and how many more there are each second."""
_KINDS = {"GET": "read", "HEAD": "read", "DELETE": "delete"}


@dataclass
class Throttle:
    """The buckets.

    Attributes:
        clock: Seconds that only go on.
    """

    clock: Callable[[], float] = time.monotonic
    _left: dict[str, float] = field(default_factory=lambda: {kind: float(most) for kind, (most, _) in _RATES.items()})
    _since: dict[str, float] = field(default_factory=dict)

    def take(self, method: str, subscription: str, principal: str) -> tuple[str, str]:
        """Let a request pass; returns the header that says how many more may.

        Raises:
            AzureError: 429, there were too many.
        """
        kind, now = _KINDS.get(method, "write"), self.clock()
        most, each_second = _RATES[kind]
        filled = self._left[kind] + each_second * (now - self._since.get(kind, now))
        self._left[kind], self._since[kind] = min(float(most), filled), now
        if self._left[kind] < 1:
            raise self._refusal(kind, subscription, principal)
        self._left[kind] -= 1
        return f"x-ms-ratelimit-remaining-subscription-{kind}s", str(int(self._left[kind]))

    def _refusal(self, kind: str, subscription: str, principal: str) -> AzureError:
        wait = str(max(1, math.ceil((1 - self._left[kind]) / _RATES[kind][1])))
        words = (
            f"Number of '{kind}' requests for subscription '{subscription}' actor '{principal}' exceeded. Please try "
            f"again after '{wait}' seconds after additional tokens are available. Refer to "
            "https://aka.ms/arm-throttling for additional information."
        )
        return arm_error(429, "SubscriptionRequestsThrottled", words, {"Retry-After": wait})
