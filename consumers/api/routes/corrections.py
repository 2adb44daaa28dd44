"""What people decided: the corrections of a study, those of a month, and conflicts with how they were resolved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from consumers.api import queries
from consumers.api.guard import Answer, Ask, Guard, OfSearch, OfStudy
from consumers.api.room import Room
from consumers.api.routes.lists import JSON, MONTHS, PAGE, limit_of, months_of, without
from infra.ports import Row
from schemas.corrections import BY_TAG, REJECTION_CODES, decode_correction
from schemas.errors import Invalid
from schemas.overlay import decode
from schemas.roles import Permission

TAG = "Corrections"
SOURCE = "sijil.study.corrections"
TYPES = ("study.corrected", "study.reassigned", "study.conflict-resolved", "study.rejected", "study.restored")
PAGES_MAX = 20
"""Pages of a month that a filtered list reads at most."""


def add(guard: Guard, room: Room) -> None:
    """Register the routes."""

    async def of_study(ask: Ask) -> Answer:
        uid = ask.uid("study")
        owner, rows = await room.with_owner(uid, queries.corrections_of(uid))
        last = max((r["number"] or 0 for r in rows), default=0)
        body = {"study_uid": uid, "corrections": [_told(r) for r in rows]}
        about = OfStudy(uid, owner)
        return Answer(about=about, content=msgspec.json.encode(body), media_type=JSON, headers={"ETag": f'W/"{last}"'})

    async def of_month(ask: Ask) -> Answer:
        limit, wanted = limit_of(ask), ask.option("type")
        if wanted and wanted not in TYPES:
            raise Invalid("option-type", f"type must be one of {', '.join(TYPES)}")
        rows: list[Row] = []
        for month in months_of(ask):
            found = await room.views.tables.select(queries.corrections(month, limit * (PAGES_MAX if wanted else 1)))
            rows += await room.scopes.kept(ask.reach, [r for r in found if wanted in ("", r["type"])])
            if len(rows) >= limit:
                break
        return _listed("corrections", rows[:limit], "month", "moment")

    async def conflicts(ask: Ask) -> Answer:
        limit, state = limit_of(ask), ask.option("state")
        if state not in ("", "open", "resolved"):
            raise Invalid("option-state", "state must be open or resolved")
        rows: list[Row] = []
        for month in months_of(ask):
            found = await room.views.tables.select(queries.conflicts(month, limit * (PAGES_MAX if state else 1)))
            rows += [r for r in await _resolved(room, found) if state in ("", r["state"])]
            if len(rows) >= limit:
                break
        return _listed("conflicts", rows[:limit], "month")

    guard.get(
        "/studies/{study}/corrections",
        of_study,
        permission=Permission.CORRECTIONS_READ,
        action="read-corrections",
        summary="What people decided of a study, oldest first; ETag is what If-Match of the next one may say",
        tag=TAG,
        source=SOURCE,
    )
    guard.get(
        "/corrections",
        of_month,
        permission=Permission.CORRECTIONS_READ,
        action="read-corrections",
        summary="Corrections of all studies, newest first: with type=study.rejected what was rejected",
        tag=TAG,
        parameters=PAGE | MONTHS | {"type": ", ".join(TYPES)},
        source=SOURCE,
    )
    guard.get(
        "/conflicts",
        conflicts,
        permission=Permission.CONFLICTS_READ,
        action="read-conflicts",
        summary="Copies of an instance whose contents differ, newest first; the first one in the log is served until a"
        " person decides (POST /studies/{study}/corrections)",
        tag="Faults",
        parameters=PAGE | MONTHS | {"state": "open or resolved"},
        source="sijil.study.lifecycle",
    )


async def _resolved(room: Room, rows: Sequence[Row]) -> list[Row]:
    """Conflicts with their states. One that was found behind what a person decided is open again."""
    uids = list(dict.fromkeys(r["study_uid"] for r in rows))
    answers = await room.views.tables.select_many([queries.study_owner(u) for u in uids]) if uids else []
    laid = {u: decode(a[0]["overlay"]) for u, a in zip(uids, answers, strict=True) if a and a[0]["overlay"]}
    found = []
    for row in rows:
        of = laid.get(row["study_uid"])
        choice = of.served.get(row["sop_uid"]) if of else None
        if choice is None or row["second_offset"] > choice.as_of_offset:
            found.append({**row, "state": "open"})
        else:
            how = {"correction_id": choice.id, "served_sha256": choice.sha256}
            found.append({**row, "state": "resolved", "resolution": how})
    return found


def _told(row: Row) -> dict[str, Any]:
    """A correction with its content: attributes by keyword, codes with their meanings."""
    content = decode_correction(row["content"])
    told: dict[str, Any] = {
        "correction_id": row["correction_id"],
        "number": row["number"],
        "type": row["type"],
        "actor": row["actor"],
        "reason": row["reason"],
        "recorded": row["recorded"],
    }
    if content.attributes:
        told["attributes"] = {BY_TAG[t].keyword: v for t, v in content.attributes.items()}
    if content.code:
        told |= {"code": content.code, "meaning": REJECTION_CODES[content.code]}
    if row["note_sop_uid"]:
        told["rejection_note"] = row["note_sop_uid"]
    for name in ("series_uid", "sop_uid", "sop_uids", "restores", "served_sha256"):
        if value := getattr(content, name):
            told[name] = value
    return told


def _listed(name: str, rows: Sequence[Row], *left_out: str) -> Answer:
    shown = list(dict.fromkeys((r["study_uid"], "") for r in rows))
    content = msgspec.json.encode({name: [without(r, *left_out) for r in rows]})
    return Answer(about=OfSearch({}, shown), content=content, media_type=JSON)
