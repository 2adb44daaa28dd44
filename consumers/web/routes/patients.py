"""A patient's file: who they are, the studies of all sites, who looked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from consumers.web import show
from consumers.web.frame import Frame, View
from consumers.web.looks import looks
from infra import clock
from schemas.roles import Permission

ENTRIES = "200"
"""Most entries of a timeline's page."""


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/patients/{key}", patient, Permission.PATIENT_FILE)
    frame.get("/web/patients/{key}/timeline", timeline, Permission.PATIENT_FILE)
    frame.get("/web/patients/{key}/accesses", accesses, Permission.ACCESS_READ_OWN)


async def patient(view: View) -> Response:
    """The studies."""
    key = view.part("key")
    file, listed = await view.all(f"/patients/{key}", f"/patients/{key}/studies")
    rows = [show.study_of_file(s) for s in listed["studies"]]
    return view.render("patient.html", **_top(view, file, "studies"), rows=rows)


async def timeline(view: View) -> Response:
    """What happened, newest first; with a body part chosen its priors first."""
    key, part = view.part("key"), view.option("body_part", 64)
    file = await view.get(f"/patients/{key}")
    found = await view.get(f"/patients/{key}/timeline", body_part=part, limit=ENTRIES)
    rows = [
        {**_NONE, **e, "at": show.moment(e["when"]), "day": show.day(e["when"].replace("-", "")[:8])}
        for e in found["entries"]
    ]
    known = sorted({b for e in found["entries"] for b in e["body_parts"]} | {part} - {""})
    parts = [("", view.language.text("any")), *((b, b) for b in known)] if known else []
    return view.render(
        "patient_timeline.html",
        **_top(view, file, "timeline"),
        rows=rows,
        parts=parts,
        part=part,
        files=len(found["files"]),
        more=found["more"],
    )


_NONE: Mapping[str, Any] = {"thumbnail": "", "instances": None, "status": "", "accession": ""}


async def accesses(view: View) -> Response:
    """Who looked, in plain words."""
    key = view.part("key")
    file, trail = await view.all(f"/patients/{key}", f"/patients/{key}/accesses")
    lines = looks(trail["accesses"], view.language)
    return view.render("patient_accesses.html", **_top(view, file, "accesses"), looks=lines)


def _top(view: View, who: dict[str, Any], tab: str) -> dict[str, Any]:
    """What stands above both tabs."""
    key, text, born = who["patient_key"], view.language.text, show.day(who["birth_date"])
    today = clock.now().astimezone(view.frame.zone).date()
    tabs = []
    if view.may(Permission.PATIENT_FILE):
        tabs.append(("studies", f"/web/patients/{key}", text("studies")))
        tabs.append(("timeline", f"/web/patients/{key}/timeline", text("tab.timeline")))
    if view.may(Permission.ACCESS_READ_OWN):
        tabs.append(("accesses", f"/web/patients/{key}/accesses", text("tab.accesses")))
    if view.may(Permission.PATIENT_INVITE):
        tabs.append(("links", f"/web/patients/{key}/links", text("links")))
    shown = {
        "name": show.person_text(who["patient_name"] or "", view.language.code),
        "patient_id": who["patient_id"],
        "born": born,
        "age": show.age(born, today),
        "sex": who["sex"],
        "basis": who["basis"],
    }
    return {"who": shown, "tabs": tabs, "tab": tab}
