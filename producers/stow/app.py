"""STOW-RS (PS3.18 §10.5): `POST /dicom-web/studies` and `/dicom-web/studies/{study}`.

Accepted are multipart/related; type="application/dicom" and a single application/dicom. The answer is sent when every
instance is durable in the spool or refused: 200 all stored, 202 some, 409 none, with the reasons (`stow.answer`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from infra import telemetry
from infra.http_door import HttpDoor
from infra.http_problems import of_error, problem
from producers.gateway import Gateway, Origin
from producers.shelf import MB, Room
from producers.stow import answer
from producers.stow.answer import IMPORT_AGENT, Outcome, Stored
from producers.stow.multipart import Begin, End, Parser, media_type
from producers.stow.receive import Budget, Door, Receiver, TooManyParts
from schemas.errors import Invalid, Transient
from schemas.identity import check_uid
from schemas.pack import Sender

log = telemetry.logger(__name__)

PREFIX = "/dicom-web"
DICOM, DICOM_JSON = "application/dicom", "application/dicom+json"
ANSWERS = ("application/dicom+json", "application/json", "application/*", "*/*")
THREADS = 4
"""They checksum and write; the event loop only collects."""
MEMORY_MAX = 256 * MB
"""Of parts of all requests together; beyond, parts go to files."""
RETRY_AFTER_S = 30
STOP_S = 5.0
REQUESTS = telemetry.Counter("sijil_stow_requests", "STOW-RS requests by the status of their answers", ["status"])


def register(app: FastAPI, http: HttpDoor) -> None:
    """Add the door's handlers and the gateway behind them."""
    settings = http.settings
    gateway = Gateway.open(settings, "api", http.chain, http.objects, http.log)
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="stow")
    door = Door(gateway, threads, Budget(MEMORY_MAX), settings.body_buffer_mb * MB)

    async def start() -> None:
        gateway.start()

    async def stop() -> None:
        threads.shutdown()
        await asyncio.to_thread(partial(gateway.close, STOP_S))

    http.on_start(start)
    http.on_stop(stop)
    http.readiness("spool", gateway.ready)
    http.readiness("publisher", gateway.published)
    http.backlog("spool_backlog", gateway.backlog)
    http.body_limit(PREFIX + "/studies", None)

    @app.post(PREFIX + "/studies", tags=["DICOMweb"], summary="Store instances (STOW-RS)")
    async def store(request: Request) -> Response:
        return await _counted(request, door, "")

    @app.post(PREFIX + "/studies/{study}", tags=["DICOMweb"], summary="Store instances of one study (STOW-RS)")
    async def store_study(request: Request, study: str) -> Response:
        check_uid(study)
        return await _counted(request, door, study)


async def _counted(request: Request, door: Door, study_uid: str) -> Response:
    response = await _store(request, door, study_uid)
    REQUESTS.labels(str(response.status_code)).inc()
    return response


async def _store(request: Request, door: Door, study_uid: str) -> Response:
    if not _acceptable(request.headers.get("accept", "")):
        return problem(406, "The answer is application/dicom+json", headers={"Connection": "close"})
    try:
        kind, boundary = _kind(request)
    except Invalid:
        return problem(
            415, "multipart/related; type=application/dicom, or application/dicom", headers={"Connection": "close"}
        )
    if door.gateway.spool.room() is not Room.ENOUGH:
        return _busy()
    origin = _origin(request, door)
    with door.gateway.spool.feeder() as feeder:
        receiver = Receiver(door, feeder, origin, study_uid)
        try:
            if kind == DICOM:
                await _single(request.stream(), receiver)
            else:
                await _parts(request.stream(), receiver, Parser(boundary))
        except TooManyParts as error:
            await receiver.finish()
            return problem(413, "The request has too many instances", reason=error.reason)
        except Invalid as error:
            await receiver.finish()
            return problem(400, "The request is not valid", reason=error.reason)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        finally:
            receiver.discard()
        outcomes = await receiver.finish()
    if not outcomes:
        return problem(400, "The request has no instances", reason="multipart-empty")
    return _answer(request, receiver, outcomes)


def _answer(request: Request, receiver: Receiver, outcomes: list[Outcome]) -> Response:
    if receiver.error is not None and not any(isinstance(o, Stored) for o in outcomes):
        return of_error(receiver.error) if isinstance(receiver.error, Transient) else problem(500, "A fault of our own")
    base = f"{request.url.scheme}://{request.url.netloc}{PREFIX}"
    return Response(answer.body(outcomes, base), answer.status(outcomes), media_type=DICOM_JSON)


async def _single(stream: AsyncIterator[bytes], receiver: Receiver) -> None:
    receiver.begin()
    empty = True
    async for chunk in stream:
        empty = empty and not chunk
        await _add(receiver, memoryview(chunk))
    if not empty:
        await receiver.end()


async def _parts(stream: AsyncIterator[bytes], receiver: Receiver, parser: Parser) -> None:
    async for chunk in stream:
        for event in parser.feed(chunk):
            if isinstance(event, memoryview):
                await _add(receiver, event)
            elif isinstance(event, Begin):
                receiver.begin(refuse=_refused_part(event))
            elif isinstance(event, End):
                await receiver.end()
    parser.close()


async def _add(receiver: Receiver, piece: memoryview) -> None:
    if receiver.wants_file(len(piece)):
        await receiver.add_to_file(piece)
    else:
        receiver.add(piece)


def _refused_part(part: Begin) -> str:
    """Reason to refuse a part by its headers; a part without a type is taken for what the request says."""
    try:
        kind, _ = media_type(part.headers.get("content-type", DICOM))
    except Invalid:
        kind = ""
    return "" if kind == DICOM else "media-type"


def _kind(request: Request) -> tuple[str, str]:
    """(media type, boundary). Raises Invalid for what is not stored here."""
    kind, parameters = media_type(request.headers.get("content-type", ""))
    encoded = request.headers.get("content-encoding", "identity") != "identity"
    if kind == DICOM and not encoded:
        return kind, ""
    if kind == "multipart/related" and parameters.get("type", DICOM).lower() == DICOM and not encoded:
        return kind, parameters.get("boundary", "")
    raise Invalid("media-type")


def _acceptable(accept: str) -> bool:
    return not accept or any(kind.partition(";")[0].strip().lower() in ANSWERS for kind in accept.split(","))


def _origin(request: Request, door: Door) -> Origin:
    address = request.client.host if request.client else ""
    came_by = "import" if request.headers.get("user-agent", "").startswith(IMPORT_AGENT) else "stow"
    site = door.gateway.settings.site
    return Origin(Sender(door=came_by, address=address), site, site)


def _busy() -> Response:
    headers = {"Retry-After": str(RETRY_AFTER_S), "Connection": "close"}
    return problem(503, "The archive's disk is nearly full: come back later", headers=headers, reason="spool-low")
