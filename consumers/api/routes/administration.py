"""A list for the PACS administrator: identities to look at."""

from __future__ import annotations

import msgspec

from consumers.api import queries
from consumers.api.guard import Answer, Ask, Guard, OfSearch
from consumers.api.room import Room
from consumers.api.routes.lists import JSON, MONTHS, PAGE, limit_of, months_of, without
from infra.ports import Row
from schemas.roles import Permission


def add(guard: Guard, room: Room) -> None:
    """Register the route."""

    async def proposals(ask: Ask) -> Answer:
        limit = limit_of(ask)
        rows: list[Row] = []
        for month in months_of(ask):
            rows += await room.views.tables.select(queries.proposals(month, limit - len(rows)))
            if len(rows) >= limit:
                break
        shown = [(r["study_uid"], r["patient_key"]) for r in rows]
        content = msgspec.json.encode({"proposals": [without(r) for r in rows]})
        return Answer(about=OfSearch({}, shown), content=content, media_type=JSON)

    guard.get(
        "/proposals",
        proposals,
        action="read-proposals",
        permission=Permission.CONFLICTS_READ,
        summary="Studies whose patient a person should look at: an identifier that does not fit who is in the images",
        tag="Faults",
        parameters=PAGE | MONTHS,
        source="sijil.patients",
    )
