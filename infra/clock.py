"""The clock and the maker of ids: the only ones, so that a test can stand in for them and nothing else asks the time.

Pure modules get times and ids as arguments. Times are data here, never order: the log's offsets decide order.
"""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from uuid import UUID

_LOCK = threading.Lock()
_last = 0  # the newest 60 bits (48 of milliseconds, 12 of counter) that uuid7() has given out


def now() -> datetime:
    """The time now, UTC, with microseconds."""
    return datetime.fromtimestamp(time.time(), UTC)


def now_ms() -> int:
    """Milliseconds since 1970-01-01T00:00Z."""
    return time.time_ns() // 1_000_000


def monotonic() -> float:
    """Seconds on a clock that never goes back: for deadlines and durations."""
    return time.monotonic()


def rfc3339(moment: datetime) -> str:
    """`2025-03-01T08:15:00.123456Z` (RFC 3339, the form of `ce_time`). `moment` must know its zone."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a zone has no place on the log")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def uuid7() -> UUID:
    """A new UUIDv7 (RFC 9562 §5.7), greater than every one this process made before, also when the clock steps back."""
    global _last
    with _LOCK:
        _last = max(now_ms() << 12, _last + 1)
        stamp = _last
    random = int.from_bytes(os.urandom(8)) & ((1 << 62) - 1)
    return UUID(int=(stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62 | random)
