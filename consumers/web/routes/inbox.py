"""The treating doctor's pages: what is new of their patients, a report, and reading back what cannot wait."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import RedirectResponse, Response

from consumers.web import show
from consumers.web.frame import Frame, View
from consumers.web.inner import Refused
from consumers.web.routes.reading import report_of
from infra import clock
from schemas.errors import Invalid
from schemas.report_content import content_of, signature_of
from schemas.roles import Permission

MONTHS = ("1", "2", "6", "12")


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/inbox", inbox, Permission.REPORT_READ)
    frame.get("/web/inbox/{report}", report, Permission.REPORT_READ)
    frame.post("/web/inbox/{report}/acknowledge", acknowledge, Permission.CRITICAL_ACKNOWLEDGE)


async def inbox(view: View) -> Response:
    """Critical first, then unread; it renews itself."""
    months = view.option("months", 2) if view.option("months", 2) in MONTHS else "2"
    told, mine = await asyncio.gather(view.get("/inbox", months=months), view.get("/criticals", mine="1"))
    today = clock.now().astimezone(view.frame.zone).date()
    rows = [{"critical": None, **r, "s": show.study(r["study"], view.language.code)} for r in told["reports"]]
    listed = {r["report_id"] for r in rows}
    number, text = view.language.number, view.language.text
    return view.render(
        "inbox.html",
        rows=[{**r, "age": show.age(r["s"].born, today)} for r in rows],
        told=told,
        # Somebody may be told of a report whose patient is not theirs: they are on duty
        others=[c for c in mine["criticals"] if c["report_id"] not in listed],
        months=months,
        month_options=[(m, text("inbox.months", count=number(int(m)))) for m in MONTHS],
        self_url=view.here(),
    )


async def report(view: View) -> Response:
    """One report. Whoever is shown it has read it: that is what the trail says."""
    return await _report(view, "")


async def _report(view: View, fault: str) -> Response:
    id = view.part("report")
    document, raised = await asyncio.gather(view.get(f"/reports/{id}"), view.get(f"/reports/{id}/criticals"))
    said = content_of(document)
    uid = said.study_uids[0]
    # All reports of the study are shown: a look at it counts as one at each
    listed, standing, reported = await asyncio.gather(
        view.get("/dicom-web/studies", StudyInstanceUID=uid),
        view.get(f"/studies/{uid}"),
        view.get(f"/studies/{uid}/reports"),
    )
    s = show.study(listed[0] if listed else {"0020000D": {"Value": [uid]}}, view.language.code)
    signature = signature_of(document)
    return view.render(
        "inbox_report.html",
        status=422 if fault else 200,
        s=s,
        age=show.age(s.born, clock.now().astimezone(view.frame.zone).date()),
        patient_key=standing["patient_key"],
        report_id=id,
        version=document.get("meta", {}).get("versionId", ""),
        others=[report_of(r) for r in reported["reports"] if r["report_id"] != id],
        said=said,
        issued=document.get("issued", ""),
        signed=signature.when if signature else "",
        open=[c for c in raised["criticals"] if not c.get("acknowledged")],
        done=[c for c in raised["criticals"] if c.get("acknowledged")],
        fault=fault,
    )


async def acknowledge(view: View) -> Response:
    """What was understood, in the doctor's own words."""
    id, version = view.part("report"), view.field("version", 9)
    if not (version.isascii() and version.isdigit()):
        raise Invalid("report-version", "versions are numbers from 1")
    words: dict[str, Any] = {"words": view.field("words", 2000), "channel": "page"}
    try:
        await view.post(f"/reports/{id}/criticals/{version}/acknowledgement", words)
    except Refused as refused:
        if refused.told.status != 400:
            raise
        return await _report(view, "words")
    return RedirectResponse(f"/web/inbox/{id}?notice=read-back", 303)
