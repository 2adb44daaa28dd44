"""Problems as RFC 9457 JSON: the one form in which the HTTP door says no.

`STATUSES` maps the roots of `schemas.errors` to statuses; the nearest class of an error's MRO decides. A detail holds
ids and codes, never a value that somebody sent: what was searched for is patient data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from infra import telemetry
from schemas.errors import (
    Defect,
    Forbidden,
    Invalid,
    NotFound,
    Overloaded,
    Permanent,
    SijilError,
    Transient,
    Unauthenticated,
)

log = telemetry.logger(__name__)

MEDIA_TYPE = "application/problem+json"

STATUSES: Mapping[type[SijilError], tuple[int, str]] = {
    Invalid: (400, "The request is not valid"),
    Unauthenticated: (401, "Say who you are"),
    Forbidden: (403, "You may not do this"),
    NotFound: (404, "There is no such thing"),
    Permanent: (400, "The request cannot be fulfilled"),
    Overloaded: (503, "Busy: come back later"),
    Transient: (503, "A part of the archive is away: come back later"),
    Defect: (500, "The archive found a fault of its own"),
    SijilError: (500, "The archive found a fault of its own"),
}
ACCESS_HEADER = "Sijil-Access-Id"
"""Names the event that records an access, or its refusal."""
RETRY_AFTER_S = 5
"""Told to clients when a part is away and nothing better is known."""

_TITLES = {404: "There is no such address", 405: "This method is not allowed here"}


def problem(
    status: int, title: str, detail: str = "", *, headers: Mapping[str, str] | None = None, **extra: Any
) -> Response:
    """A problem document. `extra` are members of its own (RFC 9457 §3.2), for example `reason`."""
    body = {"type": "about:blank", "status": status, "title": title}
    if detail:
        body["detail"] = detail
    return Response(
        msgspec.json.encode(body | extra),
        status,
        {"Cache-Control": "no-store", **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def of_error(error: SijilError) -> Response:
    """The problem that an error of ours is, by the nearest class of its MRO in STATUSES."""
    status, title = next(STATUSES[c] for c in type(error).__mro__ if c in STATUSES)
    extra: dict[str, Any] = {"reason": error.reason} if isinstance(error, Invalid | Unauthenticated | Forbidden) else {}
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="sijil"'
    if isinstance(error, Forbidden) and error.access_id:
        headers[ACCESS_HEADER] = error.access_id
    if status == 503:
        after = error.retry_after_s if isinstance(error, Overloaded) else RETRY_AFTER_S
        headers["Retry-After"] = str(max(1, round(after)))
    detail = "" if status == 500 else str(error)
    return problem(status, title, detail, headers=headers, **extra)


async def answer(request: Request, error: Exception) -> Response:
    """The problem for what the application raised. Of rejected parameters it names place and rule, never the value."""
    match error:
        case SijilError():
            found = of_error(error)
            if found.status_code == 500:
                log.error("request failed", error=error, status=500)
            elif found.status_code > 500:
                log.warning("request refused for now", status=found.status_code, reason=type(error).__name__)
            return found
        case HTTPException(status_code=status, headers=headers):
            title = _TITLES.get(status, "The request cannot be fulfilled")
            return problem(status, title, headers=dict(headers or {}))
        case RequestValidationError():
            faults = [{"at": ".".join(map(str, e["loc"])), "rule": e["type"]} for e in error.errors()]
            return problem(400, STATUSES[Invalid][1], reason="parameters", faults=faults)
        case _:
            raise error


def install(app: FastAPI) -> None:
    """Answer every error the application raises with a problem; others are for the edge."""
    for kind in (SijilError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)
