"""Lists of accesses by pages: partition after partition, the newest first. A page goes on behind its last row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from infra.ports import Row, Select, Tables
from schemas.errors import Invalid
from schemas.identity import made_ms
from schemas.tables import BY_NAME

AHEAD = 8
"""Partitions read at once."""

_CURSOR = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:~([0-9.]{0,64}))?\Z")


@dataclass(frozen=True)
class Cursor:
    """Behind which row a page begins; `study_uid` where a list has several rows of one access."""

    access_id: str
    study_uid: str = ""

    @classmethod
    def read(cls, text: str) -> Cursor | None:
        """None for an empty one. Raises Invalid(`option-before`)."""
        if not text:
            return None
        found = _CURSOR.match(text)
        if not found:
            raise Invalid("option-before", "before must be what `next` of a page before has")
        return cls(found[1], found[2] or "")

    def __str__(self) -> str:
        return f"{self.access_id}~{self.study_uid}"


@dataclass(frozen=True)
class Page:
    """Rows, and where the next page begins: None behind the last."""

    rows: list[Row]
    next: Cursor | None


async def page(tables: Tables, partitions: Sequence[Sequence[Select]], cursor: Cursor | None, limit: int) -> Page:
    """At most `limit` rows of the partitions, which come newest first, from the cursor on; those that stand together,
    the files of one person in a month, are merged. Raises Transient.
    """
    reads = [[s for p in together for s in _behind(p, cursor)] for together in partitions]
    rows: list[Row] = []
    for at in range(0, len(reads), AHEAD):
        some = reads[at : at + AHEAD]
        answers = iter(await tables.select_many([replace(s, limit=limit + 1 - len(rows)) for r in some for s in r]))
        for together in some:
            rows += _merged([row for _ in together for row in next(answers)])
        if len(rows) > limit:
            del rows[limit:]
            return Page(rows, Cursor(rows[-1]["access_id"], rows[-1]["study_uid"] or ""))
    return Page(rows, None)


def _merged(rows: Iterable[Row]) -> list[Row]:
    """Newest first, of one access by the study; what stands in several files once."""
    once = {(r["access_id"], r["study_uid"] or ""): r for r in rows}
    ordered = sorted(once, key=lambda at: at[1])
    return [once[at] for at in sorted(ordered, key=lambda at: at[0], reverse=True)]


def _behind(partition: Select, cursor: Cursor | None) -> list[Select]:
    """The reads of what a partition has behind the cursor: the rest of its access, and the accesses before it."""
    if cursor is None:
        return [partition]
    bucket = next((partition.where[n] for n in _DIGITS if n in partition.where), None)
    if bucket is not None and (made := made_ms(cursor.access_id)) is not None:
        there = moment(datetime.fromtimestamp(made / 1000, UTC), len(bucket))
        if bucket != there:
            return [partition] if bucket < there else []
    reads = [replace(partition, upper=("access_id", cursor.access_id))]
    if "study_uid" in BY_NAME[partition.table].clustering:
        where = {**partition.where, "access_id": cursor.access_id}
        reads.insert(0, replace(partition, where=where, lower=("study_uid", cursor.study_uid + "\0")))
    return reads


_DIGITS = {"month": 6, "day": 8, "hour": 10}
"""Column → digits of YYYYMMDDHH that it has."""


def moment(when: datetime, digits: int) -> str:
    """The first digits of YYYYMMDDHH."""
    return when.strftime("%Y%m%d%H")[:digits]


def buckets(first: datetime, last: datetime, column: str) -> list[str]:
    """The months, days or hours of a span, both ends in it, newest first. `first` and `last` in UTC."""
    digits = _DIGITS[column]
    found: list[str] = []
    step = timedelta(hours=1) if column == "hour" else timedelta(days=1)
    at = last
    while moment(at, digits) > moment(first, digits):
        if not found or found[-1] != moment(at, digits):
            found.append(moment(at, digits))
        at -= step
    return [*found, moment(first, digits)] if moment(first, digits) <= moment(last, digits) else []
