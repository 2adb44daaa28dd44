"""`GET /fhir/ImagingStudy`, and where images are retrieved from: `GET /fhir/Endpoint`."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import tzinfo

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import Response

from consumers.api.attributes import Level, find
from consumers.api.fhir_files import Files
from consumers.api.fhir_query import NO_PAGE, Asked, local_days, oid, patients_of, token, within
from consumers.api.guard import Answer, Ask, Guard, OfSearch, OfStudy
from consumers.api.planner import ByReach, plan
from consumers.api.qido import Condition, Kind, Query, condition_of
from consumers.api.room import Room
from consumers.api.routes.fhir_page import asked_of, base_of, criteria, fhir, included, page, parameters
from consumers.api.scope import Within
from consumers.api.search import Hit
from consumers.api.walk import Deadline
from consumers.fhir import endpoint
from consumers.fhir.bundle import searchset
from consumers.fhir.codes import DICOM_UID, MEDIA_TYPE, Resource
from infra.http_caller import needs
from infra.ports import Row
from schemas.errors import Invalid, NotFound
from schemas.identity import check_uid
from schemas.roles import Permission

_PAGE = re.compile(r"([0-9]{8}[0-9.]{0,16})_([0-9.]{1,64})\Z")
CUT = "the search was stopped at its deadline: narrow it, or go on with the link next"


def add(app: FastAPI, guard: Guard, room: Room) -> None:
    """Register the routes."""
    files = Files(room)

    async def find_studies(ask: Ask) -> Answer:
        asked = asked_of(ask, "ImagingStudy")
        rows, more, notes = await _found(room, files, ask, asked)
        whole = await files.whole([r["study_uid"] for r in rows])
        shown = await files.studies(whole)
        pairs = [(r["study_uid"], r["patient_key"] or "") for r in whole]
        beside, left_out = await included(
            files, room, ask, asked, patients=[k for _, k in pairs if k], study_uids=[u for u, _ in pairs]
        )
        about = OfSearch(criteria(asked), pairs)
        return page(ask, base_of(room, ask), asked, shown, about, beside=beside, next=more, notes=[*notes, *left_out])

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
        found = [files.endpoint(f"{base(request)}/dicom-web")]
        if (id := request.query_params.get("_id")) and id != endpoint.ID:
            found = []
        bundle = searchset(found, [], base=f"{base(request)}/fhir", here=str(request.url), total=len(found))
        return Response(msgspec.json.encode(bundle), media_type=MEDIA_TYPE)

    @app.get("/fhir/Endpoint/{endpoint}", tags=["FHIR"], summary="The DICOMweb service (FHIR R4)", dependencies=may)
    async def one_endpoint(request: Request) -> Response:
        if request.path_params["endpoint"] != endpoint.ID:
            raise NotFound(f"the one endpoint here is {endpoint.ID}")
        return Response(msgspec.json.encode(files.endpoint(f"{base(request)}/dicom-web")), media_type=MEDIA_TYPE)


async def _found(room: Room, files: Files, ask: Ask, asked: Asked) -> tuple[list[Row], str, list[str]]:
    """The rows of a page in their order, where the next one begins, and what to say."""
    query, keys = await _query(files, asked)
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


async def _matching(files: Files, asked: Asked, hits: list[Hit], keys: frozenset[str]) -> list[Row]:
    """Of hits those that fit what no index knows: whose they are now, the time of the day, the status."""
    rows = [h.study for h in hits if not keys or h.study["patient_key"] in keys]
    statuses, span = asked.any_of("status"), asked.span("started")
    if not statuses and span is None:
        return rows
    whole = {r["study_uid"]: r for r in await files.whole([r["study_uid"] for r in rows])}
    resources = {r["id"]: r for r in await files.studies(list(whole.values()))}
    return [r for r in rows if _fits(resources.get(r["study_uid"], {}), asked, files.zone)]


def _fits(study: Resource, asked: Asked, zone: tzinfo) -> bool:
    statuses = asked.any_of("status")
    if statuses and study.get("status") not in statuses:
        return False
    return within(asked.span("started"), study.get("started", ""), zone)


async def _query(files: Files, asked: Asked) -> tuple[Query, frozenset[str]]:
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
    cursor = ("", "")
    if asked.page:
        found = _PAGE.match(asked.page)
        if not found:
            raise Invalid("option-page", NO_PAGE)
        cursor = (found[1], found[2])
    return Query(Level.STUDY, tuple(c for c in conditions if c is not None), cursor=cursor), keys
