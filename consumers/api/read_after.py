"""Read your writes: a read that presents a store's token waits until the read models have what was stored.

A pack is there when its row is, and the projection of its partition has passed its record: rows of one event are
written side by side, its position after all of them. The wait is bounded; then the answer is 503 with Retry-After,
never a stale one that looks like the truth.
"""

from __future__ import annotations

import asyncio

from prometheus_client import Histogram

from consumers.api import queries
from consumers.api.freshness import PROJECTION
from consumers.api.views import Views
from infra import clock
from schemas.errors import Overloaded
from schemas.read_token import decode

LOOK_S = 0.05
RETRY_AFTER_S = 2.0
ARRIVALS = "sijil.study.arrivals"

SECONDS = Histogram(
    "sijil_read_token_seconds",
    "Waited for what a token names",
    buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
)


class ReadAfter:
    """Waits for tokens."""

    def __init__(self, views: Views, wait_s: float) -> None:
        self._views, self._wait_s = views, wait_s

    async def wait(self, token: str) -> None:
        """Raises Invalid(`read-token`), Overloaded when the time is over, Transient."""
        packs = decode(token)
        started = clock.monotonic()
        while missing := await self._missing(packs):
            if clock.monotonic() - started > self._wait_s:
                raise Overloaded("what was stored is not searchable yet", RETRY_AFTER_S)
            packs = missing
            await asyncio.sleep(LOOK_S)
        SECONDS.observe(clock.monotonic() - started)

    async def _missing(self, packs: tuple[str, ...]) -> tuple[str, ...]:
        tables = self._views.tables
        found = await tables.select_many([queries.pack(p) for p in packs])
        rows = {p: r[0] for p, r in zip(packs, found, strict=True) if r and r[0]["record_offset"] is not None}
        if not rows:
            return packs
        studies = list(dict.fromkeys(r["study_uid"] for r in rows.values()))
        places = await tables.select_many([queries.study_place(s) for s in studies])
        partition = {s: r[0]["arrivals_partition"] for s, r in zip(studies, places, strict=True) if r}
        positions = {
            r["partition"]: r["next_offset"]
            for r in await tables.select(queries.positions(PROJECTION))
            if r["topic"] == ARRIVALS
        }
        passed = {p for p, r in rows.items() if positions.get(partition.get(r["study_uid"]), 0) > r["record_offset"]}
        return tuple(p for p in packs if p not in passed)
