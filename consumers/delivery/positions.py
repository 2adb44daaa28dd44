"""How far the read models are: what a destination is told is read from them, so they must have passed its event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from infra import clock
from infra.ports import Select, Tables

VIEWS = "views"
KNOWN_S = 0.04


class Positions:
    """Asked by all destinations of a process together."""

    def __init__(self, tables: Callable[[], Tables]) -> None:
        """`tables`: the read models that answer now; another keyspace may be behind the one before."""
        self._tables = tables
        self._keyspace = ""
        self._known: dict[tuple[str, int], int] = {}
        self._asked = float("-inf")
        self._lock = asyncio.Lock()

    async def passed(self, topic: str, partition: int, offset: int) -> bool:
        """Whether everything up to a record is in the read models; an empty topic: of no record. Raises Transient."""
        if not topic:
            return True
        tables = self._tables()
        async with self._lock:
            if tables.keyspace != self._keyspace:
                self._keyspace, self._known, self._asked = tables.keyspace, {}, float("-inf")
            if self._known.get((topic, partition), 0) <= offset and clock.monotonic() - self._asked > KNOWN_S:
                rows = await tables.select(Select("projection_positions", {"projection": VIEWS}))
                self._known = {(r["topic"], r["partition"]): r["next_offset"] or 0 for r in rows}
                self._asked = clock.monotonic()
            return self._known.get((topic, partition), 0) > offset
