"""`GET /patients/{key}/timeline`: what happened with a patient, at all hospitals and in all files that are joined."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from consumers.api import overlay, queries
from consumers.api.current import current
from consumers.api.guard import Answer, Ask, Guard, OfSearch
from consumers.api.room import Room
from consumers.api.routes.lists import JSON, PAGE, limit_of, patient_key_of
from consumers.api.walk import Deadline, Partition, Reader, merged
from consumers.fhir.moments import date_time
from infra.ports import Row
from schemas.names import fold
from schemas.roles import Permission, Scope, scope_of
from schemas.times import has_report

STUDIES_MAX: Final = 200
ORDERS_MAX: Final = 500
PART_LENGTH_MAX: Final = 64

Entry = dict[str, Any]


def add(guard: Guard, room: Room) -> None:
    """Register the route."""
    zone = ZoneInfo(room.settings.time_zone)

    async def patient_timeline(ask: Ask) -> Answer:
        key, limit = patient_key_of(ask), limit_of(ask)
        keys = (await room.scopes.linked.group(key)).keys
        studies, orders = await asyncio.gather(_studies(room, ask, keys), _orders(room, ask, keys))
        entries = [*(_order(o) for o in orders), *await _below(room, ask, studies, zone)]
        part = fold(ask.option("body_part")[:PART_LENGTH_MAX]).strip()
        for entry in entries:
            entry["prior"] = bool(part) and any(part in fold(p) for p in entry["body_parts"])
        entries.sort(key=lambda e: (e["prior"], e["when"]), reverse=True)
        shown = dict.fromkeys((r["study_uid"], r["patient_key"]) for r in (*studies, *orders) if r["study_uid"])
        document = {"patient_key": key, "files": list(keys), "entries": entries[:limit], "more": len(entries) > limit}
        about = OfSearch({"patient_key": (key,)}, list(shown), key)
        return Answer(about=about, content=msgspec.json.encode(document), media_type=JSON)

    guard.get(
        "/patients/{key}/timeline",
        patient_timeline,
        permission=Permission.PATIENT_FILE,
        action="read-patient",
        summary="Orders, studies, reports and deliveries of all hospitals, newest first, priors of a part before",
        tag="Patients",
        parameters=PAGE | {"body_part": "what is being read now: entries of it come first, marked `prior`"},
    )


async def _studies(room: Room, ask: Ask, keys: Sequence[str]) -> list[Row]:
    """Rows of `studies` as they are now, of those within the reach."""
    tables = room.views.tables
    parts = [Partition(queries.by_patient(k)) for k in keys]
    deadline = Deadline(room.settings.query_deadline_s)
    uids: list[str] = []
    async for chunk in merged(Reader(tables), parts, deadline):
        of_them = [r for r in await current(tables, chunk) if r["patient_key"] in keys]
        uids += [r["study_uid"] for r in await room.scopes.kept(ask.reach, of_them)]
        if len(uids) >= STUDIES_MAX:
            break
    answers = await tables.select_many([queries.study_state(u) for u in dict.fromkeys(uids[:STUDIES_MAX])])
    return await current(tables, [rows[0] for rows in answers if rows and rows[0]["answer"]])


async def _orders(room: Room, ask: Ask, keys: Sequence[str]) -> list[Row]:
    if scope_of(ask.caller.role, Permission.ORDER_READ) is Scope.NONE:
        return []
    answers = await room.views.tables.select_many([queries.orders_of_patient(k, ORDERS_MAX) for k in keys])
    return [r for rows in answers for r in rows if ask.reach.shows(r["study_uid"], r["patient_key"], (r["site"],))]


async def _below(room: Room, ask: Ask, studies: Sequence[Row], zone: ZoneInfo) -> list[Entry]:
    """Entries of studies, their reports, and what was delivered of both."""
    tables, uids = room.views.tables, [r["study_uid"] for r in studies]
    reads = scope_of(ask.caller.role, Permission.REPORT_READ) is not Scope.NONE
    below, told, reported = await asyncio.gather(
        tables.select_many([queries.series_of(u) for u in uids]),
        tables.select_many([queries.delivered_of_study(u) for u in uids]),
        tables.select_many([queries.reports_of(u) for u in uids] if reads else []),
    )
    parts: dict[str, list[str]] = {}
    entries: list[Entry] = []
    for row, series, delivered in zip(studies, below, told, strict=True):
        uid = row["study_uid"]
        visible = overlay.series_rows(row, series)
        parts[uid] = sorted({p for s in visible if (p := (s["body_part"] or "").strip())})
        entries.append(_study(row, parts[uid], zone))
        entries += [_delivery(d, parts[uid], [uid], row["sites"]) for d in delivered if has_report(d["destination"])]
    newest: dict[str, tuple[Row, list[str]]] = {}
    for uid, rows in zip(uids, reported, strict=False):
        for row in rows:
            known = newest.get(row["report_id"])
            if known is None or row["version"] > known[0]["version"]:
                newest[row["report_id"]] = row, [uid]
            elif row["version"] == known[0]["version"]:
                known[1].append(uid)
    given = await tables.select_many([queries.delivered_of_report(r) for r in newest]) if newest else []
    for (row, of), delivered in zip(newest.values(), given, strict=True):
        of_parts = sorted({p for u in of for p in parts[u]})
        entries.append(_report(row, of, of_parts))
        entries += [_delivery(d, of_parts, of, (row["site"],)) for d in delivered if has_report(d["destination"])]
    return entries


def _order(row: Row) -> Entry:
    return {
        "kind": "order",
        "when": row["authored"] or row["recorded"],
        "site": row["site"],
        "order_id": row["order_id"],
        "status": row["status"],
        "priority": row["priority"],
        "accession": row["accession"],
        "modalities": [row["modality"]] if row["modality"] else [],
        "text": row["procedure_text"],
        "body_parts": [row["body_part"]] if row["body_part"] else [],
        "study_uids": [row["study_uid"]] if row["study_uid"] else [],
    }


def _study(row: Row, parts: Sequence[str], zone: ZoneInfo) -> Entry:
    uid = row["study_uid"]
    return {
        "kind": "study",
        "when": date_time(row["study_date"] or "", row["study_time"] or "", zone) or _time(row["first_arrival"]),
        "site": ", ".join(sorted(row["sites"] or ())),
        "accession": row["accession"] or "",
        "modalities": sorted(row["modalities"] or ()),
        "text": row["description"] or "",
        "series": row["series_count"],
        "instances": row["instance_count"],
        "body_parts": list(parts),
        "study_uids": [uid],
        "thumbnail": f"/dicom-web/studies/{uid}/thumbnail" if row["instance_count"] else "",
    }


def _report(row: Row, study_uids: Sequence[str], parts: Sequence[str]) -> Entry:
    return {
        "kind": "report",
        "when": row["issued"],
        "site": row["site"],
        "report_id": row["report_id"],
        "version": row["version"],
        "status": row["status"],
        "modalities": [],
        "text": "",
        "body_parts": list(parts),
        "study_uids": list(study_uids),
    }


def _delivery(row: Row, parts: Sequence[str], study_uids: Sequence[str], sites: Iterable[str] | None) -> Entry:
    found: Entry = {
        "kind": "delivery",
        "when": row["occurred"] or "",
        "site": ", ".join(sorted(sites or ())),
        "destination": row["destination"],
        "modalities": [],
        "text": "",
        "body_parts": list(parts),
        "study_uids": list(study_uids),
    }
    return found | {n: row[n] for n in ("report_id", "version") if n in row}


def _time(moment: Any) -> str:
    return moment.isoformat(timespec="seconds") if moment is not None else ""
