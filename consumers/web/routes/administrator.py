"""What the PACS administrator looks after: contradictions, doubtful identities, refusals, corrections, staff."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import RedirectResponse, Response

from consumers.web.frame import Frame, View
from consumers.web.inner import Refused
from consumers.web.routes import identities
from consumers.web.routes.arrivals import refusal_todo
from infra import clock
from schemas.caller import ALL_SITES
from schemas.identity import check_uid, derived_id
from schemas.roles import Permission

TYPES = ("study.corrected", "study.reassigned", "study.conflict-resolved", "study.rejected", "study.restored")


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/conflicts", conflicts, Permission.CONFLICTS_READ)
    frame.post("/web/conflicts", resolve, Permission.STUDY_CORRECT)
    frame.get("/web/proposals", proposals, Permission.CONFLICTS_READ)
    frame.get("/web/rejected", rejected, Permission.QUARANTINE_READ)
    frame.get("/web/corrections", corrections, Permission.CORRECTIONS_READ)
    frame.get("/web/people", people, Permission.PEOPLE_READ)


async def conflicts(view: View) -> Response:
    """Copies that contradict each other; open ones first."""
    state = "resolved" if view.option("state") == "resolved" else "open"
    rows = (await view.get("/conflicts", state=state))["conflicts"]
    return view.render("conflicts.html", rows=rows, state=state)


async def resolve(view: View) -> Response:
    """A conflict decided: sent to the door of corrections. The same decision twice is one."""
    study, sop, serve, offset = (view.field(n, 64) for n in ("study", "sop", "serve", "offset"))
    check_uid(study)
    asked = {
        "type": "resolve",
        "id": derived_id("page-resolve", study, sop, serve, offset),
        "reason": "conflict-decided",
        "sop_uid": sop,
        "serve": serve,
        "second_offset": int(offset) if offset.isascii() and offset.isdigit() else -1,
    }
    notice = "resolved"
    try:
        await view.post(f"/studies/{study}/corrections", asked)
    except Refused as refused:
        if refused.told.status != 409:
            raise
        notice = "conflict"
    return RedirectResponse(f"/web/conflicts?notice={notice}", 303)


async def proposals(view: View) -> Response:
    """Studies whose patient a person should look at."""
    rows = (await view.get("/proposals"))["proposals"]
    return view.render("proposals.html", rows=rows, tabs=identities.tabs(view), tab="studies")


async def rejected(view: View) -> Response:
    """What the doors refused on a day (UTC)."""
    day = view.option("day", 10) or f"{clock.now():%Y-%m-%d}"
    rows = (await view.get("/rejections", day=day.replace("-", ""), limit="500"))["rejections"]
    shown = [{**_BLANK, **r, "todo": refusal_todo(r["reason"])} for r in rows]
    return view.render("rejected.html", rows=shown, day_text=day)


_BLANK: Mapping[str, Any] = {"sop_uid": "", "calling_ae": "", "size": None, "site": "", "door": ""}


async def corrections(view: View) -> Response:
    """What people decided, newest first."""
    kind = view.option("type", 40)
    rows = (await view.get("/corrections", type=kind if kind in TYPES else ""))["corrections"]
    text = view.language.text
    options = [("", text("any")), *((k, text(f"correction.{k}")) for k in TYPES)]
    return view.render("corrections.html", rows=[{"code": "", **r} for r in rows], type=kind, type_options=options)


async def people(view: View) -> Response:
    """The staff of a site, a page of them."""
    own = sorted((view.caller.sites if view.caller else frozenset()) - {ALL_SITES})
    site = view.option("site", 64) or (own[0] if own else view.frame.settings.site)
    found = await view.get("/people", site=site, start=view.option("start", 64))
    return view.render("people.html", rows=found["people"], site=site, more=found.get("next", ""))
