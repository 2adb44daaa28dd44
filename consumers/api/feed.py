"""Reads the change feed from the log. What several readers ask for at the same place is read once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from consumers.api.changes import TOPICS, Change, Cursor, Read, Seen, merged
from infra import clock
from infra.ports import Log, Stored
from schemas.envelope import decode
from schemas.errors import Invalid

ENDS_S = 0.3
"""How old the ends of the log may be that readers at the head compare with."""
READ_AT_LEAST = 16
"""Records of a partition that are read at once, at least."""
PAGES_MAX = 64

Ends = Mapping[str, Mapping[int, int]]


@dataclass(frozen=True)
class Page:
    """Changes in order, where to go on, and whether there is more already."""

    changes: list[Change]
    next: Cursor
    more: bool


class Feed:
    """The change feed of one process."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._ends: Ends = {}
        self._asked = 0.0
        self._asking: asyncio.Task[Ends] | None = None
        self._pages: OrderedDict[tuple[str, int], Page] = OrderedDict()
        self._reading: dict[tuple[str, int], asyncio.Task[Page]] = {}

    async def head(self) -> Cursor:
        """Behind everything that is in the log now. Raises Transient."""
        return Cursor(await self._ask())

    async def page(self, cursor: Cursor, limit: int) -> Page:
        """What follows a cursor. Raises Transient, Invalid(`cursor`) for one beyond the log."""
        key = (cursor.encode(), limit)
        known = self._pages.get(key)
        if known is not None:
            return known
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(self._page(cursor, limit))
            task.add_done_callback(lambda _: self._reading.pop(key, None))
        page = await asyncio.shield(task)
        if page.more or len(page.changes) == limit:  # it is full: the same for ever
            self._pages[key] = page
            if len(self._pages) > PAGES_MAX:
                self._pages.popitem(last=False)
        return page

    async def moved(self, cursor: Cursor) -> bool:
        """Whether there is something behind a cursor, by what was known of the log a moment ago."""
        if clock.monotonic() - self._asked > ENDS_S:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask())
            await asyncio.shield(self._asking)
        return _behind(cursor, self._ends)

    async def _ask(self) -> Ends:
        asked = clock.monotonic()
        ends = await asyncio.to_thread(lambda: {t: self._log.ends(t) for t in TOPICS})
        self._ends, self._asked = ends, asked
        return ends

    async def _page(self, cursor: Cursor, limit: int) -> Page:
        ends = await self._ask()
        if any(cursor.of(t, p) > end for t, of in ends.items() for p, end in of.items()):
            raise Invalid("cursor", "this cursor is of another log")
        changes: list[Change] = []
        while len(changes) < limit and _behind(cursor, ends):
            wanted = limit - len(changes)
            waiting = sum(cursor.of(t, p) < end for t, of in ends.items() for p, end in of.items())
            size = max(READ_AT_LEAST, 2 * wanted // waiting)
            topics = (asyncio.to_thread(self._read, cursor, topic, of, size) for topic, of in ends.items())
            reads = [read for of_topic in await asyncio.gather(*topics) for read in of_topic]
            found, cursor = merged(cursor, reads, wanted)
            changes += found
        return Page(changes, cursor, _behind(cursor, ends))

    def _read(self, cursor: Cursor, topic: str, ends: Mapping[int, int], size: int) -> list[Read]:
        """At most `size` records of each partition of a topic."""
        start = {p: cursor.of(topic, p) for p, end in ends.items() if cursor.of(topic, p) < end}
        if not start:
            return []
        stop = {p: min(ends[p], at + size) for p, at in start.items()}
        records: dict[int, list[Seen]] = {p: [] for p in start}
        for stored in self._log.read(topic, start, stop):
            records[stored.position.partition].append(_seen(stored))
        return [Read(records[p], stop[p] == ends[p]) for p in start]


def _behind(cursor: Cursor, ends: Ends) -> bool:
    return any(cursor.of(t, p) < end for t, of in ends.items() for p, end in of.items())


def _seen(stored: Stored) -> Seen:
    place = stored.position
    try:
        event = decode(place.topic, stored.key, stored.headers, stored.value).event
    except Invalid:
        event = None  # the projectors put it with the dead letters
    return Seen(place.topic, place.partition, place.offset, stored.timestamp_ms, event)
