"""Reports as PDF, and what a printed one can be checked against.

Who holds a printed report holds its address: report, version and the first 16 digits of the SHA-256 of its document.
Only to these the door says more than "no": whether that version is the current one, its status, when and where it was
issued. Nothing of that is about whose report it is, so nobody has to log in, and no access is recorded.
"""

from __future__ import annotations

import hmac
import re
from zoneinfo import ZoneInfo

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from consumers.api import queries
from consumers.api.beside import answers, beside
from consumers.api.decoders import Decoders
from consumers.api.guard import Answer, Ask, Guard, OfSearch, OfStudy
from consumers.api.letterheads import Letterheads
from consumers.api.room import Room
from consumers.api.routes.papers import document_of, report_id_of, version_of
from consumers.report_pdf.letterhead import Lang
from consumers.report_pdf.sheet import MARK_LETTERS, About, sheet_of
from infra.http_caller import gate_of
from schemas.errors import Invalid, NotFound
from schemas.roles import Permission

PDF = "application/pdf"
VERIFY = "/reports/{report}/versions/{version}/verification"
_MARK = re.compile(rf"[0-9a-f]{{{MARK_LETTERS},64}}\Z")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_ARABIC = re.compile("[\u0600-\u06ff]")
_LANGS: dict[str, Lang] = {"": "ar", "ar": "ar", "en": "en"}


def add(app: FastAPI, guard: Guard, room: Room, decoders: Decoders) -> None:
    """Register the routes."""
    letterheads = Letterheads(room.settings.letterheads)
    zone = ZoneInfo(room.settings.time_zone)

    async def report_pdf(ask: Ask) -> Answer:
        lang = _LANGS.get(ask.option("lang"))
        if lang is None:
            raise Invalid("option-lang", "lang must be ar or en")
        rows = await room.views.tables.select(queries.report(report_id_of(ask)))
        wanted = version_of(ask) if ask.has_part("version") else max((r["version"] for r in rows), default=0)
        row = next((r for r in rows if r["version"] == wanted), None)
        if row is None:
            raise NotFound("this report is not in the archive, or not yet searchable")
        pairs = await room.owners(row["study_uids"] or ())
        document = msgspec.json.decode(await document_of(room, row))
        about = About(
            report_id=row["report_id"],
            version=wanted,
            current_version=max(r["version"] for r in rows),
            status=row["status"],
            site=row["site"],
            issued=row["issued"],
            sha256=row["document_sha256"],
        )
        base = room.settings.http_public_url or ask.origin
        studies = await answers(room.views.tables, row["study_uids"] or ())
        also = await beside(room.views.tables, room.objects, document, lang)
        sheet = sheet_of(
            document,
            next(iter(studies), {}),
            about,
            letterheads.of(row["site"]),
            base_url=base,
            lang=lang,
            zone=zone,
            priors=also.priors,
            signer=also.signer,
        )
        name = f"report-{row['report_id']}-{wanted}.pdf"
        return Answer(
            about=OfStudy(*pairs[0]) if len(pairs) == 1 else OfSearch({"report_id": (row["report_id"],)}, pairs),
            content=await decoders.printed(sheet),
            media_type=PDF,
            headers={"Content-Disposition": f'inline; filename="{name}"', "Content-Language": lang},
        )

    for path, of in (("", "A report"), ("/versions/{version}", "A version of a report")):
        guard.get(
            f"/reports/{{report}}{path}/pdf",
            report_pdf,
            permission=Permission.REPORT_READ,
            action="read-report",
            summary=f"{of} as PDF, under the letterhead of its site",
            tag="Reports",
            media_types=(PDF,),
            parameters={"lang": "language of what stands around the report: ar (default) or en"},
            source="sijil.reports",
        )

    @app.get(
        VERIFY,
        tags=["Reports"],
        summary="Whether a printed report is the current version, and its fingerprint matches",
        description="`mark`: the fingerprint as printed, the first digits of the SHA-256 of the report's document."
        " Nobody has to log in: who holds the paper knows what is asked for.",
    )
    async def verification(request: Request, report: str, version: str) -> Response:
        told = await _verified(room, report, version, request.query_params.get("mark", ""))
        return JSONResponse(told, headers={"Cache-Control": "no-store"})

    gate_of(app).open(VERIFY)


async def _verified(room: Room, report: str, version: str, mark: str) -> dict[str, object]:
    """A wrong mark, a wrong version and an unknown report are told alike."""
    if not (_UUID.match(report) and version.isascii() and version.isdigit() and _MARK.match(mark)):
        return {"matches": False}
    rows = await room.views.tables.select(queries.report(report))
    row = next((r for r in rows if str(r["version"]) == version), None)
    if row is None or not hmac.compare_digest(row["document_sha256"][: len(mark)], mark):
        return {"matches": False}
    newest = max(rows, key=lambda r: int(r["version"]))
    return {
        "matches": True,
        "current": newest["version"] == row["version"],
        "version": row["version"],
        "current_version": newest["version"],
        "status": row["status"],
        "current_status": newest["status"],
        "issued": row["issued"],
        "site": row["site"],
    }
