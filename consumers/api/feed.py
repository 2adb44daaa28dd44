"""Reads the change feed from the log. What several readers ask for at the same place is read once.

The log never changes, so it is read in blocks of a partition, and a full block that was read lately is in memory: who
goes through the feed page by page has every record read once, though a page ends somewhere in each partition.
"""

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
BLOCK = 64
"""Records of a partition that are read at once."""
BLOCKS_MAX = 256
"""Full blocks in memory: some 64 KiB each."""
READ_AT_LEAST = 16
"""Records of a partition to look at: where fewer are left in a block, the next one is read with it."""
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
        self._blocks: OrderedDict[tuple[str, int, int], list[Seen]] = OrderedDict()

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
            topics = [self._read(cursor, topic, of) for topic, of in ends.items()]
            reads = [read for of_topic in await asyncio.gather(*topics) for read in of_topic]
            found, cursor = merged(cursor, reads, limit - len(changes))
            changes += found
        return Page(changes, cursor, _behind(cursor, ends))

    async def _read(self, cursor: Cursor, topic: str, ends: Mapping[int, int]) -> list[Read]:
        """What follows a cursor in each partition of a topic, to the end of a block."""
        blocks: dict[tuple[int, int], list[Seen]] = {}
        wanted: dict[int, range] = {}
        start: dict[int, int] = {}
        stop: dict[int, int] = {}
        for p, end in ends.items():
            at = cursor.of(topic, p)
            if at < end:
                wanted[p] = range(at // BLOCK, min(at + READ_AT_LEAST - 1, end - 1) // BLOCK + 1)
                for n in wanted[p]:
                    known = self._blocks.get((topic, p, n))
                    if known is not None and p not in start:
                        blocks[p, n] = known
                    else:  # what follows a missing block is read with it: one range of a partition
                        blocks[p, n] = []
                        start.setdefault(p, n * BLOCK)
                        stop[p] = min((n + 1) * BLOCK, end)
        if start:
            for r in await asyncio.to_thread(lambda: [_seen(stored) for stored in self._log.read(topic, start, stop)]):
                blocks[r.partition, r.offset // BLOCK].append(r)
        for (p, n), block in blocks.items():
            if (n + 1) * BLOCK <= ends[p]:
                self._blocks[topic, p, n] = block
                self._blocks.move_to_end((topic, p, n))
        while len(self._blocks) > BLOCKS_MAX:
            self._blocks.popitem(last=False)
        return [
            Read([r for n in of for r in blocks[p, n] if r.offset >= cursor.of(topic, p)], of.stop * BLOCK >= ends[p])
            for p, of in wanted.items()
        ]


def _behind(cursor: Cursor, ends: Ends) -> bool:
    return any(cursor.of(t, p) < end for t, of in ends.items() for p, end in of.items())


def _seen(stored: Stored) -> Seen:
    place = stored.position
    try:
        event = decode(place.topic, stored.key, stored.headers, stored.value).event
    except Invalid:
        event = None  # the projectors put it with the dead letters
    return Seen(place.topic, place.partition, place.offset, stored.timestamp_ms, event)
