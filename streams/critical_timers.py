"""Critical results in time: shell of `streams.critical`.

Nothing is kept here but what was told last: the rows are the timers, so a worker that takes a partition over goes on
where the last one was. One that lags may pass on what was just read back: the projection then knows better.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from infra import clock, faults, telemetry
from infra.ports import Select, Tables
from schemas.errors import Transient
from streams.critical import TABLE, escalations
from streams.timers import Publish

log = telemetry.logger(__name__)

LOOK_S = 2.0
TOLD_MAX = 10_000

ESCALATED = telemetry.Counter("sijil_criticals_escalated", "Critical results that went to the next contact")


class CriticalTimers:
    """The critical results of the assigned partitions of reports. Used from one event loop."""

    def __init__(self, tables: Tables, publish: Publish) -> None:
        self._tables, self._publish = tables, publish
        self._partitions: set[int] = set()
        self._told: dict[str, None] = {}
        """Ids of events that are published, but perhaps not projected yet."""

    def assigned(self, partitions: Collection[int]) -> None:
        """These are ours, and no others."""
        self._partitions = set(partitions)

    def revoked(self, partitions: Collection[int]) -> None:
        """These are ours no more."""
        self._partitions -= set(partitions)

    async def tick(self) -> int:
        """Look once; how many went to the next contact. Raises Transient."""
        queries = [Select(TABLE, {"reports_partition": p}) for p in sorted(self._partitions)]
        answers = await self._tables.select_many(queries) if queries else []
        now = clock.now()
        emits = [e for rows in answers for e in escalations(rows, now) if e.id not in self._told]
        if not emits:
            return 0
        await self._publish(emits)
        faults.point("critical.published")
        self._told |= dict.fromkeys(e.id for e in emits)
        while len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]
        ESCALATED.inc(len(emits))
        return len(emits)

    async def run(self) -> None:
        """Look until cancelled. What is away is looked for again: the rows stay."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.tick()
            except Transient as error:
                log.warning("critical results are looked at again", reason=type(error).__name__)
