"""How many studies each day, month and year has (`study_counts`): pure, the rows come in as values.

Cassandra's counters are no idempotent writes, so a row remembers the offset up to which it has counted: a study that
comes again lies at or below it. A row belongs to one partition of study.arrivals, which has one writer at a time and an
order, so the last offset decides and any batches end in the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.tables import EVER, Upsert, Write

TABLE = "study_counts"
COLUMNS = ("studies", "last_offset")

Key = tuple[tuple[str, str | int], ...]
"""(column, value) of within, part and arrivals_partition."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A study that is new: the offset of its first arrival, and the day (YYYYMMDD) that lists have it under."""

    partition: int
    offset: int
    day: str


def tallied(studies: Sequence[Counted]) -> dict[Key, list[int]]:
    """Offsets of the studies that each row has to count, in order."""
    found: dict[Key, list[int]] = {}
    for study in sorted(studies, key=lambda s: s.offset):
        year, month = study.day[:4], study.day[:6]
        for within, part in ((EVER, year), (year, month), (month, study.day)):
            key = (("within", within), ("part", part), ("arrivals_partition", study.partition))
            found.setdefault(key, []).append(study.offset)
    return found


def counted(tallies: Mapping[Key, Sequence[int]], rows: Sequence[Sequence[Mapping[str, Any]]]) -> list[Write]:
    """The rows as they shall be. `rows`: what is there now, in the order of `tallies`."""
    writes: list[Write] = []
    for (key, offsets), found in zip(tallies.items(), rows, strict=True):
        studies, last = (found[0]["studies"], found[0]["last_offset"]) if found else (0, -1)
        new = [o for o in offsets if o > last]
        if new:
            writes.append(Upsert(TABLE, dict(key), {"studies": studies + len(new), "last_offset": new[-1]}, new[-1]))
    return writes
