"""Subscriptions in `sijil_state`: what was asked for (written by the door), how far it is (written by the delivery),
and where notifications may go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from consumers.delivery.subscriptions.endpoint import approved
from infra import clock
from infra.ports import Row, Select, Tables
from schemas.tables import Delete, Upsert
from schemas.times import SUBSCRIPTIONS

TABLE, PROGRESS, ENDPOINTS = "subscriptions", "subscription_progress", "subscription_endpoints"
ON, OFF, DELETED = "on", "off", "deleted"
NOT_APPROVED: Final = "endpoint-not-approved"


@dataclass(frozen=True)
class Subscription:
    """As it was asked for."""

    id: str
    version: int
    owner: str
    wanted: str
    topic: str
    endpoint: str
    reason: str
    sealed: str
    heartbeat_s: int
    timeout_s: int
    ends: datetime | None
    since: datetime
    """It is told of what happens from then on."""
    changed: datetime

    @property
    def destination(self) -> str:
        """Name of its destination."""
        return SUBSCRIPTIONS + self.id

    def lives(self, now: datetime) -> bool:
        """Whether it is told of anything."""
        return self.wanted == ON and (self.ends is None or now < self.ends)


@dataclass(frozen=True)
class Progress:
    """How far its delivery is."""

    version: int = 0
    """Whose handshake was answered; 0: none was."""
    number: int = 0
    """Of its last event."""
    delivery_id: str = ""
    """Which delivery has that number."""
    tried: int = 0
    """The version that was last tried."""
    error: str = ""
    """What was wrong then, a code."""
    sent: datetime | None = None
    """When something was last taken."""


def status(of: Subscription, progress: Progress, prefixes: Sequence[str], now: datetime) -> tuple[str, str]:
    """(FHIR status, what is wrong). Pure."""
    if not of.lives(now):
        return "off", ""
    if not approved(of.endpoint, prefixes):
        return "error", NOT_APPROVED
    if progress.error and progress.tried == of.version:
        return "error", progress.error
    return ("active" if progress.version == of.version else "requested"), ""


class Store:
    """Every call raises Transient."""

    def __init__(self, state: Tables) -> None:
        """`state`: the keyspace `sijil_state`."""
        self._state = state

    async def all(self) -> list[Subscription]:
        """Every one, also those that were deleted and are not cleared away yet. They are few (`MAX` of the door)."""
        return [_subscription(row) async for row in self._state.scan(TABLE) if row["version"]]

    async def one(self, id: str) -> Subscription | None:
        """None for what is not there or was deleted."""
        rows = await self._state.select(Select(TABLE, {"subscription_id": id}))
        found = _subscription(rows[0]) if rows and rows[0]["version"] else None
        return found if found is not None and found.wanted != DELETED else None

    async def put(self, of: Subscription) -> None:
        """As it is asked for from now on."""
        columns = {
            "version": of.version,
            "owner": of.owner,
            "wanted": of.wanted,
            "topic": of.topic,
            "endpoint": of.endpoint,
            "reason": of.reason,
            "sealed": of.sealed,
            "heartbeat_s": of.heartbeat_s,
            "timeout_s": of.timeout_s,
            "ends": of.ends,
            "since": of.since,
            "changed": of.changed,
        }
        await self._state.apply([Upsert(TABLE, {"subscription_id": of.id}, columns, _micros())])

    async def clear(self, id: str) -> None:
        """Nothing of it is left."""
        now = _micros()
        await self._state.apply([Delete(table, {"subscription_id": id}, now) for table in (TABLE, PROGRESS)])

    async def progress(self, ids: Sequence[str]) -> list[Progress]:
        """Of each, in their order."""
        queries = [Select(PROGRESS, {"subscription_id": i}) for i in ids]
        answers = await self._state.select_many(queries) if queries else []
        return [_progress(rows[0]) if rows else Progress() for rows in answers]

    async def note(self, id: str, progress: Progress) -> None:
        """How far its delivery is now."""
        columns = {
            "version": progress.version,
            "number": progress.number,
            "delivery_id": progress.delivery_id,
            "tried": progress.tried,
            "error": progress.error,
            "sent": progress.sent,
        }
        await self._state.apply([Upsert(PROGRESS, {"subscription_id": id}, columns, _micros())])

    # ---------------------------------------------------------------------------------------------- endpoints

    async def endpoints(self) -> list[Row]:
        """What was approved: prefix, approved_by, approved."""
        return sorted([row async for row in self._state.scan(ENDPOINTS)], key=lambda r: str(r["prefix"]))

    async def prefixes(self) -> list[str]:
        """The same, the addresses alone."""
        return [row["prefix"] for row in await self.endpoints()]

    async def approve(self, prefix: str, actor: str) -> None:
        """Notifications may go there."""
        columns = {"approved_by": actor, "approved": clock.now()}
        await self._state.apply([Upsert(ENDPOINTS, {"prefix": prefix}, columns, _micros())])

    async def withdraw(self, prefix: str) -> None:
        """They may no longer."""
        await self._state.apply([Delete(ENDPOINTS, {"prefix": prefix}, _micros())])


def _subscription(row: Row) -> Subscription:
    return Subscription(
        row["subscription_id"],
        row["version"],
        row["owner"] or "",
        row["wanted"] or OFF,
        row["topic"] or "",
        row["endpoint"] or "",
        row["reason"] or "",
        row["sealed"] or "",
        row["heartbeat_s"] or 0,
        row["timeout_s"] or 1,
        row["ends"],
        row["since"],
        row["changed"],
    )


def _progress(row: Row) -> Progress:
    return Progress(
        row["version"] or 0,
        row["number"] or 0,
        row["delivery_id"] or "",
        row["tried"] or 0,
        row["error"] or "",
        row["sent"],
    )


def _micros() -> int:
    return int(clock.now().timestamp() * 1e6)
