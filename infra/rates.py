"""How often somebody may ask: a bucket of requests for each, refilled at a steady rate. Pure: the time is an argument.

A bucket holds BURST_S seconds' worth, so that a viewer that opens a study, or a van that comes home, is not slowed down
at once. Memory is bounded: of more than BUCKETS_MAX askers the one longest unseen is forgotten, who by then has a full
bucket again, unless thousands ask at the same time.
"""

from __future__ import annotations

from collections import OrderedDict

BURST_S = 10.0
BUCKETS_MAX = 20_000


class Buckets:
    """Buckets of one rate (requests per second; 0: no limit), one for each key."""

    def __init__(self, rate: float, *, buckets_max: int = BUCKETS_MAX) -> None:
        self._rate, self._most = rate, max(1.0, rate * BURST_S)
        self._buckets_max = buckets_max
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Key → what was left, and when; the longest unseen first."""

    def __len__(self) -> int:
        return len(self._left)

    def take(self, key: str, now_s: float) -> float:
        """Seconds until `key` may ask again; 0.0: it may ask now, and has."""
        if not self._rate:
            return 0.0
        left, at = self._left.pop(key, (self._most, now_s))
        left = min(self._most, left + (now_s - at) * self._rate)
        wait = 0.0 if left >= 1.0 else (1.0 - left) / self._rate
        self._left[key] = (left if wait else left - 1.0, now_s)
        if len(self._left) > self._buckets_max:
            self._left.popitem(last=False)
        return wait
