"""Whether staff may still act as their token says: a person who has left, or never had the role, may not, and nobody
may at a site that is not theirs.

What the read model says is believed for STANDING_S; who is about to be refused is looked up anew, so that one who comes
back is let in at once. People whom it does not know, and patients, go on by their token alone. With the read models
away what was known last holds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from consumers.api import queries
from infra import clock
from infra.ports import Row, Tables
from schemas.caller import ALL_SITES, Caller
from schemas.errors import Transient
from schemas.people import STAFF

STANDING_S = 30.0
KNOWN_MAX = 50_000

LEFT, NOT_HELD = "person-left", "role-not-held"


class Standing:
    """What one process knows of it."""

    def __init__(self, tables: Callable[[], Tables]) -> None:
        """`tables` raises Transient while the read models are away."""
        self._connected = tables
        self._known: OrderedDict[str, tuple[float, Row | None]] = OrderedDict()

    async def why_not(self, caller: Caller) -> str:
        """Why somebody may do nothing in their role now; empty if they may."""
        if not _is_staff(caller):
            return ""
        known = self._known.get(caller.person_id)
        if known is not None and known[0] > clock.monotonic() and not _why(known[1], caller):
            return ""
        return _why(await self._looked_up(caller.person_id), caller)

    async def narrowed(self, caller: Caller) -> Caller:
        """The caller with those of their token's sites that are theirs; all of them for whom none are registered."""
        if not _is_staff(caller):
            return caller
        known = self._known.get(caller.person_id)
        fresh = known is not None and known[0] > clock.monotonic()
        row = known[1] if known is not None and fresh else await self._looked_up(caller.person_id)
        own = frozenset(row["sites"] or ()) if row is not None else frozenset()
        if not own:
            return caller
        return replace(caller, sites=own if ALL_SITES in caller.sites else caller.sites & own)

    async def _looked_up(self, person_id: str) -> Row | None:
        """What the read model says now; what it said last while it is away."""
        try:
            rows = await self._connected().select(queries.person(person_id))
        except Transient:
            known = self._known.get(person_id)
            return known[1] if known is not None else None
        row = rows[0] if rows else None
        self._known[person_id] = clock.monotonic() + STANDING_S, row
        self._known.move_to_end(person_id)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return row


def _is_staff(caller: Caller) -> bool:
    return bool(caller.person_id) and caller.role in STAFF


def _why(row: Row | None, caller: Caller) -> str:
    if row is None or row["active"] is None:
        return ""
    if not row["active"]:
        return LEFT
    return NOT_HELD if row["roles"] and str(caller.role) not in row["roles"] else ""
