"""Critical results: those that nobody has read back, the longest due first, and all of a report."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from consumers.api import queries
from consumers.api.freshness import PROJECTION
from consumers.api.guard import Answer, Ask, Guard, OfSearch
from consumers.api.room import Room
from consumers.api.routes.lists import JSON, PAGE, limit_of, without
from infra import clock
from infra.ports import Row
from schemas.errors import Defect, Invalid, NotFound
from schemas.roles import Permission

TOPIC = "sijil.reports"
STATES = ("open", "overdue")


def add(guard: Guard, room: Room) -> None:
    """Register the routes."""

    async def criticals(ask: Ask) -> Answer:
        state, limit = ask.option("state") or "open", limit_of(ask)
        if state not in STATES:
            raise Invalid("option-state", f"state must be one of {', '.join(STATES)}")
        positions = await room.views.tables.select(queries.positions(PROJECTION))
        partitions = sorted({p["partition"] for p in positions if p["topic"] == TOPIC})
        answers = await room.views.tables.select_many([queries.criticals_open(p) for p in partitions])
        # One without contacts was read back while it was passed on
        rows = [row for found in answers for row in found if row["contacts"] is not None]
        now = clock.now()
        rows = [row for row in rows if state == "open" or datetime.fromisoformat(row["due"]) <= now]
        if ask.option("mine"):
            rows = [row for row in rows if ask.caller.person_id and row["contact"] == ask.caller.person_id]
        rows = await _within(room, ask, sorted(rows, key=lambda r: (r["due"], r["critical_id"])))
        shown = rows[:limit]
        body = {"criticals": [_told(row, now) for row in shown], "more": len(rows) > limit}
        owners = await room.owners(list(dict.fromkeys(u for row in shown for u in row["study_uids"])))
        return Answer(about=OfSearch({"state": (state,)}, owners), content=msgspec.json.encode(body), media_type=JSON)

    async def of_report(ask: Ask) -> Answer:
        report_id = ask.part("report")
        versions, rows = await room.views.tables.select_many(
            (queries.report(report_id), queries.criticals_of(report_id))
        )
        if not versions:
            raise NotFound("this report is not in the archive, or not yet searchable")
        now = clock.now()
        told = [_told(row, now) for row in rows if row["contacts"] is not None]
        for line, row in zip(told, (r for r in rows if r["contacts"] is not None), strict=True):
            if row["document_key"]:
                line["words"] = (await _document(room, row))["words"]
        owners = await room.owners(versions[0]["study_uids"] or ())
        body = {"report_id": report_id, "criticals": told}
        about = OfSearch({"report_id": (report_id,)}, owners)
        return Answer(about=about, content=msgspec.json.encode(body), media_type=JSON)

    guard.get(
        "/criticals",
        criticals,
        permission=Permission.REPORT_READ,
        action="read-criticals",
        summary="Critical results that nobody has read back yet, the longest due first",
        description="`contact` is whose turn it is; after `due` the next one of `contacts` is told.",
        tag="Reports",
        parameters={**PAGE, "state": "open (the default) or overdue", "mine": "1: those that wait for the caller"},
        source=TOPIC,
    )
    guard.get(
        "/reports/{report}/criticals",
        of_report,
        permission=Permission.REPORT_READ,
        action="read-criticals",
        summary="The critical results of a report: who was told and when, who read them back, and in which words",
        tag="Reports",
        source=TOPIC,
    )


async def _within(room: Room, ask: Ask, rows: Sequence[Row]) -> list[Row]:
    """Those whose studies are all within the caller's reach."""
    if ask.reach.whole:
        return list(rows)
    uids = {uid for row in rows for uid in row["study_uids"]}
    within = {r["study_uid"] for r in await room.scopes.kept(ask.reach, [{"study_uid": u} for u in sorted(uids)])}
    return [row for row in rows if within.issuperset(row["study_uids"])]


def _told(row: Row, now: datetime) -> dict[str, Any]:
    told = without(row, "reports_partition", "bucket", "document_key", "document_sha256")
    return told | {"overdue": not row.get("acknowledged") and datetime.fromisoformat(row["due"]) <= now}


async def _document(room: Room, row: Row) -> dict[str, Any]:
    data = await asyncio.to_thread(room.objects.get, row["bucket"], row["document_key"])
    if hashlib.sha256(data).hexdigest() != row["document_sha256"]:
        raise Defect(f"read-back {row['document_key']} has not the checksum of its event")
    found: dict[str, Any] = msgspec.json.decode(data)
    return found
