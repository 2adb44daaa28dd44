"""The only way out for patient data: a route whose handler cannot answer before the access trail has.

A handler gets an `Ask` and gives an `Answer`, which says about whom it is; it has no way to make a response. The guard
1. decides by the table of `consumers.api.access`; a refusal is recorded and answered 403;
2. lets the handler find the answer;
3. has the access event made durable;
4. only then makes the response and counts what leaves.
`tests/stack/test_access.py` walks all routes of the door and finds none of this room without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from consumers.api.access import ALLOWED, KNOWN, refusal
from consumers.api.audit import Audit, Pair, Window
from consumers.api.freshness import Freshness
from consumers.api.reach import Reach
from consumers.api.read_after import ReadAfter
from consumers.api.scope import Scopes
from consumers.api.standing import Standing
from consumers.fhir.ids import patient_key_of
from infra.http_caller import PURPOSE_HEADER, caller_of, why_not
from infra.http_methods import is_head
from infra.http_problems import ACCESS_HEADER
from schemas.caller import Caller
from schemas.errors import Forbidden, Invalid, Transient
from schemas.identity import check_uid, is_patient_key
from schemas.read_token import HEADER as READ_TOKEN_HEADER
from schemas.roles import Permission

LAG_HEADER = "Sijil-Projection-Lag"
ARRIVALS = "sijil.study.arrivals"

Chunk = bytes | memoryview


@dataclass(frozen=True)
class Portion:
    """A piece of a stream that shows further studies: an access event of its own is durable before it leaves."""

    shown: Sequence[Pair]
    data: bytes


Content = bytes | AsyncIterator[Chunk] | AsyncIterator[Chunk | Portion]


@dataclass(frozen=True)
class OfStudy:
    """The answer is about one study: it falls into the window of who asks."""

    study_uid: str
    patient_key: str


@dataclass(frozen=True)
class OfSearch:
    """The answer came of criteria (attribute → values) and shows any number of studies, perhaps none."""

    criteria: Mapping[str, Sequence[str]]
    shown: Sequence[Pair]
    patient_key: str = ""
    """Whose file was asked for, if one's: it is in their trail also where it shows no study."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a handler found. `length` in bytes, where it is known before a stream ends."""

    about: OfStudy | OfSearch
    content: Content
    media_type: str
    status: int = 200
    length: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Ask:
    """A request that may be answered."""

    def __init__(self, request: Request, caller: Caller, reach: Reach) -> None:
        self._request, self.caller, self.reach = request, caller, reach

    @property
    def query_string(self) -> bytes:
        """As it came: patient data."""
        text: bytes = self._request.scope["query_string"]
        return text

    def option(self, name: str) -> str:
        """A query parameter; empty if it is not there."""
        return self._request.query_params.get(name, "")

    def options(self, name: str) -> list[str]:
        """All values of a query parameter that may be repeated."""
        return [v for v in self._request.query_params.getlist(name) if v]

    def all_options(self) -> list[tuple[str, str]]:
        """Every query parameter with its value, in their order."""
        return list(self._request.query_params.multi_items())

    def uid(self, name: str) -> str:
        """A UID of the path. Raises Invalid(`uid-…`)."""
        value: str = self._request.path_params[name]
        check_uid(value)
        return value

    def part(self, name: str) -> str:
        """Another part of the path."""
        value: str = self._request.path_params[name]
        return value

    def has_part(self, name: str) -> bool:
        """Whether the address has it."""
        return name in self._request.path_params

    def header(self, name: str) -> str:
        """A header, its lines joined (RFC 9110 §5.3); empty if it is not there."""
        return ", ".join(self._request.headers.getlist(name))

    @property
    def path(self) -> str:
        """Path of the address."""
        return self._request.url.path

    @property
    def origin(self) -> str:
        """Scheme, host and port as the client sees them: its Host, with our port where a client left it out."""
        scope = self._request.scope
        host = self.header("host")
        server = scope.get("server") or ("127.0.0.1", None)
        if not host:
            host = server[0]
        if ":" not in host.rpartition("]")[2] and server[1] not in (None, 80, 443):
            host = f"{host}:{server[1]}"
        return f"{scope['scheme']}://{host}"


Handler = Callable[[Ask], Awaitable[Answer]]


class GuardedRoute(APIRoute):
    """A route made by a Guard. It has nothing for FastAPI to inject or check, so it goes straight to its endpoint."""

    permission: Permission
    """Set by the guard that makes it, as `action`."""
    action: str

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As Starlette's Route; what the endpoint raises is for the application's handlers."""
        if scope["method"] not in (self.methods or ()):
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self.methods or ()))})
        response: Response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


class Guard:
    """Adds guarded routes to the application."""

    def __init__(
        self,
        app: FastAPI,
        audit: Audit,
        freshness: Freshness,
        read_after: ReadAfter,
        scopes: Scopes,
        standing: Standing,
    ) -> None:
        self._app, self._audit, self._freshness, self._read_after = app, audit, freshness, read_after
        self._scopes, self._standing = scopes, standing

    def get(
        self,
        path: str,
        handler: Handler,
        *,
        permission: Permission,
        action: str,
        summary: str,
        description: str = "",
        tag: str,
        purpose: str = "",
        media_types: Sequence[str] = ("application/json",),
        parameters: Mapping[str, str] | None = None,
        source: str = ARRIVALS,
    ) -> None:
        """Answer GET `path` by `handler` to those who have `permission`. `action` is what the access event says, and
        `purpose` what for, whatever is stated; `parameters` are those of the query; `source` is the topic whose
        projection the answer is as fresh as.
        """

        async def endpoint(request: Request) -> Response:
            return await self._answer(request, handler, permission, action, source, purpose)

        self._app.router.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            name=handler.__name__,
            response_model=None,
            summary=summary,
            description=description,
            tags=[tag],
            openapi_extra=_documented(path, parameters or {}),
            responses=_answers(media_types),
            response_class=_Documented,
            route_class_override=GuardedRoute,
        )
        route = cast(GuardedRoute, self._app.router.routes[-1])
        route.permission, route.action = permission, action

    async def _answer(
        self, request: Request, handler: Handler, permission: Permission, action: str, source: str, purpose: str
    ) -> Response:
        caller = caller_of(request)
        # Step 1: decide
        if (reason := await self._standing.why_not(caller) or refusal(caller, permission)) != ALLOWED:
            study = _study_of(request) or await self._reported(request)
            access_id = await self._audit.denied(caller, action, reason, study, _patient_of(request))
            raise Forbidden(reason, why_not(caller, permission, reason), access_id=access_id)
        if purpose:
            caller = replace(caller, purpose=purpose)
        # Step 2: find, once what the client stored is there
        if token := request.headers.get(READ_TOKEN_HEADER):
            await self._read_after.wait(token)
        reach = await self._scopes.reach(caller, permission)
        if not reach.whole:
            reach = await self._within(request, caller, permission, action, reach)
        answer = await handler(Ask(request, caller, reach))
        if not reach.whole:
            await self._hold(caller, permission, action, reach, answer.about)
        # Step 3: durable access event
        window: Window | None = None
        match answer.about:
            case OfStudy(study_uid, patient_key):
                window = await self._audit.grant(caller, study_uid, patient_key, action)
                window.use()
                access_id = window.access_id
            case OfSearch(criteria, shown, patient_key):
                access_id = await self._audit.search(caller, action, criteria, shown, patient_key)
        # Step 4: respond
        headers = {
            "Cache-Control": "private, no-store",
            ACCESS_HEADER: access_id,
            LAG_HEADER: self._freshness.header(source),
            **answer.headers,
        }

        async def show(pairs: Sequence[Pair]) -> None:
            await self._audit.search(caller, action, {}, pairs)

        return _respond(answer, headers, window, show, head=is_head(request.scope))

    async def _reported(self, request: Request) -> str:
        """A study of the report that a refused request named, if it is one."""
        with suppress(Transient):
            return await self._scopes.reported(request.path_params.get("report", ""))
        return ""

    async def _within(
        self, request: Request, caller: Caller, permission: Permission, action: str, reach: Reach
    ) -> Reach:
        """The reach that covers what the address names. Raises Forbidden, recorded."""
        study, key = _study_of(request), _patient_of(request)
        beyond = await self._names_beyond(reach, study, key)
        if beyond is not None:  # a statement of just now may cover it
            reach = await self._scopes.reach(caller, permission, anew=True)
            beyond = await self._names_beyond(reach, study, key)
        if beyond is not None:
            raise await self._beyond(caller, permission, action, *beyond)
        return reach

    async def _names_beyond(self, reach: Reach, study: str, key: str) -> tuple[str, str] | None:
        if study and (beyond := await self._scopes.outside(reach, (study,))) is not None:
            return beyond
        return ("", key) if key and await self._scopes.keeps_out(reach, key) else None

    async def _hold(
        self, caller: Caller, permission: Permission, action: str, reach: Reach, about: OfStudy | OfSearch
    ) -> None:
        """What was found is within the reach too. Raises Forbidden, recorded."""
        shown = (about.study_uid,) if isinstance(about, OfStudy) else tuple(uid for uid, _ in about.shown)
        if (beyond := await self._scopes.outside(reach, shown)) is not None:
            raise await self._beyond(caller, permission, action, *beyond)

    async def _beyond(
        self, caller: Caller, permission: Permission, action: str, study_uid: str, patient_key: str
    ) -> Forbidden:
        access_id = await self._audit.denied(caller, action, "scope", study_uid, patient_key)
        return Forbidden("scope", why_not(caller, permission, "scope"), access_id=access_id)


def _study_of(request: Request) -> str:
    """The study that a refused request named, if it is one."""
    uid: str = request.path_params.get("study", "")
    try:
        check_uid(uid)
    except Invalid:
        return ""
    return uid


def _patient_of(request: Request) -> str:
    """The patient whose file an address names, by the key or as FHIR's id."""
    key: str = request.path_params.get("key", "")
    if not key and (id := request.path_params.get("patient", "")):
        with suppress(Invalid):
            key = patient_key_of(id)
    return key if is_patient_key(key) else ""


Show = Callable[[Sequence[Pair]], Awaitable[None]]
"""Makes an access event of what a portion shows."""


def _respond(answer: Answer, headers: dict[str, str], window: Window | None, show: Show, *, head: bool) -> Response:
    content = answer.content
    if isinstance(content, bytes):
        if window and not head and answer.status not in (204, 304):
            window.count(len(content))
        if answer.status in (204, 304):
            return Response(status_code=answer.status, headers=headers)
        return Response(content, answer.status, headers, media_type=answer.media_type)
    if answer.length is not None:
        headers["Content-Length"] = str(answer.length)
    return _Stream(content, answer.status, headers, answer.media_type, None if head else window, show, head=head)


class _Stream(Response):
    """A response in pieces that stops when its client is gone."""

    def __init__(
        self,
        pieces: AsyncIterator[Chunk | Portion],
        status: int,
        headers: Mapping[str, str],
        media_type: str,
        window: Window | None,
        show: Show,
        *,
        head: bool = False,
    ) -> None:
        self.status_code = status
        self.background = None
        self.body = b""
        self._pieces, self._window, self._show, self._head = pieces, window, show, head
        self.raw_headers = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
        self.raw_headers.append((b"content-type", media_type.encode("latin-1")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_disconnected(receive))
        window = self._window
        whole = False
        if window:
            window.began()
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if not self._head:
                async for piece in self._pieces:
                    if gone.done():
                        return
                    if isinstance(piece, Portion):
                        await self._show(piece.shown)
                        piece = piece.data
                    if window:
                        window.bytes += len(piece)
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            whole = True
        finally:
            if window:
                window.ended(whole)
            gone.cancel()
            if close := getattr(self._pieces, "aclose", None):
                with suppress(RuntimeError):  # it is just being closed by whoever failed in it
                    await close()


async def _disconnected(receive: Receive) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


# ------------------------------------------------------------------------------------------------ documentation


class _Documented(Response):
    """Keeps FastAPI from adding a media type of its own to the document."""

    media_type = None


def _documented(path: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    names = [p.partition("}")[0].partition(":")[0] for p in path.split("{")[1:]]
    described = [
        {"name": n, "in": "path", "required": True, "description": _PATH.get(n, ""), "schema": {"type": "string"}}
        for n in names
    ]
    described += [
        {"name": n, "in": "query", "required": False, "description": d, "schema": {"type": "string"}}
        for n, d in parameters.items()
    ]
    purpose = {
        "name": PURPOSE_HEADER,
        "in": "header",
        "required": False,
        "description": "Why: a code of HL7 v3 PurposeOfUse; if it is missing the token's, else that of the role.",
        "schema": {"type": "string", "enum": KNOWN},
    }
    return {"parameters": [*described, purpose]}


_PATH = {
    "study": "Study Instance UID",
    "series": "Series Instance UID",
    "instance": "SOP Instance UID",
    "frames": "frame numbers from 1, comma-separated",
    "key": "patient key",
    "report": "report id",
    "version": "version of the report, from 1",
    "access": "id of an access",
}


def _answers(media_types: Sequence[str]) -> dict[int | str, dict[str, Any]]:
    refused: dict[str, Any] = {"content": {"application/problem+json": {}}}
    return {
        200: {"description": "Found; the access event is durable", "content": {m: {} for m in media_types}},
        206: {"description": "The range asked for"},
        304: {"description": "The client has it already; recorded as a read"},
        400: {"description": "Not valid", **refused},
        401: {"description": "Nobody, or a token that proves nothing", **refused},
        403: {"description": "Role, scope or purpose do not allow it; the refusal is recorded", **refused},
        404: {"description": "Not there", **refused},
        406: {"description": "Not in a form that the client takes", **refused},
        503: {"description": "A part is away, or the access event could not be kept: no data left", **refused},
    }
