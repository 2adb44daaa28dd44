"""Files of one person: `POST /patients/{key}/links`, taken back by `DELETE …/links/{other}`; and files that only look
alike: `POST /patients/{key}/apart`, taken back by `DELETE …/apart/{other}`.

A decision is an event and moves nothing, so it can be undone. `Links` is also what a site's ADT^A40 is made of.
Answered when the event is in the chain's journal and Kafka has acknowledged it or was given a little time to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from infra import clock
from infra.chain import Publishes
from infra.durable import durable
from infra.http_caller import caller_of, needs
from infra.http_door import HttpDoor
from schemas.errors import Invalid
from schemas.events import Code, Event, Id, PatientKeptApart, PatientLinked, PatientUnlinked
from schemas.identity import derived_id, is_patient_key
from schemas.roles import Permission

BODY_BYTES_MAX: Final = 4096


class Decision(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a decision. `id`: a UUID of the sender's choice, the same decision sent again has the same."""

    other_key: str
    reason: Annotated[Code, msgspec.Meta(min_length=1)] = "administrator"
    id: Id | None = None


class Links:
    """Decides of files. Blocking; thread-safe."""

    def __init__(self, chain: Publishes) -> None:
        self._chain = chain

    def link(self, patient_key: str, other_key: str, *, reason: str, by: str, link_id: str = "") -> str:
        """`other_key` is of the same person, and shown with `patient_key` from now on; the link's id."""
        return self._say(PatientLinked, patient_key, other_key, reason, by, link_id)

    def unlink(self, patient_key: str, other_key: str, *, reason: str, by: str, link_id: str = "") -> str:
        """Take such a link back."""
        return self._say(PatientUnlinked, patient_key, other_key, reason, by, link_id)

    def keep_apart(self, one: str, other: str, *, reason: str, by: str, link_id: str = "") -> str:
        """The two are two people's; the order does not matter."""
        first, second = sorted((one, other))
        return self._say(PatientKeptApart, first, second, reason, by, link_id)

    def reopen(self, one: str, other: str, *, reason: str, by: str, link_id: str = "") -> str:
        """Take that back."""
        first, second = sorted((one, other))
        return self._say(PatientUnlinked, first, second, reason, by, link_id, apart=True)

    def _say(
        self,
        kind: type[PatientLinked | PatientUnlinked | PatientKeptApart],
        patient_key: str,
        other_key: str,
        reason: str,
        by: str,
        link_id: str,
        **more: bool,
    ) -> str:
        for key in (patient_key, other_key):
            if not is_patient_key(key):
                raise Invalid("patient-key", "a patient key is `k1:` and 43 characters")
        if patient_key == other_key:
            raise Invalid("link-self", "a file cannot be joined to itself, nor kept apart from itself")
        link_id = link_id or str(clock.uuid7())
        event: Event = kind(
            link_id=link_id,
            patient_key=patient_key,
            other_key=other_key,
            reason=reason,
            stated_by=by,
            recorded=clock.rfc3339(clock.now()),
            **more,
        )
        durable(self._chain, event, id=derived_id(kind.TYPE, link_id))
        return link_id


def register(app: FastAPI, http: HttpDoor) -> None:
    """Add the doors."""
    links = Links(http.chain)
    may = [needs(Permission.PATIENT_LINK)]
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}

    def decision(name: str, summary: str, do: Callable[..., str], undo: Callable[..., str]) -> None:
        """The doors of a decision that can be taken back."""

        @app.post(
            f"/patients/{{key}}/{name}",
            tags=["Patients"],
            summary=summary,
            status_code=201,
            dependencies=may,
            openapi_extra=body,
        )
        async def decide(request: Request, key: str) -> Response:
            asked = _body(await request.body())
            said = {"reason": asked.reason, "by": caller_of(request).actor, "link_id": asked.id or ""}
            return JSONResponse({"link_id": await asyncio.to_thread(do, key, asked.other_key, **said)}, 201)

        @app.delete(f"/patients/{{key}}/{name}/{{other}}", tags=["Patients"], summary="Undo that", dependencies=may)
        async def take_back(request: Request, key: str, other: str) -> Response:
            said = {"reason": "undone", "by": caller_of(request).actor}
            return JSONResponse({"link_id": await asyncio.to_thread(undo, key, other, **said)})

    decision("links", "Join a file (`other_key`) to this one: both are of one person", links.link, links.unlink)
    decision(
        "apart",
        "Keep a file (`other_key`) apart from this one: they are not proposed again",
        links.keep_apart,
        links.reopen,
    )


def _body(data: bytes) -> Decision:
    if len(data) > BODY_BYTES_MAX:
        raise Invalid("link-body", "the body is a small JSON object")
    try:
        return msgspec.json.decode(data, type=Decision)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Invalid("link-body", "the body is a JSON object of other_key, reason and id") from e
