"""Which messages have been answered AA: what is sent again changes nothing. Rows of `sijil_state.hl7_messages`."""

from __future__ import annotations

from infra import clock
from infra.ports import Select, Tables
from schemas.tables import Upsert

TABLE = "hl7_messages"


class Answered:
    """The table; its rows are gone after some months. Both methods raise Transient."""

    def __init__(self, state: Tables) -> None:
        self._state = state

    async def has(self, message_id: str) -> bool:
        """Whether everything that it says was acknowledged."""
        return bool(await self._state.select(Select(TABLE, {"message_id": message_id}, ("message_id", "answered"))))

    async def add(self, message_id: str, *, kind: str, site: str) -> None:
        """It was."""
        now = clock.now()
        columns = {"kind": kind, "site": site, "answered": clock.rfc3339(now)}
        await self._state.apply([Upsert(TABLE, {"message_id": message_id}, columns, int(now.timestamp() * 1_000_000))])
