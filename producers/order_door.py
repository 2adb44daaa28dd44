"""The order doors: placing and changing (FHIR R4 ServiceRequest), cancelling, a slip for the patient.

What is answered is an id, a version and the numbers that the archive gave, and nothing of what an order says: that
would be a read. Whoever orders for a site is of it; a doctor orders in their own name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from uuid import UUID

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from infra.http_caller import needs
from infra.http_door import HttpDoor
from infra.http_problems import problem
from infra.settings import Settings
from producers.order_document import parse
from producers.orders import FHIR_JSON, Conflict, Kept, Orders, Told
from producers.slips import Slips
from schemas.caller import ALL_SITES, Caller
from schemas.errors import Forbidden, Invalid, NotFound
from schemas.events import Code
from schemas.roles import Permission, Scope, scope_of

JSON: Final = "application/json"
MEDIA_TYPES: Final = (FHIR_JSON, JSON)


class Cancelling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a cancellation."""

    reason: Code = "not-needed"
    mistake: bool = False
    """It should never have been ordered (`entered-in-error`), and not only is not done (`revoked`)."""


def orders_of(http: HttpDoor) -> Orders:
    """The orders of a door."""
    settings = http.settings
    return Orders(
        http.objects, http.chain, bucket=settings.bucket_documents, site=settings.site, zone=settings.time_zone
    )


def register(app: FastAPI, http: HttpDoor) -> None:
    """Add the doors' handlers."""
    orders = orders_of(http)
    slips = Slips(http.objects, http.settings.bucket_documents)
    may = [needs(Permission.ORDER_WRITE)]
    document = {"requestBody": {"required": True, "content": {FHIR_JSON: {"schema": {"type": "object"}}}}}
    json = {"requestBody": {"required": False, "content": {JSON: {"schema": {"type": "object"}}}}}

    async def admitted(request: Request, site: str, requester: str, study_uid: str = "") -> Caller:
        caller = await http.gate.admit(request, Permission.ORDER_WRITE)
        if why := beyond(caller, site, requester):
            access_id = await http.gate.denied(caller, Permission.ORDER_WRITE, "scope", study_uid, "")
            raise Forbidden("scope", why, access_id=access_id)
        return caller

    async def known(request: Request, id: str) -> tuple[Kept, Caller]:
        kept = await asyncio.to_thread(orders.current, id)
        if kept is None:
            raise NotFound("there is no such order")
        return kept, await admitted(request, kept.order.site, kept.order.requester, kept.order.study_uid)

    async def sent(request: Request) -> tuple[bytes, str, Caller] | None:
        """(document, its site, who sends it); None for another media type."""
        body = await _body(request)
        if body is None:
            return None
        order = parse(body).order
        caller = await http.gate.admit(request, Permission.ORDER_WRITE)
        site = order.site or site_of(caller, http.settings)
        return body, site, await admitted(request, site, order.requester)

    @app.post(
        "/fhir/ServiceRequest",
        tags=["Orders"],
        summary="Place an order (FHIR R4 ServiceRequest with a contained Patient)",
        description="An order without an accession number gets one, and every order a Study Instance UID. The same"
        " again, by `id` or by the placer's number (identifier of type PLAC), is no second order.",
        dependencies=may,
        openapi_extra=document,
    )
    async def place(request: Request) -> Response:
        found = await sent(request)
        if found is None:
            return _unsupported()
        body, site, caller = found
        return await _answer(partial(orders.place, body, actor=caller.actor, site=site))

    @app.put(
        "/fhir/ServiceRequest/{order}",
        tags=["Orders"],
        summary="Change an order, or place it under an id of yours; If-Match names the version that is changed",
        dependencies=may,
        openapi_extra=document,
    )
    async def change(request: Request, order: str) -> Response:
        found = await sent(request)
        if found is None:
            return _unsupported()
        id, (body, site, caller) = _id(order), found
        if (own := parse(body).order.order_id) and own != order:
            raise Invalid("order-id", "the id of the ServiceRequest is not the one of the address")
        expected = _if_match(request.headers.get("if-match"))
        current = await asyncio.to_thread(orders.current, id)
        if current is not None:
            await known(request, id)
            if expected is None:
                return _conflict(Conflict(428, "order-if-match", "If-Match with the version that is changed is needed"))
        return await _answer(partial(orders.change, id, body, expected, actor=caller.actor, site=site))

    @app.post(
        "/orders/{order}/cancellation",
        tags=["Orders"],
        summary='Cancel an order: {"reason": code, "mistake": it should never have been ordered}',
        dependencies=may,
        openapi_extra=json,
    )
    async def cancel(request: Request, order: str) -> Response:
        id = _id(order)
        try:
            asked = msgspec.json.decode(await request.body() or b"{}", type=Cancelling)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise Invalid("order-cancellation", "a cancellation is {reason, mistake}") from e
        _, caller = await known(request, id)
        status = "entered-in-error" if asked.mistake else "revoked"
        expected = _if_match(request.headers.get("if-match"))
        return await _answer(
            partial(orders.cancel, id, expected, actor=caller.actor, reason=asked.reason, status=status)
        )

    @app.post(
        "/orders/{order}/slips",
        tags=["Orders"],
        summary="A slip for the patient: a new PIN, told once; the one before opens nothing any more",
        dependencies=may,
    )
    async def slip(request: Request, order: str) -> Response:
        kept, caller = await known(request, _id(order))
        printed = await asyncio.to_thread(slips.issue, kept.order_id, caller.actor)
        told = {"order_id": kept.order_id, "number": printed.number, "pin": printed.pin}
        return JSONResponse(told, 201, {"Cache-Control": "private, no-store"})


def beyond(caller: Caller, site: str, requester: str) -> str:
    """Why an order is beyond what somebody may place or change; empty if it is not."""
    match scope_of(caller.role, Permission.ORDER_WRITE):
        case Scope.WHOLE:
            return ""
        case Scope.OWN_SITE:
            return "" if {site, ALL_SITES} & caller.sites else "this order is of a site that is not yours"
        case Scope.OWN_PATIENTS if not caller.person_id or requester != caller.person_id:
            return f"you order in your own name: requester is Practitioner/{caller.person_id or '<your person id>'}"
        case Scope.OWN_PATIENTS:
            return ""
        case _:
            return f"the role {caller.role} may not: {Permission.ORDER_WRITE}"


def site_of(caller: Caller, settings: Settings) -> str:
    """The site of an order that names none: the caller's, if they have one."""
    own = caller.sites - {ALL_SITES}
    return next(iter(own)) if len(own) == 1 else settings.site


async def _answer(work: Callable[[], Told]) -> Response:
    try:
        told = await asyncio.to_thread(work)
    except Conflict as conflict:
        return _conflict(conflict)
    body: dict[str, Any] = {
        "id": told.order_id,
        "version": told.version,
        "status": told.status,
        "site": told.site,
        "accession": told.accession,
        "study_uid": told.study_uid,
    }
    headers = {"Location": f"/fhir/ServiceRequest/{told.order_id}", "ETag": f'W/"{told.version}"'}
    return JSONResponse(body, 201 if told.new and told.version == 1 else 200, headers)


def _conflict(conflict: Conflict) -> Response:
    return problem(conflict.status, "The order cannot be changed so", str(conflict), reason=conflict.reason)


async def _body(request: Request) -> bytes | None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return await request.body() if kind in MEDIA_TYPES else None


def _unsupported() -> Response:
    return problem(415, f"An order is {FHIR_JSON}")


def _id(text: str) -> str:
    """Raises Invalid for what cannot be the id of an order."""
    try:
        return str(UUID(text))
    except ValueError as e:
        raise Invalid("order-id", "the id of an order is a UUID") from e


def _if_match(header: str | None) -> int | None:
    if header is None:
        return None
    number = header.strip().removeprefix("W/").strip('"')
    if not (number.isascii() and number.isdigit()):
        raise Invalid("order-if-match", 'If-Match is W/"<version>"')
    return int(number)
