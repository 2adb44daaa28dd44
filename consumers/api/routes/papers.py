"""What stands about a study beside its images: its status and its reports; and a patient's file."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from consumers.api import queries, status
from consumers.api.current import current
from consumers.api.guard import Answer, Ask, Guard, OfSearch, OfStudy
from consumers.api.person import person
from consumers.api.room import Room
from consumers.api.routes.lists import JSON, PAGE, limit_of, patient_key_of, without
from consumers.api.walk import Deadline, Partition, Reader, merged
from infra import clock
from infra.ports import Row
from schemas.errors import Defect, Invalid, NotFound
from schemas.roles import Permission

FHIR = "application/fhir+json"
PACKS_SHOWN_MAX = 200

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_DAY = re.compile(r"[0-9]{4}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])\Z")


def add(guard: Guard, room: Room) -> None:
    """Register the routes."""
    _add_study(guard, room)
    _add_reports(guard, room)
    _add_patient(guard, room)
    _add_faults(guard, room)


# ------------------------------------------------------------------------------------------------ a study


def _add_study(guard: Guard, room: Room) -> None:
    async def study_status(ask: Ask) -> Answer:
        uid = ask.uid("study")
        found, listed, steps = await room.views.tables.select_many(
            (queries.study_state(uid), queries.packs_of(uid), queries.steps_of(uid))
        )
        found = await current(room.views.tables, found)
        if not found:
            raise NotFound("this study is not in the archive, or not yet searchable")
        wanted = [queries.pack(p["pack_id"]) for p in listed[:PACKS_SHOWN_MAX]]
        packs = [rows[0] for rows in await room.views.tables.select_many(wanted) if rows]
        document = status.describe(found[0], packs, steps)
        return _json(OfStudy(uid, found[0]["patient_key"] or ""), document)

    guard.get(
        "/studies/{study}",
        study_status,
        permission=Permission.STUDY_READ,
        action="read-status",
        summary="Where a study stands: open, complete or reopened; counts; steps of devices (MPPS); packs, their tiers",
        tag="Studies",
    )


# ------------------------------------------------------------------------------------------------ reports


def _add_reports(guard: Guard, room: Room) -> None:
    async def study_reports(ask: Ask) -> Answer:
        uid = ask.uid("study")
        owner, rows = await room.with_owner(uid, queries.reports_of(uid))
        current = _current(rows)
        documents = await asyncio.gather(*(document_of(room, r) for r in current))
        reports = [
            {
                "report_id": row["report_id"],
                "version": row["version"],
                "status": row["status"],
                "issued": row["issued"],
                "site": row["site"],
                "document": document,
            }
            for row, document in zip(current, documents, strict=True)
        ]
        return _json(OfStudy(uid, owner), {"study_uid": uid, "reports": reports})

    async def report(ask: Ask) -> Answer:
        return await _report(room, queries.report(report_id_of(ask)))

    async def report_version(ask: Ask) -> Answer:
        return await _report(room, queries.report_version(report_id_of(ask), version_of(ask)))

    guard.get(
        "/studies/{study}/reports",
        study_reports,
        permission=Permission.REPORT_READ,
        action="read-report",
        summary="The reports of a study in their current versions, newest first, with their documents",
        tag="Reports",
        source="sijil.reports",
    )
    for path, handler, summary in (
        ("/reports/{report}", report, "A report in its current version"),
        ("/reports/{report}/versions/{version}", report_version, "A version of a report"),
    ):
        guard.get(
            path,
            handler,
            permission=Permission.REPORT_READ,
            action="read-report",
            summary=summary,
            tag="Reports",
            media_types=(FHIR,),
            source="sijil.reports",
        )


async def _report(room: Room, select: Any) -> Answer:
    rows = await room.views.tables.select(select)
    if not rows:
        raise NotFound("this report is not in the archive, or not yet searchable")
    row = rows[0]
    document = await document_of(room, row)
    pairs = await room.owners(row["study_uids"] or ())
    about = OfStudy(*pairs[0]) if len(pairs) == 1 else OfSearch({"report_id": (row["report_id"],)}, pairs)
    headers = {"ETag": f'W/"{row["version"]}"', "Sijil-Report-Status": row["status"]}
    return Answer(about=about, content=bytes(document), media_type=FHIR, headers=headers)


def _current(rows: Iterable[Row]) -> list[Row]:
    """Of each report its highest version, the one issued last first."""
    newest: dict[str, Row] = {}
    for row in rows:
        if row["report_id"] not in newest or row["version"] > newest[row["report_id"]]["version"]:
            newest[row["report_id"]] = row
    return sorted(newest.values(), key=lambda r: (r["issued"], r["report_id"]), reverse=True)


async def document_of(room: Room, row: Row) -> msgspec.Raw:
    """The document of a row, as its event has it. Raises NotFound, Transient, Defect."""
    data = await asyncio.to_thread(room.objects.get, row["bucket"], row["document_key"])
    if hashlib.sha256(data).hexdigest() != row["document_sha256"]:
        raise Defect(f"report document {row['document_key']} has not the checksum of its event")
    return msgspec.Raw(data)


def report_id_of(ask: Ask) -> str:
    """The part `report` of the path. Raises Invalid(`report-id`)."""
    value = ask.part("report")
    if not _UUID.match(value):
        raise Invalid("report-id", "a report's id is a UUID")
    return value


def version_of(ask: Ask) -> int:
    """The part `version` of the path. Raises Invalid(`report-version`)."""
    number = ask.part("version")
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 1 << 31):
        raise Invalid("report-version", "versions are numbers from 1")
    return int(number)


# ------------------------------------------------------------------------------------------------ a patient


def _add_patient(guard: Guard, room: Room) -> None:
    async def patient(ask: Ask) -> Answer:
        key = patient_key_of(ask)
        row = await person(room.views.tables, key)
        if row is None:
            raise NotFound("this patient is not in the archive, or not yet searchable")
        replaces, replaced_by = (await room.scopes.linked.group(key)).links(key)
        shown = ((row["last_study_uid"], key),) if row["last_study_uid"] else ()
        links = {"replaces": replaces, "replaced_by": replaced_by}
        return _json(OfSearch({"patient_key": (key,)}, shown, key), row | links)

    async def patient_studies(ask: Ask) -> Answer:
        key, limit = patient_key_of(ask), limit_of(ask)
        deadline = Deadline(room.settings.query_deadline_s)
        rows: list[Row] = []
        keys = (await room.scopes.linked.group(key)).keys
        files = [Partition(queries.by_patient(k)) for k in keys]
        async for chunk in merged(Reader(room.views.tables), files, deadline):
            # One that was reassigned is here under its old and under its new patient.
            of_them = [r for r in await current(room.views.tables, chunk) if r["patient_key"] in keys]
            rows += await room.scopes.kept(ask.reach, of_them)
            if len(rows) >= limit:
                break
        del rows[limit:]
        base = room.base(ask)
        studies = [_study(row, base) for row in rows]
        shown = [(row["study_uid"], row["patient_key"]) for row in rows]
        return _json(OfSearch({"patient_key": (key,)}, shown, key), {"patient_key": key, "studies": studies})

    guard.get(
        "/patients/{key}",
        patient,
        permission=Permission.PATIENT_FILE,
        action="read-patient",
        summary="Who a patient key is, as last seen",
        tag="Patients",
        source="sijil.patients",
    )
    guard.get(
        "/patients/{key}/studies",
        patient_studies,
        permission=Permission.PATIENT_FILE,
        action="read-patient",
        summary="A patient's file: the studies of all sites and of all files joined to it, newest first",
        tag="Patients",
        parameters=PAGE,
    )


def _study(row: Row, base: str) -> dict[str, Any]:
    answer = msgspec.json.decode(row["answer"])

    def first(tag: str) -> Any:
        return next(iter(answer[tag].get("Value", ())), None)

    return {
        "study_uid": row["study_uid"],
        "study_date": first("00080020") or "",
        "study_time": first("00080030") or "",
        "accession": first("00080050") or "",
        "description": first("00081030") or "",
        "modalities": answer["00080061"].get("Value", []),
        "series": first("00201206"),
        "instances": first("00201208"),
        "url": f"{base}/studies/{row['study_uid']}",
    }


# ------------------------------------------------------------------------------------------------ for who repairs it


def _add_faults(guard: Guard, room: Room) -> None:
    async def rejections(ask: Ask) -> Answer:
        day = ask.option("day") or clock.now().strftime("%Y%m%d")
        if not _DAY.match(day):
            raise Invalid("option-day", "day must be YYYYMMDD")
        rows = await room.views.tables.select(queries.rejections(day, limit_of(ask)))
        if not ask.reach.whole:
            sent = [r for r in rows if r["site"] in ask.reach.sites]
            known = await room.scopes.places(r["study_uid"] for r in sent if r["study_uid"])
            within = {r["study_uid"] for r in await room.scopes.kept(ask.reach, sent) if r["study_uid"]}
            rows = [r for r in sent if r["study_uid"] not in known or r["study_uid"] in within]
        return _listed("rejections", rows, "day")

    guard.get(
        "/rejections",
        rejections,
        permission=Permission.QUARANTINE_READ,
        action="read-rejections",
        summary="Instances that the doors refused on a day, and why, newest first",
        tag="Faults",
        parameters=PAGE | {"day": "YYYYMMDD, UTC; today without it"},
    )


def _listed(name: str, rows: Sequence[Row], partition: str) -> Answer:
    shown = [(r["study_uid"], "") for r in rows if r["study_uid"]]
    return _json(OfSearch({}, shown), {name: [without(r, partition) for r in rows]})


# ------------------------------------------------------------------------------------------------ common


def _json(about: OfStudy | OfSearch, document: Any) -> Answer:
    return Answer(about=about, content=msgspec.json.encode(document), media_type=JSON)
