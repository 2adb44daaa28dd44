"""A patient's file: who they are, the studies of all sites, who looked."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from consumers.web import show
from consumers.web.frame import Frame, View
from consumers.web.looks import looks
from infra import clock
from schemas.roles import Permission


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/patients/{key}", patient, Permission.PATIENT_FILE)
    frame.get("/web/patients/{key}/accesses", accesses, Permission.ACCESS_READ_OWN)


async def patient(view: View) -> Response:
    """The studies."""
    key = view.part("key")
    file, listed = await view.all(f"/patients/{key}", f"/patients/{key}/studies")
    rows = [show.study_of_file(s) for s in listed["studies"]]
    return view.render("patient.html", **_top(view, file, "studies"), rows=rows)


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
