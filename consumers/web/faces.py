"""Problems as pages: what the archive says to programs as JSON (RFC 9457), it says to people with what they can do.

Middleware around everything under the pages' addresses, so that an answer has one shape whoever refused it: the edge,
the session, the table of roles, a guarded route, or the API that a page asked. Not logged in: the way to the log-in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumers.web.frame import Frame
from infra.http_problems import MEDIA_TYPE
from schemas.errors import Invalid
from schemas.identity import check_uid
from schemas.roles import Permission

PREFIX = "/web/"
PREFIXES = (PREFIX, "/verify/", "/p/")
LOGIN = "/login"
ALONE = frozenset({"/", LOGIN, "/login/callback", "/logout", "/oidc/authorize"})
"""Other addresses that people meet."""
KINDS: Mapping[int, str] = {
    400: "request",
    401: "login",
    403: "denied",
    404: "missing",
    405: "missing",
    413: "request",
    429: "busy",
    503: "away",
}
OTHER = "fault"


class Faces:
    """Wraps an application."""

    def __init__(self, app: ASGIApp, frame: Frame) -> None:
        self.app, self._frame = app, frame

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if not (path.startswith(PREFIXES) or path in ALONE):
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

        await self.app(scope, receive, pass_on)
        if held is not None:
            headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in held["headers"]}
            response = self.face(Request(scope, receive), held["status"], headers, body)
            await response(scope, receive, send)

    def face(self, request: Request, status: int, headers: Mapping[str, str], body: bytes) -> Response:
        """The page of a problem."""
        view = self._frame.view(request)
        back = view.here() if request.method == "GET" else "/"
        if status == 401 and request.url.path.startswith(PREFIX):
            return RedirectResponse(f"{LOGIN}?{urlencode({'back': back})}", 303)
        told: dict[str, Any] = msgspec.json.decode(body) if body else {}
        kind = KINDS.get(status, OTHER)
        about = _about(request)
        asks = kind == "denied" and about and view.may(Permission.ACCESS_EMERGENCY)
        response = view.render(
            "error.html",
            status=status,
            kind=kind,
            reason=told.get("reason", ""),
            emergency={"about": about, "back": back, "words": "", "fault": False} if asks else None,
            retry=back,
            number=headers.get("sijil-access-id", ""),
        )
        if "retry-after" in headers:
            response.headers["Retry-After"] = headers["retry-after"]
        return response


def _is_problem(message: Message) -> bool:
    return any(k.lower() == b"content-type" and v.startswith(MEDIA_TYPE.encode()) for k, v in message["headers"])


def _about(request: Request) -> dict[str, str]:
    """The study or the patient that a page's address names, as the door of emergencies wants it; empty if none."""
    words = request.url.path.split("/")
    kind, value = (words[2], words[3]) if len(words) > 3 else ("", "")
    if kind == "patients":
        return {"patient_key": value}
    try:
        check_uid(value)
    except Invalid:
        return {}
    return {"study_uid": value} if kind == "studies" else {}
