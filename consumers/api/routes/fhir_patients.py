"""`GET /fhir/Patient`: who somebody is, by id, identifier or name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from consumers.api import queries
from consumers.api.attributes import Level, find
from consumers.api.fhir_files import Files
from consumers.api.fhir_query import Asked, oid, ordered, sliced, token, within
from consumers.api.guard import Answer, Ask, Guard, OfSearch
from consumers.api.planner import plan
from consumers.api.qido import Condition, Query, condition_of
from consumers.api.room import Room
from consumers.api.routes.fhir_page import asked_of, base_of, counted, criteria, fhir, page, parameters
from consumers.api.scope import Within
from consumers.api.walk import Deadline
from consumers.fhir.codes import MEDIA_TYPE, PATIENT_KEY, Resource
from consumers.fhir.ids import patient_key_of
from schemas.errors import Invalid, NotFound
from schemas.identity import is_patient_key
from schemas.roles import Permission

STUDIES_LOOKED_AT = 400
"""Studies whose patients are told apart, of an identifier or a name."""


def add(guard: Guard, room: Room) -> None:
    """Register the routes."""
    files = Files(room)

    async def find_patients(ask: Ask) -> Answer:
        asked = asked_of(ask, "Patient")
        keys, notes = await _keys(room, ask, asked)
        found = [p for p in await files.patients(await files.visible(ask.reach, keys)) if _fits(p, asked)]
        if asked.counted:
            return counted(ask, base_of(room, ask), asked, len(found), notes)
        if asked.sort:
            found = ordered(asked, found, lambda p: (p.get("birthDate", ""), p["id"]))
        shown, more = sliced(asked, found)
        pairs = [(uid, key) for uid, key in await _last_studies(room, shown) if uid]
        about = OfSearch(criteria(asked), pairs)
        total = None if notes else len(found)
        return page(ask, base_of(room, ask), asked, shown, about, next=more, notes=notes, total=total)

    async def patient(ask: Ask) -> Answer:
        key = patient_key_of(ask.part("patient"))
        found = await files.patient(key)
        if found is None:
            raise NotFound("this patient is not in the archive, or not yet searchable")
        pairs = [(uid, k) for uid, k in await _last_studies(room, [found]) if uid]
        return fhir(OfSearch({"patient_key": (key,)}, pairs, key), found)

    guard.get(
        "/fhir/Patient",
        find_patients,
        permission=Permission.PATIENT_FILE,
        action="read-patient",
        summary="Patients as FHIR R4, by identifier or name",
        tag="FHIR",
        media_types=(MEDIA_TYPE,),
        parameters=parameters("Patient"),
        source="sijil.patients",
    )
    guard.get(
        "/fhir/Patient/{patient}",
        patient,
        permission=Permission.PATIENT_FILE,
        action="read-patient",
        summary="A patient as FHIR R4",
        tag="FHIR",
        media_types=(MEDIA_TYPE,),
        source="sijil.patients",
    )


async def _keys(room: Room, ask: Ask, asked: Asked) -> tuple[list[str], list[str]]:
    """Patient keys that may fit, and what to say of those that were not looked at."""
    keys = [patient_key_of(i) for i in asked.one("_id").split(",") if i]
    if keys:
        return keys, []
    identifier, name = token(asked.one("identifier")), asked.one("name")
    if is_patient_key(identifier[1]):
        return [identifier[1]], []
    conditions: list[Condition | None] = []
    if identifier[1]:
        conditions.append(condition_of(find("PatientID"), oid(identifier[1])))
    if name:
        conditions.append(condition_of(find("PatientName"), name))
    wanted = tuple(c for c in conditions if c is not None)
    if not wanted:
        raise Invalid("search-too-wide", "say whom: _id, identifier or name")
    query = Query(Level.STUDY, wanted, fuzzy=True)
    scope = Within(ask.reach, room.scopes)
    deadline = Deadline(room.settings.query_deadline_s)
    found = await room.views.searcher.search(
        query, plan(query), limit=STUDIES_LOOKED_AT, deadline=deadline, within=scope
    )
    keys = list(dict.fromkeys(h.study["patient_key"] for h in found.hits if h.study["patient_key"]))
    cut = found.more or found.cut
    return keys, ["more patients fit than were looked at: say more of the name"] if cut else []


def _fits(patient: Resource, asked: Asked) -> bool:
    """What the index that was read by does not know."""
    system, _ = token(asked.one("identifier"))
    if system and system != PATIENT_KEY:
        wanted = (system, oid(asked.one("identifier")))
        if wanted not in {(i.get("system", ""), i["value"]) for i in patient["identifier"]}:
            return False
    return within(asked.span("birthdate"), patient.get("birthDate", ""), UTC)


async def _last_studies(room: Room, shown: Sequence[Resource]) -> list[tuple[str, str]]:
    """The study by which each patient is known: who looked at a patient is told by it."""
    keys = [patient_key_of(p["id"]) for p in shown]
    answers = await room.views.tables.select_many([queries.patient(k) for k in keys]) if keys else []
    return [(rows[0]["last_study_uid"] or "" if rows else "", k) for k, rows in zip(keys, answers, strict=True)]
