"""How often one may ask: a bucket of tokens for each identity, or for each address while nobody is known.

In memory only: a restart forgives. Pure but for the clock that it is given.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from .refusal import Refused

_SWEEP_AT: Final = 10_000


class RateLimit:
    """`per_minute` requests for each name, at once or spread; 0 is no limit.

    The bucket refills evenly, so that a client which waits out ``Retry-After`` gets exactly one request through.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = per_minute
        self._rate = per_minute / 60
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> None:
        """Count one request.

        Raises: Refused: 429 with the seconds after which one more is allowed.
        """
        if not self._capacity:
            return
        now = self._clock()
        left, since = self._buckets.get(name, (float(self._capacity), now))
        left = min(float(self._capacity), left + (now - since) * self._rate)
        if left < 1:
            self._buckets[name] = left, now
            wait = max(1, math.ceil((1 - left) / self._rate))
            raise Refused(
                429, f"more than {self._capacity} requests a minute; wait {wait} s", "rate_limited", retry_after=wait
            )
        self._buckets[name] = left - 1, now
        if len(self._buckets) > _SWEEP_AT:
            full_after = self._capacity / self._rate
            self._buckets = {name: pair for name, pair in self._buckets.items() if now - pair[1] < full_after}
