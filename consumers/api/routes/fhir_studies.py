"""`GET /fhir/ImagingStudy`, and where images are retrieved from: `GET /fhir/Endpoint`."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from urllib.parse import urlencode

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import Response

from consumers.api import queries
from consumers.api.attributes import Level, find
from consumers.api.audit_event import Span
from consumers.api.fhir_files import Files
from consumers.api.fhir_query import (
    COUNTED_MAX,
    NAMES,
    NATURAL,
    NO_PAGE,
    Asked,
    is_lenient,
    local_days,
    oid,
    ordered,
    parse,
    patients_of,
    sliced,
    token,
    within,
)
from consumers.api.guard import Answer, Ask, Guard, OfSearch, OfStudy
from consumers.api.planner import ByReach, plan
from consumers.api.qido import Condition, Kind, Query, condition_of
from consumers.api.room import Room
from consumers.api.routes.fhir_page import (
    asked_of,
    base_of,
    counted,
    criteria,
    fhir,
    included,
    page,
    parameters,
    referring,
)
from consumers.api.scope import Within
from consumers.api.search import Hit
from consumers.api.trail import buckets
from consumers.api.walk import Deadline
from consumers.fhir import endpoint
from consumers.fhir.bundle import searchset, subset
from consumers.fhir.codes import DICOM_UID, MEDIA_TYPE, Resource
from consumers.fhir.imaging_study import imaging_study
from infra import clock
from infra.http_caller import needs
from infra.ports import Row
from schemas.errors import Invalid, NotFound
from schemas.identity import check_uid
from schemas.roles import Permission

_PAGE = re.compile(r"([0-9]{8}[0-9.]{0,16})_([0-9.]{1,64})\Z")
ARRIVED_MAX: Final = timedelta(days=8)
SITES_MAX: Final = 1000
LISTS_AT_ONCE: Final = 256
CUT = "the search was stopped at its deadline: narrow it, or go on with the link next"


def add(app: FastAPI, guard: Guard, room: Room) -> None:
    """Register the routes."""
    files = Files(room)

    async def find_studies(ask: Ask) -> Answer:
        asked = asked_of(ask, "ImagingStudy")
        base, total = base_of(room, ask), None
        notes: list[str] = []
        if asked.counted or _by_uid(asked) or asked.sort not in ("", NATURAL[asked.resource]):
            rows = await _all(room, files, ask, asked)
            if asked.counted:
                return counted(ask, base, asked, len(rows))
            total = len(rows)
            part, more = sliced(asked, await _sorted(files, asked, rows))
            rows = list(part)
        else:
            rows, more, notes = await _found(room, files, ask, asked)
        whole = await files.whole([r["study_uid"] for r in rows])
        shown = await files.studies(whole)
        pairs = [(r["study_uid"], r["patient_key"] or "") for r in whole]
        uids = [u for u, _ in pairs]
        beside, left_out = await included(files, room, ask, asked, patients=[k for _, k in pairs if k], study_uids=uids)
        below, seen, kept_out = await referring(files, room, ask, asked, study_uids=uids)
        about = OfSearch(criteria(asked), list(dict.fromkeys([*pairs, *seen])))
        told = [*notes, *left_out, *kept_out]
        return page(ask, base, asked, shown, about, beside=[*beside, *below], next=more, notes=told, total=total)

    async def study(ask: Ask) -> Answer:
        uid = ask.uid("study")
        rows = await files.whole([uid])
        if not rows:
            raise NotFound("this study is not in the archive, or not yet searchable")
        (found,) = await files.studies(rows)
        return fhir(OfStudy(uid, rows[0]["patient_key"] or ""), found)

    guard.get(
        "/fhir/ImagingStudy",
        find_studies,
        permission=Permission.STUDY_SEARCH,
        action="search",
        summary="Studies as FHIR R4, newest first",
        tag="FHIR",
        media_types=(MEDIA_TYPE,),
        parameters=parameters("ImagingStudy"),
    )
    guard.get(
        "/fhir/ImagingStudy/{study}",
        study,
        permission=Permission.STUDY_READ,
        action="read-status",
        summary="A study as FHIR R4",
        tag="FHIR",
        media_types=(MEDIA_TYPE,),
    )
    may = [needs(Permission.STUDY_READ)]

    def base(request: Request) -> str:
        return room.settings.http_public_url.rstrip("/") or str(request.base_url).rstrip("/")

    @app.get("/fhir/Endpoint", tags=["FHIR"], summary="Where images are retrieved from", dependencies=may)
    async def endpoints(request: Request) -> Response:
        pairs = request.query_params.multi_items()
        asked = parse("Endpoint", pairs, lenient=is_lenient(request.headers.get("prefer", "")))
        ids = asked.one("_id")
        found = [files.endpoint(f"{base(request)}/dicom-web")] if not ids or endpoint.ID in ids.split(",") else []
        shown = [subset(f, asked.elements) if asked.elements else f for f in found if not asked.counted]
        here = f"{base(request)}/fhir/Endpoint"
        kept = urlencode([pair for pair in pairs if pair not in asked.left_out])
        bundle = searchset(
            shown, [], base=f"{base(request)}/fhir", here=f"{here}?{kept}" if kept else here, total=len(found)
        )
        return Response(msgspec.json.encode(bundle), media_type=MEDIA_TYPE)

    @app.get("/fhir/Endpoint/{endpoint}", tags=["FHIR"], summary="The DICOMweb service (FHIR R4)", dependencies=may)
    async def one_endpoint(request: Request) -> Response:
        if request.path_params["endpoint"] != endpoint.ID:
            raise NotFound(f"the one endpoint here is {endpoint.ID}")
        return Response(msgspec.json.encode(files.endpoint(f"{base(request)}/dicom-web")), media_type=MEDIA_TYPE)


async def _found(room: Room, files: Files, ask: Ask, asked: Asked) -> tuple[list[Row], str, list[str]]:
    """The rows of a page in their order, where the next one begins, and what to say."""
    query, keys = await _query(room, files, asked)
    chosen, scope = plan(query), Within(ask.reach, room.scopes)
    if keys:
        chosen = replace(chosen, source=ByReach(tuple(keys), ()), counted=False)
    deadline = Deadline(room.settings.query_deadline_s)
    rows: list[Row] = []
    last = ""
    async for hits in room.views.searcher.each(query, chosen, deadline=deadline, within=None if keys else scope):
        for row in await scope.kept(await _matching(files, asked, hits, keys)):
            if len(rows) == asked.count:
                return rows, last, []
            rows.append(row)
            last = f"{row['moment']}_{row['study_uid']}" if row.get("moment") else ""
    return rows, last if deadline.passed else "", [CUT] if deadline.passed else []


def _by_uid(asked: Asked) -> bool:
    """Whether studies are looked up one by one: they come in no order then."""
    return "_id" in asked.values or ("_lastUpdated" in asked.values and not NAMES & asked.values.keys())


async def _all(room: Room, files: Files, ask: Ask, asked: Asked) -> list[Row]:
    """The rows of every match. Raises Invalid(`search-too-wide`) for more than can be counted or sorted."""
    every = replace(asked, count=COUNTED_MAX, page="")
    rows, more, notes = await _found(room, files, ask, every)
    if more or notes:
        raise Invalid("search-too-wide", f"there are more than {COUNTED_MAX}, or it takes too long: narrow it")
    return rows


async def _sorted(files: Files, asked: Asked, rows: list[Row]) -> list[Row]:
    whole = await files.whole([r["study_uid"] for r in rows])
    sort = asked if asked.sort else replace(asked, sort=NATURAL[asked.resource])

    def by(row: Row) -> tuple[str, str]:
        study = _plain(files, row)
        if asked.sort.endswith("_lastUpdated"):
            return study.get("meta", {}).get("lastUpdated", ""), study["id"]
        started = study.get("started", "")
        at = datetime.fromisoformat(started).astimezone(UTC).isoformat() if len(started) > 10 else started
        return at, study["id"]

    return ordered(sort, whole, by)


def _plain(files: Files, row: Row) -> Resource:
    """A study as far as its own row tells."""
    return imaging_study(row, (), subject={}, endpoint={}, zone=files.zone)


async def _arrived(room: Room, span: Span) -> tuple[str, ...]:
    """Studies of which something arrived in a time, by the lists of sites and days. Raises
    Invalid(`search-too-wide`).
    """
    end = min(span.end, clock.now() + timedelta(hours=1)).astimezone(UTC)
    first = span.first.astimezone(UTC)
    if end - first > ARRIVED_MAX:
        raise Invalid(
            "search-too-wide", f"_lastUpdated alone: at most {ARRIVED_MAX.days} days; or say patient, identifier or _id"
        )
    tables = room.views.tables
    sites = [r["site"] for r in await tables.select(queries.sites(SITES_MAX))]
    listed = (
        [queries.by_site_day(site, day) for day in buckets(first, end, "day") for site in sites] if first < end else []
    )
    found: set[str] = set()
    for n in range(0, len(listed), LISTS_AT_ONCE):
        for rows in await tables.select_many(listed[n : n + LISTS_AT_ONCE]):
            found |= {r["study_uid"] for r in rows if first <= r["last_arrival"].astimezone(UTC) < end}
        if len(found) > COUNTED_MAX:
            raise Invalid("search-too-wide", f"something of more than {COUNTED_MAX} studies arrived then: ask for less")
    return tuple(sorted(found))


async def _matching(files: Files, asked: Asked, hits: list[Hit], keys: frozenset[str]) -> list[Row]:
    """Of hits those that fit what no index knows: whose they are now, the time of the day, the status."""
    rows = [h.study for h in hits if not keys or h.study["patient_key"] in keys]
    if not {"status", "started", "_lastUpdated"} & asked.values.keys():
        return rows
    whole = {r["study_uid"]: r for r in await files.whole([r["study_uid"] for r in rows])}
    resources = {uid: _plain(files, r) for uid, r in whole.items()}
    return [r for r in rows if _fits(resources.get(r["study_uid"], {}), asked, files.zone)]


def _fits(study: Resource, asked: Asked, zone: tzinfo) -> bool:
    statuses = asked.any_of("status")
    if statuses and study.get("status") not in statuses:
        return False
    updated = study.get("meta", {}).get("lastUpdated", "")
    return within(asked.span("started"), study.get("started", ""), zone) and within(
        asked.span("_lastUpdated"), updated, zone
    )


async def _query(room: Room, files: Files, asked: Asked) -> tuple[Query, frozenset[str]]:
    """What the planner is asked, and the files it is asked about; none: whosever."""
    conditions: list[Condition | None] = []
    keys: frozenset[str] = frozenset()
    if uids := [u for u in asked.one("_id").split(",") if u]:
        conditions.append(condition_of(find("StudyInstanceUID"), ",".join(uids)))
    if text := asked.one("identifier"):
        system, value = token(text)
        if system == DICOM_UID or value.startswith("urn:oid:"):
            check_uid(oid(value))
            conditions.append(condition_of(find("StudyInstanceUID"), oid(value)))
        else:
            conditions.append(condition_of(find("AccessionNumber"), value))
    if values := asked.values.get("patient"):
        key, identifier = patients_of(values)
        if key:
            keys = frozenset((await files.group(key)).keys)
        else:
            conditions.append(condition_of(find("PatientID"), token(identifier)[1]))
    if modality := asked.any_of("modality"):
        conditions.append(Condition(find("ModalitiesInStudy"), Kind.ANY, tuple(sorted(modality))))
    if (span := asked.span("started")) is not None:
        first, last = local_days(span, files.zone)
        if first or last:
            conditions.append(Condition(find("StudyDate"), Kind.RANGE, (first, last)))
    if (updated := asked.span("_lastUpdated")) is not None and not NAMES & asked.values.keys():
        conditions.append(Condition(find("StudyInstanceUID"), Kind.UIDS, await _arrived(room, updated)))
    cursor = ("", "")
    if asked.page:
        found = _PAGE.match(asked.page)
        if not found:
            raise Invalid("option-page", NO_PAGE)
        cursor = (found[1], found[2])
    return Query(Level.STUDY, tuple(c for c in conditions if c is not None), cursor=cursor), keys
