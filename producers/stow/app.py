"""STOW-RS (PS3.18 §10.5): `POST /dicom-web/studies` and `/dicom-web/studies/{study}`.

Accepted are DICOM files (application/dicom) and metadata with bulk data (application/dicom+json or +xml), as
multipart/related or as a body of one part, as they are or in gzip or deflate. The answer is sent when every instance is
durable in the spool or refused (§10.5.3): 200 all were kept, 202 some, 409 none, with the reasons (`stow.answer`). A
request that breaks off or turns out wrong on its way is answered by what was kept of it: 400, 413 or 503 only when that
is nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from infra import telemetry
from infra.http_caller import caller_of, needs
from infra.http_door import HttpDoor
from infra.http_problems import of_error, problem
from producers.gateway import Gateway, Origin
from producers.identify import Named
from producers.refusals import OUT_OF_RESOURCES, refusal
from producers.shelf import MB, Room
from producers.stow import answer, commitment, negotiate
from producers.stow.answer import IMPORT_AGENT, Failed, Outcome, Stored
from producers.stow.assemble import Assembler
from producers.stow.inflating import Inflater, InflatesTooLarge
from producers.stow.multipart import Begin, End, Parser, media_type
from producers.stow.negotiate import DICOM, DICOM_JSON, DICOM_XML, METADATA, MULTIPART
from producers.stow.receive import Budget, Door, Receiver, TooManyParts
from schemas import read_token
from schemas.caller import ALL_SITES, Caller
from schemas.errors import Invalid, SijilError, Transient
from schemas.identity import check_uid
from schemas.pack import Sender
from schemas.roles import Permission, Scope, scope_of

log = telemetry.logger(__name__)

PREFIX = "/dicom-web"
_BODY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
TAKES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            f'{MULTIPART}; type="{DICOM}"': _BODY,
            DICOM: _BODY,
            f'{MULTIPART}; type="{DICOM_JSON}"': _BODY,
            f'{MULTIPART}; type="{DICOM_XML}"': _BODY,
            DICOM_JSON: _BODY,
            DICOM_XML: _BODY,
        },
    }
}
GIVES: dict[int | str, dict[str, Any]] = {
    200: {"description": "All instances are kept", "content": {DICOM_JSON: {}, DICOM_XML: {}}},
    202: {"description": "Some are kept; reasons for the others", "content": {DICOM_JSON: {}, DICOM_XML: {}}},
    409: {"description": "None is kept; reasons", "content": {DICOM_JSON: {}, DICOM_XML: {}}},
}
"""For the documents."""
ACCEPTED = f"A request is {DICOM}, {DICOM_JSON} or {DICOM_XML}, or multipart/related of that type"
CLOSE = {"Connection": "close"}
"""With an answer that comes before the body: what follows on the connection is not read."""
THREADS = 4
"""They checksum and write; the event loop only collects."""
MEMORY_MAX = 256 * MB
"""Of parts of all requests together; beyond, parts go to files."""
RETRY_AFTER_S = 30
SITE_HEADER = "Sijil-Site"
"""Of a sender for several sites: the one it sends for now."""
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
STOP_S = 5.0
REQUESTS = telemetry.Counter("sijil_stow_requests", "STOW-RS requests by the status of their answers", ["status"])


def register(app: FastAPI, http: HttpDoor) -> None:
    """Add the door's handlers and the gateway behind them."""
    settings = http.settings
    gateway = Gateway.open(settings, "api", http.chain, http.objects, http.log)
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="stow")
    commitments = gateway.commitments(lambda: http.committed)
    door = Door(gateway, threads, Budget(MEMORY_MAX), settings.body_buffer_mb * MB)

    async def start() -> None:
        gateway.start()
        commitments.start()

    async def stop() -> None:
        threads.shutdown()
        await asyncio.to_thread(commitments.close)
        await asyncio.to_thread(partial(gateway.close, STOP_S))

    http.on_start(start)
    http.on_stop(stop)
    http.readiness("spool", gateway.ready)
    http.readiness("publisher", gateway.published)
    http.backlog("spool_backlog", gateway.backlog)
    http.body_limit(PREFIX + "/studies", None)
    commitment.add(app, http, commitments)

    may = [needs(Permission.STUDY_STORE)]

    @app.post(
        PREFIX + "/studies",
        tags=["DICOMweb"],
        summary="Store instances (STOW-RS)",
        dependencies=may,
        openapi_extra=TAKES,
        responses=GIVES,
    )
    async def store(request: Request) -> Response:
        return await _counted(request, door, "")

    @app.post(
        PREFIX + "/studies/{study}",
        tags=["DICOMweb"],
        summary="Store instances of one study (STOW-RS)",
        dependencies=may,
        openapi_extra=TAKES,
        responses=GIVES,
    )
    async def store_study(request: Request, study: str) -> Response:
        check_uid(study)
        return await _counted(request, door, study)


async def _counted(request: Request, door: Door, study_uid: str) -> Response:
    response = await _store(request, door, study_uid)
    REQUESTS.labels(str(response.status_code)).inc()
    return response


async def _store(request: Request, door: Door, study_uid: str) -> Response:
    """Nothing of the body is asked for before it is known to be wanted (`Expect: 100-continue`, RFC 9110 §10.1.1)."""
    answer_type = negotiate.answer_type(", ".join(request.headers.getlist("accept")))
    if not answer_type:
        return problem(406, f"The answer is {DICOM_JSON} or {DICOM_XML}", headers=CLOSE)
    try:
        kind = negotiate.kind(request.headers.get("content-type", ""), request.headers.get("content-encoding", ""))
        parser = Parser(kind.boundary) if kind.multipart else None
    except Invalid as error:
        if error.reason == "multipart-boundary":
            return problem(400, "The request is not valid", reason=error.reason, headers=CLOSE)
        return problem(415, f"{ACCEPTED}, as it is or in gzip or deflate", reason=error.reason, headers=CLOSE)
    if _declared(request) > door.gateway.settings.spool_max_mb * MB:
        return problem(413, "The request is larger than the archive takes at once", headers=CLOSE)
    if door.gateway.spool.room() is not Room.ENOUGH:
        return _busy()
    origin = _origin(request, door)
    with door.gateway.spool.feeder() as feeder:
        receiver = Receiver(door, feeder, origin, study_uid)
        parts = Assembler(receiver, str(request.url), kind.of) if kind.of in METADATA else Files(receiver)
        broken: SijilError | None = None
        try:
            await _read(_decoded(request.stream(), kind.coding), parts, parser)
        except (Invalid, Transient) as error:
            broken = error
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        finally:
            parts.discard()
            receiver.discard()
        outcomes = await receiver.finish()
    if broken is not None:
        # What was kept before it broke off is told: a sender that is only told of the fault would send all again.
        if not any(isinstance(o, Stored) for o in outcomes):
            return _refused(broken)
        outcomes.append(Failed(Named(), _reason(broken)))
    if not outcomes:
        return problem(400, "The request has no instances", reason="multipart-empty")
    return _answer(request, receiver, outcomes, answer_type)


def _answer(request: Request, receiver: Receiver, outcomes: list[Outcome], answer_type: str) -> Response:
    if receiver.error is not None and not any(isinstance(o, Stored) for o in outcomes):
        return of_error(receiver.error) if isinstance(receiver.error, Transient) else problem(500, "A fault of our own")
    base = receiver.base or f"{request.url.scheme}://{request.url.netloc}"
    render = answer.xml_body if answer_type == DICOM_XML else answer.body
    token = read_token.encode(receiver.pack_ids)
    headers = {read_token.HEADER: token} if token else {}
    return Response(render(outcomes, base + PREFIX), answer.status(outcomes), headers, media_type=answer_type)


def _refused(error: SijilError) -> Response:
    """The answer to a request of which nothing was kept."""
    if isinstance(error, TooManyParts | InflatesTooLarge):
        return problem(413, "The request is too large", reason=error.reason, headers=CLOSE)
    return of_error(error)


def _reason(error: SijilError) -> int:
    """Failure Reason of what was not received any more."""
    return OUT_OF_RESOURCES if isinstance(error, Transient) else refusal("request-broken-off").status


class Files:
    """The parts of a request are DICOM files."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def begin(self, headers: Mapping[str, str]) -> None:
        """A part begins; one without a type is taken for what the request says."""
        self.receiver.begin(refuse=_refused_part(headers))

    async def end(self) -> None:
        """The part is complete."""
        await self.receiver.end()

    async def finish(self) -> None:
        """Nothing is left to do."""

    def discard(self) -> None:
        """Nothing is held here."""


async def _read(stream: AsyncIterator[bytes], parts: Files | Assembler, parser: Parser | None) -> None:
    """The whole body into its parts. Raises Invalid, Transient, ClientDisconnect."""
    receiver = parts.receiver
    if parser is None:
        empty = True
        async for chunk in stream:
            if chunk and empty:
                parts.begin({})
                empty = False
            await _add(receiver, memoryview(chunk))
        if not empty:
            await parts.end()
    else:
        async for chunk in stream:
            for event in parser.feed(chunk):
                if isinstance(event, memoryview):
                    await _add(receiver, event)
                elif isinstance(event, Begin):
                    parts.begin(event.headers)
                elif isinstance(event, End):
                    await parts.end()
        parser.close()
    await parts.finish()


async def _decoded(stream: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    """The body without its Content-Encoding."""
    if not coding:
        async for chunk in stream:
            yield chunk
        return
    inflater = Inflater(coding)
    async for chunk in stream:
        for piece in inflater.feed(chunk):
            yield piece
    inflater.close()


async def _add(receiver: Receiver, piece: memoryview) -> None:
    if receiver.wants_file(len(piece)):
        await receiver.add_to_file(piece)
    else:
        receiver.add(piece)


def _refused_part(headers: Mapping[str, str]) -> str:
    """Reason to refuse a part of a request of files by its headers."""
    try:
        kind, _ = media_type(headers.get("content-type") or DICOM)
    except Invalid:
        kind = ""
    return "" if kind == DICOM else "media-type"


def _declared(request: Request) -> int:
    text = request.headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def _origin(request: Request, door: Door) -> Origin:
    address = request.client.host if request.client else ""
    came_by = "import" if request.headers.get("user-agent", "").startswith(IMPORT_AGENT) else "stow"
    site = site_of(caller_of(request), request.headers.get(SITE_HEADER, ""), door.gateway.settings.site)
    return Origin(Sender(door=came_by, address=address), site, site)


def site_of(caller: Caller, stated: str, own: str) -> str:
    """The site that a sender speaks for: one of its own; for whoever may send for all the one stated, else ours.

    Raises Invalid(`site`).
    """
    if scope_of(caller.role, Permission.STUDY_STORE) is Scope.WHOLE or ALL_SITES in caller.sites:
        found = stated or own
    else:
        found = stated or (next(iter(caller.sites)) if len(caller.sites) == 1 else "")
        if found not in caller.sites:
            raise Invalid("site", f"{SITE_HEADER} names one of the sites that you send for")
    if not _SITE.match(found):
        raise Invalid("site", f"{SITE_HEADER} is a site's identifier")
    return found


def _busy() -> Response:
    headers = {"Retry-After": str(RETRY_AFTER_S), **CLOSE}
    return problem(503, "The archive's disk is nearly full: come back later", headers=headers, reason="spool-low")
