"""The report doors: writing (FHIR R4 DiagnosticReport), signing, reading back a critical result.

What is answered is an id, a version, a status and a checksum, and nothing of what a report says: that would be a read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final
from uuid import UUID

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from infra.http_caller import caller_of, needs
from infra.http_door import HttpDoor
from infra.http_problems import problem
from infra.settings import Settings
from producers.critical import Criticals, Duty, read_back
from producers.report_document import parse
from producers.reports import FHIR_JSON, Conflict, Reports, Told, Writer
from schemas.errors import Invalid, NotFound
from schemas.events import Sha256
from schemas.roles import Permission, Scope, scope_of

BODY_BYTES_MAX: Final = 16 << 20
"""Of one report: presentedForm may hold a document."""
JSON: Final = "application/json"
MEDIA_TYPES: Final = (FHIR_JSON, JSON)


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a signature."""

    sha256: Sha256 | None = None
    """Of the document that the signer saw."""


def reports_of(http: HttpDoor) -> Reports:
    """The reports of a door."""
    settings = http.settings
    return Reports(http.objects, http.chain, settings.bucket_documents, settings.site, duty_of(settings))


def duty_of(settings: Settings) -> Duty:
    """Who is on duty for critical results."""
    contacts = tuple(c.strip() for c in settings.critical_contacts.split(",") if c.strip())
    return Duty(contacts, settings.critical_minutes * 60)


def register(app: FastAPI, http: HttpDoor) -> None:
    """Add the doors' handlers."""
    reports = reports_of(http)
    criticals = Criticals(http.objects, http.chain, bucket=http.settings.bucket_documents)
    http.body_limit("/reports", BODY_BYTES_MAX)
    may = [needs(Permission.REPORT_WRITE)]
    document = {"requestBody": {"required": True, "content": {FHIR_JSON: {"schema": {"type": "object"}}}}}
    json = {"requestBody": {"required": False, "content": {JSON: {"schema": {"type": "object"}}}}}

    async def within(request: Request, permission: Permission, study_uids: Collection[str]) -> None:
        await http.gate.admit(request, permission, tuple(study_uids))

    async def covered(id: str) -> tuple[str, ...]:
        kept = await asyncio.to_thread(reports.kept, id)
        return kept.report.study_uids if kept else ()

    @app.post(
        "/reports",
        tags=["Reports"],
        summary="Write a report, or its next version (FHIR R4 DiagnosticReport)",
        description="`final` is a signature of who sends it, if they may sign; else it is kept as `preliminary` and"
        " waits for one. The answer says which.",
        dependencies=may,
        openapi_extra=document,
    )
    async def add(request: Request) -> Response:
        body = await _body(request)
        if body is None:
            return _unsupported()
        await within(request, Permission.REPORT_WRITE, parse(body).study_uids)
        asked = request.headers.get("report-id", "")
        return await _answer(partial(reports.add, body, asked, _writer(request)))

    @app.put(
        "/reports/{report}",
        tags=["Reports"],
        summary="Write the next version of a report; If-Match names its last",
        description="A stale `If-Match` is refused (412): `current` in the problem has version, status and sha256.",
        dependencies=may,
        openapi_extra=document,
    )
    async def replace(request: Request, report: str) -> Response:
        body = await _body(request)
        if body is None:
            return _unsupported()
        id = _id(report)
        # Neither what it covers now nor what it covered is beyond the caller's scope
        await within(request, Permission.REPORT_WRITE, {*await covered(id), *parse(body).study_uids})
        expected = _if_match(request.headers.get("if-match"))
        return await _answer(partial(reports.replace, id, body, expected, _writer(request)))

    @app.post(
        "/reports/{report}/signature",
        tags=["Reports"],
        summary="Sign a report that waits for it: it is final; If-Match names the version that was read",
        description="The body may hold `sha256` of the document that was read: then nothing else is signed.",
        dependencies=[needs(Permission.REPORT_SIGN)],
        openapi_extra=json,
    )
    async def sign(request: Request, report: str) -> Response:
        id = _id(report)
        await within(request, Permission.REPORT_SIGN, await covered(id))
        seen = _seen(await request.body())
        expected = _if_match(request.headers.get("if-match"))
        if expected is None:
            return problem(428, "Say what you sign", "If-Match with the version that was read is needed")
        return await _answer(partial(reports.sign, id, expected, seen.sha256 or "", _writer(request)))

    @app.post(
        "/reports/{report}/criticals/{version}/acknowledgement",
        tags=["Reports"],
        summary="Record that a clinician has read back a critical result",
        description="`words`: what they understood; `clinician`: person id, without it who sends this; `channel`: page,"
        " phone or in-person. `version`: that with which the report became critical.",
        dependencies=[needs(Permission.CRITICAL_ACKNOWLEDGE)],
        openapi_extra=json,
    )
    async def acknowledge(request: Request, report: str, version: int) -> Response:
        id = _id(report)
        kept = await asyncio.to_thread(reports.kept, id, version)
        await within(request, Permission.CRITICAL_ACKNOWLEDGE, kept.report.study_uids if kept else ())
        said = read_back(await request.body())
        if kept is None or not kept.report.critical:
            raise NotFound("this version of the report has no critical result")
        caller = caller_of(request)
        done = await asyncio.to_thread(
            partial(criticals.acknowledge, id, version, kept.report, said, caller.actor, caller.person_id, reports.site)
        )
        body = {"critical_id": done.critical_id, "clinician": done.clinician, "acknowledged": done.acknowledged}
        return JSONResponse(body, 201 if done.new else 200)


def _writer(request: Request) -> Writer:
    caller = caller_of(request)
    return Writer(caller.actor, scope_of(caller.role, Permission.REPORT_SIGN) is not Scope.NONE)


async def _answer(work: Callable[[], Told]) -> Response:
    try:
        told = await asyncio.to_thread(work)
    except Conflict as conflict:
        current = {"current": _said(conflict.current)} if conflict.current else {}
        headers = _names(conflict.current) if conflict.current else {}
        return problem(
            conflict.status,
            "The report cannot be changed so",
            str(conflict),
            headers=headers,
            reason=conflict.reason,
            **current,
        )
    return JSONResponse(_said(told), 201 if told.new else 200, _names(told))


def _said(told: Told) -> dict[str, Any]:
    said = {"report_id": told.report_id, "version": told.version, "status": told.status, "sha256": told.sha256}
    optional = {"signed_by": told.signed_by, "critical_id": told.critical_id}
    return said | {name: value for name, value in optional.items() if value}


def _names(told: Told) -> dict[str, str]:
    return {"Location": f"/reports/{told.report_id}", "ETag": f'W/"{told.version}"'}


async def _body(request: Request) -> bytes | None:
    """The document; None for another media type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return await request.body() if kind in MEDIA_TYPES else None


def _unsupported() -> Response:
    return problem(415, f"A report is {FHIR_JSON}")


def _seen(body: bytes) -> Seen:
    try:
        return msgspec.json.decode(body, type=Seen) if body.strip() else Seen()
    except msgspec.DecodeError as e:
        raise Invalid("report-signature-body", "the body is empty, or a JSON object with sha256") from e


def _id(text: str) -> str:
    """Raises Invalid for what cannot be the id of a report that is there."""
    try:
        return str(UUID(text))
    except ValueError as e:
        raise Invalid("report-id", "the id of a report is a UUID") from e


def _if_match(header: str | None) -> int | None:
    if header is None:
        return None
    number = header.strip().removeprefix("W/").strip('"')
    if not (number.isascii() and number.isdigit()):
        raise Invalid("report-if-match", 'If-Match is W/"<version>"')
    return int(number)
