"""Break-glass: `POST /emergency`. Somebody without a relation to a patient states why, and is let in for a time.

1. the study, or the patient, is one that the archive has; or it is said that they are still to be found
2. the statement is an event (`access.emergency`) that is durable; the officer's list shows it
3. the scopes of this process know it, and every other's by its projection
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Annotated

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from consumers.api import queries
from consumers.api.audit import Audit
from consumers.api.room import Room
from infra import clock
from infra.http_caller import caller_of, needs
from infra.http_problems import ACCESS_HEADER, problem
from schemas.errors import Invalid, NotFound
from schemas.identity import check_uid
from schemas.roles import Permission

JSON = "application/json"
PATH = "/emergency"
REASONS = ("no-relation", "unconscious", "life-threatening", "on-call", "other")
SEARCH_HOURS = 0.5
"""How long somebody may look for whom it is about."""
_KEY = re.compile(r"k[0-9]{1,4}:[A-Za-z0-9_-]{43}\Z")


class Stated(msgspec.Struct, forbid_unknown_fields=True):
    """The body. One of `study_uid` and `patient_key` is needed, or `search`: whom it is about is still to be found."""

    words: Annotated[str, msgspec.Meta(min_length=10, max_length=2000)]
    reason: str = "no-relation"
    study_uid: str = ""
    patient_key: str = ""
    search: bool = False


def parse(body: bytes) -> Stated:
    """Raises Invalid(`emergency-…`)."""
    try:
        stated = msgspec.json.decode(body, type=Stated)
    except msgspec.DecodeError as e:
        text = "study_uid, patient_key or search, reason, and words of 10 to 2000 characters are needed"
        raise Invalid("emergency-body", text) from e
    if not stated.words.strip():
        raise Invalid("emergency-body", "words of 10 to 2000 characters are needed")
    if stated.reason not in REASONS:
        raise Invalid("emergency-reason", f"reason is one of {', '.join(REASONS)}")
    if stated.search:
        if stated.study_uid or stated.patient_key:
            raise Invalid("emergency-body", "search is for a patient who is not known yet")
    elif not stated.study_uid and not _KEY.match(stated.patient_key):
        raise Invalid("emergency-body", "study_uid, patient_key or search is needed")
    if stated.study_uid:
        check_uid(stated.study_uid)
    return stated


def add(app: FastAPI, room: Room, audit: Audit) -> None:
    """Register the route."""

    @app.post(
        PATH,
        tags=["Who"],
        summary="State an emergency, and be let in to a patient's file for a time",
        description="For those who have no relation to the patient; with `search` instead of whose file it is, to look"
        " for them by name (`GET /emergency/patients`). `words` are read by the data protection officer;"
        f" `reason` is one of {', '.join(REASONS)}. The patient sees it in their trail.",
        dependencies=[needs(Permission.ACCESS_EMERGENCY)],
        status_code=201,
        openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": {"type": "object"}}}}},
    )
    async def emergency(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return problem(415, f"An emergency is stated as {JSON}")
        stated = parse(await request.body())
        caller = replace(caller_of(request), purpose="ETREAT")
        # Step 1: whose file it is
        key = stated.patient_key
        if stated.study_uid:
            place = (await room.scopes.places((stated.study_uid,), anew=True)).get(stated.study_uid)
            if place is None:
                raise NotFound("this study is not in the archive, or not yet searchable")
            key = place.patient_key
        elif not stated.search and not await room.views.tables.select(queries.patient_page(key, 1)):
            raise NotFound("this patient is not in the archive, or not yet searchable")
        # Step 2: durable
        hours = room.settings.emergency_hours
        until = clock.now() + timedelta(hours=min(hours, SEARCH_HOURS) if stated.search else hours)
        access_id = await audit.emergency(
            caller, stated.study_uid, key, stated.reason, stated.words.strip(), until=until
        )
        # Step 3: let in
        room.scopes.let_in(caller.actor, stated.study_uid, key, until)
        body = {
            "access_id": access_id,
            "study_uid": stated.study_uid,
            "patient_key": key,
            "until": clock.rfc3339(until),
        }
        return JSONResponse(body, 201, {ACCESS_HEADER: access_id, "Cache-Control": "no-store"})
