"""Reading lists of studies in order: partitions by pages, several merged, group after group.

A page continues from the key of its last row, so a walk holds no cursor in the server and any partition may be long.
Rows come in chunks, in the clustering order of their table: the latest first, then by UID.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace

from infra import clock
from infra.ports import Row, Select, Tables
from schemas.tables import BY_NAME

FIRST_PAGE = 64
NEXT_PAGE = 512
PARTITIONS_AHEAD = 6
"""Partitions read ahead at once where nobody knows how much they hold; doubled while nothing fills the page."""
PARTITIONS_AHEAD_MAX = 128


class Deadline:
    """When a walk stops with what it has; `passed` tells that it did."""

    def __init__(self, seconds: float) -> None:
        self._at = clock.monotonic() + seconds
        self.passed = False

    def over(self) -> bool:
        """Whether it is time to stop."""
        self.passed = self.passed or clock.monotonic() > self._at
        return self.passed


class Partition:
    """One partition of a list, read by pages."""

    def __init__(self, select: Select, page: int = FIRST_PAGE) -> None:
        table = BY_NAME[select.table]
        self._base = select
        self._key = tuple(c for c in table.clustering if c not in select.where)
        self.first = self._key[0]
        self.second = self._key[1] if len(self._key) > 1 else ""
        self.descending = self.first in table.descending
        self.next: tuple[Select, ...] = (replace(select, limit=page),)
        """The reads of the next page; none when all is read."""
        self.rows: list[Row] = []

    def accept(self, answers: Sequence[Sequence[Row]]) -> None:
        """The answers to `next`."""
        read = self.next
        self.next = ()
        for select, rows in zip(read, answers, strict=True):
            self.rows.extend(rows)
            if len(rows) == select.limit:
                # What another answer says of what lies behind this page is read again: there is more in between.
                self.next = self._behind(rows[-1])
                return

    def _behind(self, last: Row) -> tuple[Select, ...]:
        """The rest of a row's first key, if the key goes on, and what lies beyond."""
        first, after = self.first, last[self.first]
        if self.descending:
            beyond = replace(self._base, limit=NEXT_PAGE, upper=(first, after))
        else:
            beyond = replace(self._base, limit=NEXT_PAGE, lower=(first, _next_of(after)))
        if not self.second:
            return (beyond,)
        where = {**self._base.where, first: after}
        rest = replace(
            self._base,
            where=where,
            limit=NEXT_PAGE,
            lower=(self.second, _next_of(last[self.second])),
            upper=None,
        )
        return rest, beyond


def _next_of(value: str | int) -> str | int:
    """The least value above one of a clustering column."""
    return value + "\0" if isinstance(value, str) else value + 1


class Reader:
    """Reads of one walk, counted."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.reads = 0
        self.rows = 0

    async def select_many(self, selects: Sequence[Select]) -> list[list[Row]]:
        """As Tables."""
        if not selects:
            return []
        answers = await self._tables.select_many(selects)
        self.reads += len(selects)
        self.rows += sum(map(len, answers))
        return answers

    async def select(self, select: Select) -> list[Row]:
        """As Tables."""
        return (await self.select_many((select,)))[0]

    async def fill(self, partitions: Iterable[Partition]) -> None:
        """Read the next page of all that have no rows, at once."""
        waiting = [p for p in partitions if not p.rows and p.next]
        answers = await self.select_many([s for p in waiting for s in p.next])
        at = 0
        for partition in waiting:
            count = len(partition.next)
            partition.accept(answers[at : at + count])
            at += count


async def merged(reader: Reader, partitions: Sequence[Partition], deadline: Deadline) -> AsyncIterator[list[Row]]:
    """Chunks of rows of several partitions of one table in their common order."""
    left = list(partitions)
    while left and not deadline.over():
        await reader.fill(left)
        left = [p for p in left if p.rows or p.next]
        if not left:
            return
        if any(not p.rows for p in left):
            continue
        yield _taken(left)


def _taken(partitions: Sequence[Partition]) -> list[Row]:
    """The rows that nothing unread can come before."""
    one = partitions[0]
    first, second, descending = one.first, one.second, one.descending
    if len(partitions) == 1:
        rows, one.rows = one.rows, []
        return rows

    def sort(rows: list[Row]) -> None:
        if second:
            rows.sort(key=lambda r: r[second])
        rows.sort(key=lambda r: r[first], reverse=descending)

    bounds = [p.rows[-1] for p in partitions if p.next]
    sort(bounds)
    taken: list[Row] = []
    for partition in partitions:
        count = _up_to(partition.rows, bounds[0], partition) if bounds else len(partition.rows)
        taken += partition.rows[:count]
        del partition.rows[:count]
    sort(taken)
    return taken


def _up_to(rows: Sequence[Row], bound: Row, of: Partition) -> int:
    """How many of `rows` do not come behind `bound`."""
    first, second = of.first, of.second
    for n, row in enumerate(rows):
        if row[first] != bound[first]:
            behind = (row[first] < bound[first]) if of.descending else (row[first] > bound[first])
        else:
            behind = bool(second) and row[second] > bound[second]
        if behind:
            return n
    return len(rows)


@dataclass
class Group:
    """Partitions that are merged, all of them before the next group. `expected`: rows, where somebody knows."""

    partitions: list[Partition]
    expected: int = 0


async def walked(
    reader: Reader, groups: AsyncIterator[Group], deadline: Deadline, wanted: int
) -> AsyncIterator[list[Row]]:
    """Chunks of group after group; ever more are read ahead while the caller wants more than `wanted` rows."""
    rows_ahead, partitions_ahead = wanted, PARTITIONS_AHEAD
    ended = False
    while not ended and not deadline.over():
        batch: list[Group] = []
        expected = unknown = 0
        while expected < rows_ahead and unknown < partitions_ahead:
            group = await anext(groups, None)
            if group is None:
                ended = True
                break
            batch.append(group)
            expected += group.expected
            unknown += 0 if group.expected else len(group.partitions)
            if sum(len(g.partitions) for g in batch) >= PARTITIONS_AHEAD_MAX:
                break
        await reader.fill([p for group in batch for p in group.partitions])
        for group in batch:
            async for chunk in merged(reader, group.partitions, deadline):
                yield chunk
        rows_ahead = min(2 * rows_ahead, 8192)
        partitions_ahead = min(2 * partitions_ahead, PARTITIONS_AHEAD_MAX)
