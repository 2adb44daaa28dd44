"""Reading lists of studies in order: one partition by pages, several shards merged, group after group.

A page continues from the key of its last row, so a walk holds no cursor in the server and any partition may be long.
Rows come in the clustering order of their table: of a day or month, the latest first, then by UID.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace

from infra import clock
from infra.ports import Row, Select, Tables
from schemas.tables import BY_NAME

FIRST_PAGE = 64
"""Rows of a shard's first page: a page of 101 takes about 25 of each of four."""
NEXT_PAGE = 512
AHEAD_MIN, AHEAD_MAX = 8, 128
"""Partitions read ahead at once, of as many days or months; doubled while nothing fills the page."""

_INVERT = bytes(255 - b for b in range(256))


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
        self._descending = self._key[0] in table.descending
        self._next: Select | None = replace(select, limit=page)
        self._after: str | int | None = None
        self.rows: deque[Row] = deque()

    @property
    def next(self) -> Select | None:
        """The page to read before anything can be taken; None when rows are here or all are read."""
        return None if self.rows else self._next

    def accept(self, rows: Sequence[Row]) -> None:
        """The answer to `next`."""
        read = self._next
        if read is None:
            raise ValueError("no page was asked for")
        self.rows.extend(rows)
        first, *rest = self._key
        if len(rows) == read.limit:
            # A full page: the rest of its last row's first key, if the key goes on, then what lies beyond.
            last = rows[-1]
            self._after = last[first]
            if rest:
                where = {**self._base.where, first: last[first]}
                lower = (rest[0], _next_of(last[rest[0]]))
                self._next = replace(self._base, where=where, limit=NEXT_PAGE, lower=lower, upper=None)
                return
        elif len(read.where) == len(self._base.where):
            self._after = None
        self._next = self._beyond()

    def _beyond(self) -> Select | None:
        """What lies beyond the first key of the last full page."""
        if self._after is None:
            return None
        first, after = self._key[0], self._after
        if self._descending:
            return replace(self._base, limit=NEXT_PAGE, upper=(first, after))
        return replace(self._base, limit=NEXT_PAGE, lower=(first, _next_of(after)))

    def order(self) -> tuple[bytes, bytes]:
        """Sort key of the first row."""
        row, (first, *rest) = self.rows[0], self._key
        head = (row[first] or "").encode()
        if self._descending:
            # A prefix sorts behind what it begins, as it should when the order is turned.
            head = head.translate(_INVERT) + b"\xff"
        return head, row[rest[0]].encode() if rest else b""


def _next_of(value: str | int) -> str | int:
    """The least value above one of a clustering column."""
    return value + "\0" if isinstance(value, str) else value + 1


async def listed(tables: Tables, partition: Partition) -> AsyncIterator[Row]:
    """Rows of one partition, page by page."""
    while True:
        await fill(tables, (partition,))
        if not partition.rows:
            if partition.next is None:
                return
            continue
        while partition.rows:
            yield partition.rows.popleft()


async def fill(tables: Tables, partitions: Iterable[Partition]) -> None:
    """Read the next page of all that need one, at once."""
    waiting = [(p, p.next) for p in partitions]
    needed = [(p, s) for p, s in waiting if s is not None]
    if needed:
        answers = await tables.select_many([s for _, s in needed])
        for (partition, _), rows in zip(needed, answers, strict=True):
            partition.accept(rows)


async def merged(tables: Tables, partitions: Sequence[Partition], deadline: Deadline) -> AsyncIterator[Row]:
    """Rows of several partitions in their common order."""
    heap: list[tuple[tuple[bytes, bytes], int]] = []

    async def push(numbers: Iterable[int]) -> None:
        for n in numbers:
            while partitions[n].next is not None:
                await fill(tables, [partitions[n]])
            if partitions[n].rows:
                heapq.heappush(heap, (partitions[n].order(), n))

    await fill(tables, partitions)
    await push(range(len(partitions)))
    while heap and not deadline.over():
        _, n = heapq.heappop(heap)
        yield partitions[n].rows.popleft()
        await push((n,))


async def walked(tables: Tables, groups: AsyncIterator[Sequence[Select]], deadline: Deadline) -> AsyncIterator[Row]:
    """Rows of group after group, each merged; ever more groups are read ahead while the caller wants more."""
    ahead = AHEAD_MIN
    ended = False
    while not ended and not deadline.over():
        batch: list[list[Partition]] = []
        while sum(map(len, batch)) < ahead:
            group = await anext(groups, None)
            if group is None:
                ended = True
                break
            batch.append([Partition(s) for s in group])
        await fill(tables, [p for group in batch for p in group])
        for partitions in batch:
            async for row in merged(tables, partitions, deadline):
                yield row
        ahead = min(2 * ahead, AHEAD_MAX)
