"""Breaking the glass: a doctor without a relation states why, and is let in, or may look for a patient by name.
The officer sees it at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import RedirectResponse, Response

from consumers.web import show
from consumers.web.frame import Frame, View
from consumers.web.inner import Refused
from infra.identity.app import local_path
from schemas.roles import Permission

WORDS_MAX = 2000


def add(frame: Frame) -> None:
    """Register them. The form of an emergency about somebody stands on the page of the refusal (`consumers.web.faces`)
    and in what a search finds.
    """
    frame.post("/web/emergency", state, Permission.ACCESS_EMERGENCY)
    frame.get("/web/emergency-search", look, Permission.ACCESS_EMERGENCY)
    frame.post("/web/emergency-search", found, Permission.ACCESS_EMERGENCY)


async def state(view: View) -> Response:
    """Send the words, and go back to what was refused."""
    about = {n: v for n in ("study_uid", "patient_key") if (v := view.field(n, 64))}
    said = {"reason": view.field("reason", 32), "words": view.field("words", WORDS_MAX)}
    back = local_path(view.field("back"))
    try:
        await view.post("/emergency", {**about, **said})
    except Refused as refused:
        if refused.told.status != 400:
            raise
        return view.render(
            "error.html",
            status=422,
            kind="denied",
            reason="",
            emergency={"about": about, "back": back, "words": said["words"], "fault": True},
            retry=back,
            number="",
        )
    path, _, query = back.partition("?")
    return RedirectResponse(f"{path}?{query + '&' if query else ''}notice=opened", 303)


async def look(view: View) -> Response:
    """The empty form: why, and for whom."""
    return _searched(view, None)


async def found(view: View) -> Response:
    """State why, then find. What is missing is said above the form as it was filled in."""
    said = _said(view)
    asked = {"name": said["name"], "birth_date": said["born"], "id": said["id"]}
    if not (asked["name"] or asked["id"]):
        return _searched(view, None, fault=True)
    try:
        await view.post("/emergency", {"search": True, "reason": said["reason"], "words": said["words"]})
        told = await view.get("/emergency/patients", **asked)
    except Refused as refused:
        if refused.told.status != 400:
            raise
        return _searched(view, None, fault=True)
    return _searched(view, told)


def _said(view: View) -> dict[str, str]:
    most = {"reason": 32, "words": WORDS_MAX, "name": 120, "born": 10, "id": 64}
    return {n: view.field(n, m) for n, m in most.items()}


def _searched(view: View, told: Mapping[str, Any] | None, *, fault: bool = False) -> Response:
    rows = None if told is None else [_patient(p, view.language.code) for p in told["patients"]]
    more = told is not None and told["more"]
    return view.render(
        "emergency.html", status=422 if fault else 200, said=_said(view), fault=fault, found=rows, more=more
    )


def _patient(told: Mapping[str, Any], language: str) -> dict[str, Any]:
    return {
        "key": told["patient_key"],
        "name": show.person(told["name"], language),
        "born": show.day(told["birth_date"]),
        "sex": told["sex"],
        "id_end": told["id_end"],
        "last": show.day(told["last_examined"]),
        "modalities": told["modalities"],
    }
