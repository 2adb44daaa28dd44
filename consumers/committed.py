"""What the whole archive has, for the gateways' storage commitments: `infra.committed` on the read models.

A row in the read models comes from an event that Kafka has acknowledged, and that event from a pack that was in S3
before it: what is found here is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from consumers.api import queries
from consumers.api.freshness import PROJECTION
from consumers.api.views import Views
from infra.committed import Mark
from infra.ports import Log, Row
from schemas.errors import Transient

ARRIVALS = "sijil.study.arrivals"
ASKED_AT_ONCE = 500
WAIT_S = 30.0

T = TypeVar("T")
Call = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine where the read models are used, and waits for it."""


class OnLoop:
    """Runs coroutines of threads on the event loop on which it was started."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """From now on, here."""
        self._loop = asyncio.get_running_loop()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the result. Raises what it raises, Transient when it takes too long."""
        if self._loop is None:
            work.close()
            raise Transient("not started yet")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(WAIT_S)
        except FutureTimeout as error:
            future.cancel()
            raise Transient("the answer takes too long") from error


class ReadModels:
    """`CommittedInstances` for threads."""

    def __init__(self, call: Call, views: Views, log: Log) -> None:
        self._call, self._views, self._log = call, views, log

    def mark(self) -> Mark:
        """Where the log ends now."""
        return self._log.ends(ARRIVALS)

    def find(self, sop_uids: Collection[str]) -> Mapping[str, frozenset[str]]:
        """SOP Instance UID → SOP classes of its copies."""
        found: dict[str, frozenset[str]] = {}
        wanted = list(sop_uids)
        for i in range(0, len(wanted), ASKED_AT_ONCE):
            some = wanted[i : i + ASKED_AT_ONCE]
            for uid, rows in zip(some, self._call(self._rows(some)), strict=True):
                if rows:
                    found[uid] = frozenset(r["sop_class"] for r in rows)
        return found

    def has_passed(self, mark: Mark) -> bool:
        """Whether the projection has applied everything before `mark`."""
        applied = self._call(self._applied())
        return all(applied.get(partition, 0) >= end for partition, end in mark.items())

    async def _rows(self, sop_uids: Collection[str]) -> list[list[Row]]:
        return await self._views.tables.select_many([queries.instance_by_uid(u) for u in sop_uids])

    async def _applied(self) -> dict[int, int]:
        rows = await self._views.tables.select(queries.positions(PROJECTION))
        return {r["partition"]: r["next_offset"] for r in rows if r["topic"] == ARRIVALS}
