"""Results that wait: for their study to arrive, or for a person to decide. Rows of `sijil_state.results_waiting`.

A row is under `waiting` until its result is filed, dismissed or overtaken; then it is kept under `done-YYYYMM`, with
what became of it. What people decide stands in columns that they alone write.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from infra import clock
from infra.ports import Select, Tables
from schemas.tables import Delete, Upsert

TABLE = "results_waiting"
OPEN = "waiting"
LIMIT = 5000
"""Rows looked at together; what is beyond waits until these are fewer."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A result that waits."""

    waiting_id: str
    received: str
    site: str
    issuer: str = ""
    """Of the patient's numbers; empty: the site."""
    actor: str
    reason: str
    """Of `producers.hl7.matching`."""
    number: str
    accessions: list[str]
    study_uids: list[str]
    status: str
    procedure: str
    patient_numbers: list[str]
    patient_name: str
    birth_date: str
    sex: str
    message_id: str
    message_key: str
    place: int
    """Of the result in its message, from 0."""
    decision: str = ""
    """`file` or `dismiss`, by a person."""
    decided_study: str = ""
    decided_by: str = ""
    decided: str = ""
    decided_reason: str = ""
    outcome: str = ""
    """`filed`, `dismissed`, `overtaken` (a later version was filed first)."""
    report_id: str = ""


_PEOPLES = ("decision", "decided_study", "decided_by", "decided", "decided_reason")


class Queue:
    """The table. Every method raises Transient."""

    def __init__(self, state: Tables) -> None:
        self._state = state

    async def put(self, entry: Waiting) -> None:
        """Let a result wait, or say anew why it does."""
        await self._state.apply([_upsert(OPEN, entry, exclude=_PEOPLES)])

    async def waiting(self) -> list[Waiting]:
        """Those that wait, the oldest first: versions of a report are filed in their order."""
        rows = await self._state.select(Select(TABLE, {"state": OPEN}, limit=LIMIT))
        return sorted((_entry(r) for r in rows), key=lambda e: (e.received, e.place))

    async def get(self, waiting_id: str) -> Waiting | None:
        """One that waits."""
        rows = await self._state.select(Select(TABLE, {"state": OPEN, "waiting_id": waiting_id}))
        return _entry(rows[0]) if rows else None

    async def decide(self, waiting_id: str, *, decision: str, study_uid: str, by: str, reason: str) -> None:
        """What a person decided; done within seconds."""
        columns = {
            "decision": decision,
            "decided_study": study_uid,
            "decided_by": by,
            "decided": clock.rfc3339(clock.now()),
            "decided_reason": reason,
        }
        await self._state.apply([Upsert(TABLE, {"state": OPEN, "waiting_id": waiting_id}, columns, _now())])

    async def done(self, entry: Waiting) -> None:
        """It waits no more."""
        state = f"done-{clock.now():%Y%m}"
        await self._state.apply([_upsert(state, entry)])
        await self._state.apply([Delete(TABLE, {"state": OPEN, "waiting_id": entry.waiting_id}, _now())])

    async def ended(self, month: str) -> list[Waiting]:
        """What became of those of a month (YYYYMM), newest first."""
        rows = await self._state.select(Select(TABLE, {"state": f"done-{month}"}, limit=LIMIT))
        return sorted((_entry(r) for r in rows), key=lambda e: e.received, reverse=True)


def _upsert(state: str, entry: Waiting, exclude: Sequence[str] = ()) -> Upsert:
    columns = msgspec.structs.asdict(entry)
    key = {"state": state, "waiting_id": columns.pop("waiting_id")}
    return Upsert(TABLE, key, {n: v for n, v in columns.items() if n not in exclude}, _now())


def _entry(row: dict[str, object]) -> Waiting:
    return msgspec.convert({n: v for n, v in row.items() if v is not None and n != "state"}, Waiting)


def _now() -> int:
    return clock.now_ms() * 1000
