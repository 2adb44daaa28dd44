"""Links to patients: staff issue, list and take them back; whoever has one opens it with a second secret.

The addresses by which a link is opened ask nobody who they are: that is what they find out. What they are told of a
link that is none, and of one whose patient is unknown, is the same.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from consumers.api import queries
from consumers.api.guard import Answer, Ask, Guard, OfSearch
from consumers.api.invitations import Invitation, Invitations, PatientSessions, Refused, State, patient, session_id
from consumers.api.room import Room
from consumers.api.routes.lists import JSON, checked_key, patient_key_of
from infra import clock
from infra.http_caller import address_of, caller_of, gate_of, header, needs
from infra.identity.sessions import cookie_value, set_cookie
from infra.messages import Message, Messenger
from infra.ports import Row
from schemas.caller import ALL_SITES, Caller
from schemas.errors import Forbidden, Invalid, NotFound
from schemas.phone import e164, masked
from schemas.roles import Permission, scope_of
from schemas.roles import Scope as Reach

OPENING = ("/invitations/state", "/invitations/code", "/invitations/open")
ORDER_WAIT_S, ORDER_LOOK_S = 3.0, 0.1
"""An order that was placed just now is projected within."""
TOKEN_MAX = 128
OF_PATIENT = "patient:"
"""Before the id of a session that a link began."""
LOGOUT = "/p/logout"
"""Page that ends one."""

TEXTS = {
    "link": (
        "لديك ملف أشعة على سجل. افتحه من هنا: {url}",
        "You have a radiology file in Sijil. Open it here: {url}",
    ),
    "code": (
        "رمز فتح ملفك على سجل: {code} (صالح لعشر دقائق). لا تعطه لأحد.",
        "Your Sijil code: {code} (valid for ten minutes). Give it to nobody.",
    ),
}
"""What is sent by SMS, Arabic and English: that there is something, never what."""


class Issue(msgspec.Struct, forbid_unknown_fields=True):
    """Body of an invitation. One of `order_id` and `patient_key` is needed."""

    order_id: Annotated[str, msgspec.Meta(max_length=64)] = ""
    patient_key: Annotated[str, msgspec.Meta(max_length=64)] = ""
    factor: Literal["pin", "otp"] = "otp"
    phone: Annotated[str, msgspec.Meta(max_length=40)] = ""
    """Where a code, and with `send` the link, is sent to; empty: that of the order."""
    once: bool = True
    hours: float = 0.0
    """0: as the settings say."""
    send: bool = False
    lang: Literal["ar", "en"] = "ar"


class Token(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a question about a link."""

    token: Annotated[str, msgspec.Meta(max_length=TOKEN_MAX)]
    lang: Literal["ar", "en"] = "ar"


class Open(msgspec.Struct, forbid_unknown_fields=True):
    """Body of an attempt to open one."""

    token: Annotated[str, msgspec.Meta(max_length=TOKEN_MAX)]
    secret: Annotated[str, msgspec.Meta(max_length=40)]


class PatientCookie:
    """An authenticator: the browser of a patient who opened a link."""

    def __init__(self, sessions: PatientSessions) -> None:
        self._sessions = sessions

    async def caller(self, scope: Scope) -> Caller | None:
        """See `infra.http_caller.Authenticator`."""
        cookie = cookie_value(header(scope, "cookie"), cookie_name(scope))
        if not cookie or len(cookie) > TOKEN_MAX:
            return None
        key = await self._sessions.patient_of(cookie)
        if not key:
            return None
        scope["state"] |= {"session": f"{OF_PATIENT}{session_id(cookie)}", "logout": LOGOUT}
        return patient(key, address_of(scope))


def cookie_name(scope: Scope) -> str:
    """As the sessions of staff: bound to the host where there is TLS."""
    return f"__Host-{PatientSessions.COOKIE}" if scope["scheme"] == "https" else PatientSessions.COOKIE


def add(app: FastAPI, guard: Guard, room: Room, invitations: Invitations, messenger: Messenger) -> None:
    """Register the routes."""
    _add_staff(app, guard, room, invitations, messenger)
    _add_opening(app, invitations)
    gate_of(app).open(*OPENING, "/invitations/close")


# ------------------------------------------------------------------------------------------------ staff


def _add_staff(app: FastAPI, guard: Guard, room: Room, invitations: Invitations, messenger: Messenger) -> None:
    may = [needs(Permission.PATIENT_INVITE)]
    schema = {"requestBody": {"required": True, "content": {JSON: {"schema": {"type": "object"}}}}}

    @app.post(
        "/invitations",
        tags=["Patients"],
        summary="Give a patient a link to their own file",
        description="`order_id` or `patient_key`; `factor`: `pin` (of the order's slip) or `otp` (a code to `phone`, or"
        " the order's); `once`: spent when opened; `hours` it holds; `send`: by SMS to the phone.",
        status_code=201,
        dependencies=may,
        openapi_extra=schema,
    )
    async def invite(request: Request) -> Response:
        asked = _body(await request.body(), Issue)
        who = caller_of(request)
        key, phone = await _about(room, request, who, asked)
        if asked.phone or phone:
            phone = e164(asked.phone or phone, room.settings.phone_country)
        if asked.send and not phone:
            raise Invalid("invitation-phone", "to be sent, the link needs a telephone number")
        id, token, expires = await invitations.issue(
            who,
            patient_key=key,
            order_id=asked.order_id,
            phone=phone,
            factor=asked.factor,
            once=asked.once,
            hours=asked.hours or room.settings.invitation_hours,
        )
        base = room.settings.http_public_url.rstrip("/") or f"{request.url.scheme}://{request.headers.get('host', '')}"
        url = f"{base}/p/{token}"
        if asked.send:
            text = TEXTS["link"][asked.lang == "en"].format(url=url)
            await messenger.send(Message(channel="sms", to=phone, text=text, key=f"{id}-link"))
        told = {"invitation_id": id, "url": url, "expires": clock.rfc3339(expires), "phone": masked(phone)}
        return JSONResponse(told, 201, {"Cache-Control": "no-store"})

    @app.delete(
        "/invitations/{invitation}",
        tags=["Patients"],
        summary="Take a link back: it opens nothing any more, and who opened it is let in no longer",
        dependencies=may,
    )
    async def revoke(request: Request, invitation: str) -> Response:
        found = await invitations.of(invitation)
        if found is None:
            raise NotFound("there is no such invitation")
        await _within(room, request, caller_of(request), found.patient_key, found.order_id)
        await invitations.revoke(caller_of(request), found)
        return JSONResponse({"invitation_id": found.id, "state": State.REVOKED})

    async def listed(ask: Ask) -> Answer:
        key = patient_key_of(ask)
        shown = [_shown(i, await invitations.state_of(i)) for i in await invitations.of_patient(key)]
        return Answer(about=OfSearch({}, (), key), content=msgspec.json.encode({"invitations": shown}), media_type=JSON)

    guard.get(
        "/patients/{key}/invitations",
        listed,
        permission=Permission.PATIENT_INVITE,
        action="read-invitations",
        summary="The links that a patient was given, newest first",
        tag="Patients",
        source="sijil.accesses",
    )


async def _about(room: Room, request: Request, who: Caller, asked: Issue) -> tuple[str, str]:
    """(patient key, phone of the order). Raises Invalid, NotFound, Forbidden."""
    if bool(asked.order_id) == bool(asked.patient_key):
        raise Invalid("invitation-about", "one of order_id and patient_key is needed")
    if asked.patient_key:
        key = checked_key(asked.patient_key)
        await _within(room, request, who, key, "")
        return key, ""
    row = await _order(room, asked.order_id)
    await _within(room, request, who, row["patient_key"], asked.order_id)
    return row["patient_key"], row["phone"] or ""


async def _within(room: Room, request: Request, who: Caller, key: str, order_id: str) -> None:
    """Of an own site's order, or an own patient. Raises Forbidden, recorded."""
    own = scope_of(who.role, Permission.PATIENT_INVITE) is Reach.WHOLE or ALL_SITES in who.sites
    if not own and order_id:
        own = (await _order(room, order_id))["site"] in who.sites
    if not own:
        await gate_of(request.app).admit(request, Permission.PATIENT_INVITE, (), key)


async def _order(room: Room, order_id: str) -> Row:
    """An order in its last version. Raises NotFound."""
    deadline = clock.monotonic() + ORDER_WAIT_S
    while True:
        rows = await room.views.tables.select(queries.order(order_id))
        if rows and rows[0]["patient_key"]:
            return rows[0]
        if clock.monotonic() >= deadline:
            raise NotFound("this order is not in the archive, or not yet searchable")
        await asyncio.sleep(ORDER_LOOK_S)


def _shown(invitation: Invitation, state: State) -> dict[str, Any]:
    told = {
        "invitation_id": invitation.id,
        "order_id": invitation.order_id,
        "factor": invitation.factor,
        "once": invitation.once,
        "expires": clock.rfc3339(invitation.expires),
        "opened": clock.rfc3339(invitation.opened) if invitation.opened else "",
        "state": state,
    }
    return {n: v for n, v in told.items() if v != ""}


# ------------------------------------------------------------------------------------------------ the patient


def _add_opening(app: FastAPI, invitations: Invitations) -> None:
    tag: list[str | Enum] = ["Patients"]
    schema = {"requestBody": {"required": True, "content": {JSON: {"schema": {"type": "object"}}}}}

    @app.post("/invitations/state", tags=tag, summary="What a link is good for (`token`)", openapi_extra=schema)
    async def state(request: Request) -> Response:
        found, invitation = await invitations.look(_body(await request.body(), Token).token)
        told: dict[str, str] = {"state": found, "factor": invitation.factor if invitation else "pin"}
        if invitation is not None and found is State.OPEN and invitation.factor == "otp":
            told["phone"] = masked(invitation.phone)
        return JSONResponse(told, headers={"Cache-Control": "no-store"})

    @app.post(
        "/invitations/code", tags=tag, summary="Send a code to the phone of a link (`token`)", openapi_extra=schema
    )
    async def code(request: Request) -> Response:
        asked = _body(await request.body(), Token)
        try:
            phone = await invitations.send_code(
                asked.token, lambda code: TEXTS["code"][asked.lang == "en"].format(code=code)
            )
        except Refused as refused:
            raise Forbidden(f"link-{refused.why}", "no code is sent for this link") from refused
        return JSONResponse({"phone": phone}, headers={"Cache-Control": "no-store"})

    @app.post(
        "/invitations/open",
        tags=tag,
        summary="Open a link (`token`) with the slip's PIN or the code (`secret`): a session of some minutes",
        openapi_extra=schema,
    )
    async def open_(request: Request) -> Response:
        asked = _body(await request.body(), Open)
        try:
            opened = await invitations.open(asked.token, asked.secret, address_of(request.scope))
        except Refused as refused:
            raise Forbidden(f"link-{refused.why}", "this link was not opened") from refused
        answer = JSONResponse({"ends": clock.rfc3339(opened.ends)}, headers={"Cache-Control": "no-store"})
        answer.headers["Set-Cookie"] = set_cookie(request.scope, opened.cookie, name=cookie_name(request.scope))
        return answer

    @app.post("/invitations/close", tags=tag, summary="End the session that a link began", status_code=204)
    async def close(request: Request) -> Response:
        session: str = request.scope["state"].get("session", "")
        if session.startswith(OF_PATIENT):
            await invitations.sessions.end(session.removeprefix(OF_PATIENT))
        gone = set_cookie(request.scope, "", name=cookie_name(request.scope), seconds=0)
        return Response(status_code=204, headers={"Set-Cookie": gone, "Clear-Site-Data": '"cache"'})


T = TypeVar("T", bound=msgspec.Struct)


def _body(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        names = ", ".join(kind.__struct_fields__)
        raise Invalid("invitation-body", f"the body is a JSON object of {names}") from e
