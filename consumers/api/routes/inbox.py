"""`GET /inbox`: the reports of a doctor's patients, critical ones that nobody has read back first, then what is unread.

Reports that name the doctor as who asked come from `reports_by_person`; those of patients whom a statement gives them,
from the patients' files. A report is read when its doctor has seen its current version: what the trail of accesses
says, so that nothing has to be marked and nothing can be marked that was not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from consumers.api import queries
from consumers.api.current import current
from consumers.api.guard import Answer, Ask, Guard, OfSearch
from consumers.api.room import Room
from consumers.api.routes.lists import JSON, limit_of, months_of
from infra.ports import Row
from schemas.errors import Invalid
from schemas.roles import Permission

MONTHS, MONTHS_MAX = 2, 12
NAMED_MAX = 500
"""Versions of reports of one month that are looked at."""
PATIENTS_MAX, STUDIES_MAX = 100, 20
"""Patients whom somebody treats, and the newest studies of each."""
SHOWN = frozenset({"preliminary", "final", "amended", "corrected", "appended", "cancelled", "entered-in-error"})
"""A report that is only announced says nothing yet."""


def add(guard: Guard, room: Room) -> None:
    """Register the route."""

    async def inbox(ask: Ask) -> Answer:
        limit, months = limit_of(ask), months_of(ask)[: _months(ask)]
        person = ask.caller.person_id
        named = await _select(room, [queries.reports_naming(person, m, NAMED_MAX) for m in months] if person else [])
        ids = dict.fromkeys(r["report_id"] for rows in named for r in rows if r["relation"] == "referring")
        ids |= dict.fromkeys(await _of_treated(room, person, months[-1]) if person else ())
        versions = await _select(room, [queries.report(i) for i in ids])
        found = [rows[0] for rows in versions if rows and rows[0]["status"] in SHOWN and rows[0]["study_uids"]]
        found = await _within(room, ask, found)
        uids = list(dict.fromkeys(r["study_uids"][0] for r in found))
        studies = await _select(room, [queries.study_state(u) for u in uids])
        known = {r["study_uid"]: r for r in await current(room.views.tables, [s[0] for s in studies if s])}
        reads = dict(
            zip(uids, await _select(room, [queries.report_read(ask.caller.actor, u) for u in uids]), strict=True)
        )
        criticals = await _select(room, [queries.criticals_of(r["report_id"]) for r in found])
        rows = [
            _told(report, known[report["study_uids"][0]], reads[report["study_uids"][0]], critical)
            for report, critical in zip(found, criticals, strict=True)
            if known.get(report["study_uids"][0], {}).get("answer")
        ]
        rows.sort(key=lambda r: str(r["issued"]), reverse=True)
        rows.sort(key=lambda r: ("critical" not in r, not r["unread"]))
        shown = rows[:limit]
        body = {
            "unread": sum(r["unread"] for r in rows),
            "critical": sum("critical" in r for r in rows),
            "reports": shown,
            "more": len(rows) > limit,
        }
        pairs = [(r["study_uid"], known[r["study_uid"]]["patient_key"] or "") for r in shown]
        return Answer(
            about=OfSearch({"person_id": (person,)}, pairs), content=msgspec.json.encode(body), media_type=JSON
        )

    guard.get(
        "/inbox",
        inbox,
        permission=Permission.REPORT_READ,
        action="read-inbox",
        summary="The reports of the caller's patients: critical ones nobody has read back, then unread, newest first",
        description="A report is read when the caller has seen its current version (`GET /reports/{report}`).",
        tag="Reports",
        parameters={
            "limit": "most reports",
            "month": "YYYYMM of their issue; without it the last ones",
            "months": f"how many months back, at most {MONTHS_MAX}; {MONTHS} without it",
        },
        source="sijil.reports",
    )


async def _of_treated(room: Room, person: str, since_month: str) -> list[str]:
    """Ids of the reports of patients whom somebody treats, issued since the beginning of a month."""
    stated = await room.views.tables.select(queries.treating(person, NAMED_MAX))
    keys = dict.fromkeys(r["patient_key"] for r in stated if not r["ended"] and not r["study_uid"])
    pages = await _select(room, [queries.patient_page(k, STUDIES_MAX) for k in list(keys)[:PATIENTS_MAX]])
    uids = dict.fromkeys(r["study_uid"] for rows in pages for r in rows)
    uids |= dict.fromkeys(r["study_uid"] for r in stated if not r["ended"] and r["study_uid"])
    reports = await _select(room, [queries.reports_of(u) for u in uids])
    since = f"{since_month[:4]}-{since_month[4:]}"
    return [r["report_id"] for rows in reports for r in rows if r["issued"] >= since]


async def _within(room: Room, ask: Ask, rows: Sequence[Row]) -> list[Row]:
    """Those of which the caller may see every study: statements that have ended show nothing any more."""
    uids = dict.fromkeys(u for r in rows for u in r["study_uids"])
    kept = {r["study_uid"] for r in await room.scopes.kept(ask.reach, [{"study_uid": u} for u in uids])}
    return [r for r in rows if kept.issuperset(r["study_uids"])]


def _told(report: Row, study: Row, read: Sequence[Row], criticals: Sequence[Row]) -> dict[str, Any]:
    seen = max((t for r in read for t in (r["occurred"], r["last_used"]) if t), default="")
    waiting = next((c for c in criticals if c["contacts"] is not None and not c["acknowledged"]), None)
    return {
        "report_id": report["report_id"],
        "version": report["version"],
        "status": report["status"],
        "issued": report["issued"],
        "site": report["site"],
        "study_uid": report["study_uids"][0],
        "patient_key": study["patient_key"] or "",
        "unread": seen < report["issued"],
        **({"read": seen} if seen else {}),
        **({"critical": {"version": waiting["version"], "due": waiting["due"]}} if waiting else {}),
        "study": msgspec.Raw(study["answer"].encode()),
    }


async def _select(room: Room, selects: Sequence[Any]) -> list[list[Row]]:
    return await room.views.tables.select_many(selects) if selects else []


def _months(ask: Ask) -> int:
    text = ask.option("months") or str(MONTHS)
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= MONTHS_MAX):
        raise Invalid("option-months", f"months must be a number from 1 to {MONTHS_MAX}")
    return int(text)
