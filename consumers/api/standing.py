"""Whether staff may still act as their token says: a person who has left, or never had the role, may not.

What the read model says is believed for STANDING_S; who is about to be refused is looked up anew, so that one who comes
back is let in at once. People whom it does not know, and patients, go on by their token alone. With the read models
away what was known last holds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from consumers.api import queries
from infra import clock
from infra.ports import Row, Tables
from schemas.caller import Caller
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
        if not caller.person_id or caller.role not in STAFF:
            return ""
        known = self._known.get(caller.person_id)
        if known is not None and known[0] > clock.monotonic() and not _why(known[1], caller):
            return ""
        try:
            rows = await self._connected().select(queries.person(caller.person_id))
        except Transient:
            return _why(known[1], caller) if known is not None else ""
        row = rows[0] if rows else None
        self._known[caller.person_id] = clock.monotonic() + STANDING_S, row
        self._known.move_to_end(caller.person_id)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return _why(row, caller)


def _why(row: Row | None, caller: Caller) -> str:
    if row is None or row["active"] is None:
        return ""
    if not row["active"]:
        return LEFT
    return NOT_HELD if row["roles"] and str(caller.role) not in row["roles"] else ""
