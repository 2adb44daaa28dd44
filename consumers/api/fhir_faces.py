"""Problems under `/fhir` as OperationOutcome: what the archive says as RFC 9457 JSON, it says there as FHIR wants it.

Middleware around everything under that address, so that an answer has one shape whoever refused it: the edge, the table
of roles, a guarded route, or the door of another room.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumers.fhir.bundle import operation_outcome
from consumers.fhir.codes import MEDIA_TYPE
from infra.http_problems import MEDIA_TYPE as PROBLEM

PREFIX: Final = "/fhir/"
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

        await self.app(scope, receive, pass_on)


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
