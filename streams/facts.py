"""A fact as the projections see it: the event and its place in the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.errors import Invalid
from schemas.events import Event

PARTITIONS_MAX = 1024
"""Of one topic, for a `stamp`; production has 48."""


@dataclass(frozen=True, slots=True)
class Fact:
    """An event read from the log. `offset` is the write timestamp of everything that follows from it."""

    topic: str
    """Full name."""
    partition: int
    offset: int
    log_ms: int
    """LogAppendTime, milliseconds since 1970-01-01T00:00Z."""
    id: str
    """`ce_id`."""
    event: Event

    @property
    def stamp(self) -> int:
        """A write timestamp for rows that keys of several partitions feed: no two facts of a topic have the same, so
        that rows never merge cell by cell.
        """
        return self.offset * PARTITIONS_MAX + self.partition

    @property
    def day(self) -> str:
        """Day of its arrival in the log, YYYYMMDD, UTC."""
        return day_of(self.log_ms)

    @property
    def log_time(self) -> str:
        """Its arrival in the log, RFC 3339, to the millisecond."""
        return rfc3339_of(self.log_ms)


def day_of(milliseconds: int) -> str:
    """YYYYMMDD, UTC."""
    return _moment(milliseconds).strftime("%Y%m%d")


def rfc3339_of(milliseconds: int) -> str:
    """`2025-03-01T08:15:00.123Z`."""
    return _moment(milliseconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds_of(rfc3339: str) -> int:
    """The inverse. Raises Invalid(`time-invalid`) for what only looks like a time (a 30th of February)."""
    try:
        return milliseconds(datetime.fromisoformat(rfc3339))
    except ValueError as e:
        raise Invalid("time-invalid") from e


def milliseconds(moment: datetime) -> int:
    """A moment as milliseconds since the epoch, without a detour over floats."""
    elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (elapsed.days * 86_400 + elapsed.seconds) * 1000 + elapsed.microseconds // 1000


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds // 1000, UTC).replace(microsecond=milliseconds % 1000 * 1000)
