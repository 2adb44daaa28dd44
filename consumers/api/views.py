"""Which keyspace of read models answers, watched: after a rebuild the API goes over to the new one by itself.

A request keeps the tables it began with; the next one gets the new ones. Statements are prepared on first use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from consumers.api.search import Searcher
from infra import telemetry
from infra.active_views import active_keyspace
from infra.ports import Tables
from schemas.errors import Transient

log = telemetry.logger(__name__)

WATCH_S = 1.0


class Views:
    """The read models that answer now.

    `connect` blocks until it has tables, of whatever keyspace. It is called in the background: with the read models
    away the door opens all the same, for what comes in does not need them.
    """

    def __init__(self, connect: Callable[[], Tables]) -> None:
        self._connect = connect
        self._tables: Tables | None = None
        self._searcher: Searcher | None = None
        self.keyspace = ""
        self.reachable: bool | str = "not asked yet"
        self._task: asyncio.Task[None] | None = None

    @property
    def tables(self) -> Tables:
        """Raises Transient before the first connection."""
        if self._tables is None:
            raise Transient("the read models are not reachable yet")
        return self._tables

    @property
    def searcher(self) -> Searcher:
        """Raises Transient before the first connection."""
        if self._searcher is None:
            raise Transient("the read models are not reachable yet")
        return self._searcher

    async def start(self) -> None:
        """Watch from now on."""
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except Transient as error:
                self.reachable = str(error)
            await asyncio.sleep(WATCH_S)

    async def look(self) -> None:
        """Ask once which keyspace is active. Raises Transient."""
        tables = self._tables
        if tables is None:
            tables = await asyncio.to_thread(self._connect)
        keyspace = await active_keyspace(tables)
        if keyspace != self.keyspace or self._tables is None:
            self._tables = tables.with_keyspace(keyspace)
            self._searcher = Searcher(self._tables)
            self.keyspace = keyspace
            log.info("read models chosen", keyspace=keyspace)
        self.reachable = True
