"""FHIR R4 AuditEvent: the trail as health records and audit repositories read it. Reading it is itself an access."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import msgspec

from consumers.api import queries
from consumers.api.audit_event import Span, bundle, identifier_of, resource, resources, span_of
from consumers.api.guard import Answer, Ask, Guard, OfSearch
from consumers.api.room import Room
from consumers.api.routes.lists import LIMIT, LIMIT_MAX, checked_key
from consumers.api.trail import Cursor, Page, buckets, moment, page
from infra import clock
from infra.ports import Row, Select
from schemas.errors import Invalid, NotFound
from schemas.identity import check_uid, made_ms
from schemas.roles import Permission

FHIR = "application/fhir+json"
BACK = {"month": timedelta(days=730), "day": timedelta(days=31), "hour": timedelta(days=2)}
"""How far a search without `date` looks back, by the partitions it reads."""
MOST = {"month": timedelta(days=3700), "day": timedelta(days=366), "hour": timedelta(days=7)}
"""The longest span of one search."""
SOURCE = "sijil.accesses"

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_NAMES = {"patient": "month", "agent": "day", "entity": "", "": "hour"}


def add(guard: Guard, room: Room) -> None:
    """Register the routes."""

    async def search_audit_events(ask: Ask) -> Answer:
        now = clock.now()
        name, value = _asked(ask)
        column = _NAMES[name]
        dates = ask.options("date")
        latest = now + timedelta(hours=1)
        earliest = datetime(2000, 1, 1, tzinfo=UTC)
        span = span_of(dates, earliest if dates else now - BACK.get(column, now - earliest), latest)
        if column and span.end - span.first > MOST[column]:
            if span.first != earliest:
                raise Invalid("date-span", f"narrow it: at most {MOST[column].days} days by this parameter")
            span = Span(span.end - MOST[column], span.end)
        keys = (await room.scopes.linked.group(value)).keys if name == "patient" else (value,)
        selects = list(zip(*(_selects(name, k, span, column) for k in keys), strict=True))
        found = await page(room.views.tables, selects, Cursor.read(ask.option("_before")), _count(ask))
        key = value if name == "patient" else ""
        if name == "entity":
            ((_, key),) = await room.owners([value])
        rows = [_whole(row, key) for row in found.rows if span.holds(row["occurred"])]
        shown = [(row["study_uid"], row["patient_key"]) for row in rows if row["study_uid"]]
        criteria = {n: (v,) for n, v in ((name, value), *(("date", d) for d in dates)) if n}
        base = room.base(ask).removesuffix("/dicom-web") + "/fhir"
        document = bundle(list(resources(rows)), base, *_links(ask, base, found))
        return _fhir(OfSearch(criteria, shown, key if name == "patient" else ""), document)

    async def audit_event(ask: Ask) -> Answer:
        access_id = ask.part("access")
        if not _UUID.match(access_id) or (made := made_ms(access_id)) is None:
            raise Invalid("access-id", "an AuditEvent's id is a UUID of version 7")
        hour = moment(datetime.fromtimestamp(made / 1000, UTC), 10)
        rows = await room.views.tables.select(queries.access(hour, access_id))
        if not rows or rows[0]["outcome"] is None:
            raise NotFound("this access is not known, or not yet projected")
        study, patient = rows[0]["study_uid"] or "", rows[0]["patient_key"] or ""
        return _fhir(OfSearch({}, [(study, patient)] if study else [], patient), resource(rows))

    guard.get(
        "/fhir/AuditEvent",
        search_audit_events,
        permission=Permission.ACCESS_READ_ANY,
        action="read-accesses",
        summary="Accesses as FHIR R4 AuditEvents, newest first",
        description="By one of patient, agent and entity (an identifier, with or without `system|`), or by date alone.",
        tag="Accesses",
        media_types=(FHIR,),
        parameters={
            "patient": "patient key (also `patient:identifier`)",
            "agent": "actor (also `agent:identifier`)",
            "entity": "Study Instance UID (also `entity:identifier`)",
            "date": "FHIR date with eq, ge, gt, le or lt; may be repeated",
            "_count": f"most rows, at most {LIMIT_MAX}",
            "_before": "where a page goes on: see the link `next`",
        },
        source=SOURCE,
    )
    guard.get(
        "/fhir/AuditEvent/{access}",
        audit_event,
        permission=Permission.ACCESS_READ_ANY,
        action="read-accesses",
        summary="An access as FHIR R4 AuditEvent",
        tag="Accesses",
        media_types=(FHIR,),
        source=SOURCE,
    )


def _asked(ask: Ask) -> tuple[str, str]:
    """(parameter, its value); empty where it is by date alone. Raises Invalid."""
    given = [(n, ask.option(n) or ask.option(f"{n}:identifier")) for n in ("patient", "agent", "entity")]
    given = [(n, identifier_of(v)) for n, v in given if v]
    if len(given) > 1:
        raise Invalid("search-one-of", "say one of patient, agent and entity")
    if not given:
        return "", ""
    ((name, value),) = given
    if name == "patient":
        checked_key(value)
    if name == "entity":
        check_uid(value)
    return name, value


def _selects(name: str, value: str, span: Span, column: str) -> list[Select]:
    last = span.end - timedelta(microseconds=1)
    match name:
        case "patient":
            return [queries.accesses_of_patient(value, m) for m in buckets(span.first, last, column)]
        case "agent":
            return [queries.accesses_of_actor(value, d) for d in buckets(span.first, last, column)]
        case "entity":
            return [queries.accesses_of_study(value)]
        case _:
            return [queries.accesses_of_hour(h) for h in buckets(span.first, last, column)]


def _whole(row: Row, patient_key: str) -> dict[str, Any]:
    """A row with all that a resource is made of, whichever list it is of."""
    return {**row, "patient_key": row.get("patient_key") or patient_key, "study_uid": row["study_uid"] or ""}


def _count(ask: Ask) -> int:
    text = ask.option("_count") or str(LIMIT)
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= LIMIT_MAX):
        raise Invalid("option-count", f"_count must be a number from 1 to {LIMIT_MAX}")
    return int(text)


def _links(ask: Ask, base: str, found: Page) -> tuple[str, str]:
    asked = [(n, v) for n, v in ask.all_options() if n != "_before"]
    here = f"{base}/AuditEvent"
    self_url = f"{here}?{urlencode(asked)}" if asked else here
    return self_url, f"{here}?{urlencode([*asked, ('_before', str(found.next))])}" if found.next else ""


def _fhir(about: OfSearch, document: dict[str, Any]) -> Answer:
    return Answer(about=about, content=msgspec.json.encode(document), media_type=FHIR)
