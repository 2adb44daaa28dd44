"""Problems under `/fhir` as OperationOutcome: what the archive says as RFC 9457 JSON, it says there as FHIR wants it.

Middleware around everything under that address, so that an answer has one shape whoever refused it: the edge, the table
of roles, a guarded route, or the door of another room.

A search sent as a form (`POST [type]/_search`, hl7.org/fhir/R4/http.html#search) goes on as the GET that it stands for:
it is asked, bounded and recorded as that.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumers.fhir.bundle import operation_outcome
from consumers.fhir.codes import MEDIA_TYPE
from infra.http_problems import MEDIA_TYPE as PROBLEM
from infra.http_problems import problem

PREFIX: Final = "/fhir/"
FORM: Final = b"application/x-www-form-urlencoded"
FORM_BYTES_MAX: Final = 64 << 10
_SEARCH: Final = re.compile(r"(/fhir/[A-Za-z]+)/_search\Z")
_REPLACED: Final = (b"content-type", b"content-length")


class FhirFaces:
    """Wraps an application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self.app(scope, receive, send)
            return
        held: Message | None = None
        body = b""
        answered: ASGIApp = self.app
        if scope["method"] == "POST" and (found := _SEARCH.match(scope["path"])):
            form = await _form(scope, receive)
            if isinstance(form, Response):
                answered = form
            else:
                query = b"&".join(q for q in (scope["query_string"], form) if q)
                path = found[1]
                scope = {**scope, "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query}
                receive = _nothing

        async def pass_on(message: Message) -> None:
            nonlocal held, body
            if message["type"] == "http.response.start" and _is_problem(message):
                held = message
            elif held is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await _send(send, held, body)

        await answered(scope, receive, pass_on)


async def _form(scope: Scope, receive: Receive) -> bytes | Response:
    """The parameters of a search that was sent as a form; a problem for what is none, or too much."""
    types = [bytes(v) for n, v in scope["headers"] if n == b"content-type"]
    kind = b"".join(types).partition(b";")[0].strip().lower()
    if kind != FORM:
        return problem(415, "This type is not taken", f"a search is {FORM.decode()}", reason="media-type")
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > FORM_BYTES_MAX:
            return problem(413, "This is too much for a search", reason="search-too-long")
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return body.strip()


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(send: Send, start: Message, problem: bytes) -> None:
    told: dict[str, Any] = msgspec.json.decode(problem) if problem else {}
    title = told.get("title", "The request cannot be fulfilled")
    found = operation_outcome(start["status"], title, told.get("detail", ""), told.get("reason", ""))
    data = msgspec.json.encode(found) if problem else b""  # of a HEAD there is no body
    headers = [(n, v) for n, v in start["headers"] if n.lower() not in _REPLACED]
    headers += [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(data)).encode())]
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": data, "more_body": False})


def _is_problem(message: Message) -> bool:
    return any(n.lower() == b"content-type" and v.startswith(PROBLEM.encode()) for n, v in message["headers"])
