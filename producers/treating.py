"""Who treats a patient, as stated: `POST /patients/{key}/treating`, and a study shown to somebody for a time:
`POST /studies/{study}/shares`. `DELETE` ends what was stated.

Facts from which the scopes of doctors and radiologists are computed. Answered when the event is in the chain's journal
and Kafka has acknowledged it or was given a little time to.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Annotated, Final, TypeVar

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from infra import clock
from infra.chain import ChainedLog
from infra.durable import durable
from infra.http_caller import caller_of, needs
from infra.http_door import HttpDoor
from infra.http_problems import problem
from schemas.errors import Invalid
from schemas.events import Event, PersonId, TreatingEnded, TreatingStated
from schemas.identity import check_uid
from schemas.roles import Permission

JSON: Final = "application/json"
KEY: Final = r"^k[0-9]{1,4}:[A-Za-z0-9_-]{43}$"
SHARE_DAYS_MAX: Final = 90

_Key = Annotated[str, msgspec.Meta(pattern=KEY)]


class Treating(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a statement. `until`: RFC 3339; missing: until it is ended."""

    person_id: PersonId
    relation: Annotated[str, msgspec.Meta(pattern=r"^(treating|referring)$")] = "treating"
    until: datetime | None = None


class Share(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a share; it always has an end."""

    person_id: PersonId
    patient_key: _Key
    until: datetime


def register(app: FastAPI, http: HttpDoor) -> None:
    """Add the doors."""
    body = {"requestBody": {"required": True, "content": {JSON: {"schema": {"type": "object"}}}}}
    treat, share = [needs(Permission.TREATING_WRITE)], [needs(Permission.STUDY_SHARE)]

    @app.post(
        "/patients/{key}/treating",
        tags=["Who"],
        summary="State that somebody treats a patient",
        status_code=201,
        dependencies=treat,
        openapi_extra=body,
    )
    async def treating(request: Request, key: str) -> Response:
        stated = _body(await request.body(), Treating)
        event = TreatingStated(
            patient_key=_key(key),
            person_id=stated.person_id,
            relation=stated.relation,
            until=_until(stated.until, None),
            stated_by=caller_of(request).actor,
            recorded=clock.rfc3339(clock.now()),
        )
        return await _answer(http.chain, event, request)

    @app.delete(
        "/patients/{key}/treating/{person}",
        tags=["Who"],
        summary="End such a statement",
        dependencies=treat,
    )
    async def treating_ended(request: Request, key: str, person: str) -> Response:
        event = _ended(request, _key(key), person, None)
        return await _answer(http.chain, event, request, 200)

    @app.post(
        "/studies/{study}/shares",
        tags=["Who"],
        summary=f"Show a study to somebody until then, at most {SHARE_DAYS_MAX} days",
        status_code=201,
        dependencies=share,
        openapi_extra=body,
    )
    async def shared(request: Request, study: str) -> Response:
        check_uid(study)
        stated = _body(await request.body(), Share)
        event = TreatingStated(
            patient_key=stated.patient_key,
            person_id=stated.person_id,
            relation="consulting",
            study_uid=study,
            until=_until(stated.until, SHARE_DAYS_MAX),
            stated_by=caller_of(request).actor,
            recorded=clock.rfc3339(clock.now()),
        )
        return await _answer(http.chain, event, request)

    @app.delete("/studies/{study}/shares/{key}/{person}", tags=["Who"], summary="End a share", dependencies=share)
    async def share_ended(request: Request, study: str, key: str, person: str) -> Response:
        check_uid(study)
        return await _answer(http.chain, _ended(request, _key(key), person, study), request, 200)


def _ended(request: Request, key: str, person: str, study: str | None) -> TreatingEnded:
    try:
        person = msgspec.convert(person, PersonId)
    except msgspec.ValidationError as e:
        raise Invalid("person-id", "this is no person id") from e
    return TreatingEnded(
        patient_key=key,
        person_id=person,
        study_uid=study,
        stated_by=caller_of(request).actor,
        recorded=clock.rfc3339(clock.now()),
    )


async def _answer(chain: ChainedLog, event: Event, request: Request, status: int = 201) -> Response:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind != JSON:
        return problem(415, f"A statement is {JSON}")
    event_id = str(clock.uuid7())
    await asyncio.to_thread(durable, chain, event, id=event_id)
    return JSONResponse({"statement_id": event_id}, status)


T = TypeVar("T", bound=msgspec.Struct)


def _body(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as e:
        names = ", ".join(kind.__struct_fields__)
        raise Invalid("statement-body", f"the body is a JSON object of {names}") from e


def _key(text: str) -> str:
    try:
        return msgspec.convert(text, _Key)
    except msgspec.ValidationError as e:
        raise Invalid("patient-key", "a patient key is `k1:` and 43 characters") from e


def _until(moment: datetime | None, days_max: int | None) -> str | None:
    if moment is None:
        return None
    now = clock.now()
    if moment.tzinfo is None or moment <= now:
        raise Invalid("statement-until", "until is a time to come, with its zone")
    if days_max is not None and moment > now + timedelta(days=days_max):
        raise Invalid("statement-until", f"until is at most {days_max} days from now")
    return clock.rfc3339(moment)
