"""Drafts of reports: one row an author and study in `sijil_state`, which neither a reload nor another tab loses.

A save says which save it goes on from. A second tab that goes on from the same one is refused and told of the other, so
that nothing is written over unseen. Saves of one draft are one after the other in a process; of two processes that save
within the same milliseconds the one that finds the other's save afterwards is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from weakref import WeakValueDictionary

from infra import clock
from infra.ports import Row, Select, Tables
from schemas.drafts import Draft, decode_draft, encode_draft
from schemas.errors import Permanent
from schemas.identity import derived_id
from schemas.tables import STATE_KEYSPACE, Delete, Upsert

TABLE = "report_drafts"
MINE_MAX = 500
"""Drafts of an author that are listed."""


class Changed(Permanent):
    """The draft is not at the save that a change goes on from. `save_id`: where it is; empty: there is none."""

    def __init__(self, save_id: str) -> None:
        super().__init__("the draft was saved elsewhere meanwhile")
        self.save_id = save_id


@dataclass(frozen=True)
class Saved:
    """A draft as it is kept."""

    study_uid: str
    save_id: str
    saved: str
    begun: str
    """When its first save was (RFC 3339, UTC)."""
    draft: Draft

    def report_id(self, author: str) -> str:
        """Id of the report it becomes: the same each time, so that a report signed twice is one."""
        return self.draft.report_id or derived_id("report-of-draft", author, self.study_uid, self.begun)


class Drafts:
    """The drafts of all authors."""

    def __init__(self, tables: Callable[[], Tables]) -> None:
        """`tables` raises Transient while Cassandra is away."""
        self._connected = tables
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def read(self, author: str, study_uid: str) -> Saved | None:
        """None if there is none. Raises Transient."""
        rows = await self._state.select(Select(TABLE, {"author": author, "study_uid": study_uid}))
        return _saved(rows[0]) if rows else None

    async def of(self, author: str) -> list[Saved]:
        """All of somebody's, the newest first. Raises Transient."""
        rows = await self._state.select(Select(TABLE, {"author": author}, limit=MINE_MAX))
        return sorted((_saved(r) for r in rows), key=lambda s: s.saved, reverse=True)

    async def save(self, author: str, study_uid: str, draft: Draft, after: str) -> Saved:
        """Keep a text that goes on from the save `after` (empty: it is the first). Raises Changed, Transient."""
        async with self._lock(author, study_uid):
            before = await self.read(author, study_uid)
            if (before.save_id if before else "") != after:
                if before is not None and before.draft == draft:  # sent again: our answer was lost
                    return before
                raise Changed(before.save_id if before else "")
            at = _after(before)
            now = clock.rfc3339(at)
            found = Saved(study_uid, str(clock.uuid7()), now, before.begun if before else now, draft)
            key = {"author": author, "study_uid": study_uid}
            columns = {"save_id": found.save_id, "saved": now, "begun": found.begun, "content": encode_draft(draft)}
            await self._state.apply([Upsert(TABLE, key, columns, _microseconds(at))])
            kept = await self.read(author, study_uid)
            if kept is None or kept.save_id != found.save_id:
                raise Changed(kept.save_id if kept else "")
            return found

    async def drop(self, author: str, study_uid: str, after: str) -> None:
        """Forget a draft that is at the save `after`. One that is not there is forgotten. Raises Changed, Transient."""
        async with self._lock(author, study_uid):
            before = await self.read(author, study_uid)
            if before is None:
                return
            if before.save_id != after:
                raise Changed(before.save_id)
            key = {"author": author, "study_uid": study_uid}
            await self._state.apply([Delete(TABLE, key, _microseconds(_after(before)))])

    def _lock(self, author: str, study_uid: str) -> asyncio.Lock:
        return self._locks.setdefault((author, study_uid), asyncio.Lock())

    @property
    def _state(self) -> Tables:
        return self._connected().with_keyspace(STATE_KEYSPACE)


def _saved(row: Row) -> Saved:
    return Saved(row["study_uid"], row["save_id"], row["saved"], row["begun"], decode_draft(row["content"]))


def _after(before: Saved | None) -> datetime:
    """Now, but behind the save before also where the clock has gone back: Cassandra would keep the older one."""
    now = clock.now()
    return max(now, datetime.fromisoformat(before.saved) + timedelta(microseconds=1)) if before else now


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
