"""Correcting a study: its attributes, whose it is, whether it is shown. What was sent is never changed."""

from __future__ import annotations

from typing import Any

from starlette.responses import RedirectResponse, Response

from consumers.web import show
from consumers.web.frame import Frame, View
from consumers.web.inner import Refused
from infra import clock
from schemas.corrections import REJECTION_CODES
from schemas.identity import check_uid
from schemas.roles import Permission

STUDY_FIELDS = ("StudyDescription", "AccessionNumber", "StudyDate", "ReferringPhysicianName")
PATIENT_FIELDS = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")
_TAGS = {
    "StudyDescription": "00081030",
    "AccessionNumber": "00080050",
    "StudyDate": "00080020",
    "ReferringPhysicianName": "00080090",
}


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/studies/{study}/correct", form, Permission.STUDY_CORRECT)
    frame.post("/web/studies/{study}/correct", correct, Permission.STUDY_CORRECT)


async def form(view: View) -> Response:
    """The three ways to correct, with what stands there now."""
    return await _form(view, "")


async def _form(view: View, fault: str) -> Response:
    uid = view.part("study")
    check_uid(uid)
    listed = await view.get("/dicom-web/studies", StudyInstanceUID=uid)
    found: dict[str, Any] = listed[0] if listed else {"0020000D": {"Value": [uid]}}
    # One that is hidden is found no longer, and can be shown again from here
    text = view.language.text
    return view.render(
        "correct.html",
        status=422 if fault else 200,
        s=show.study(found, view.language.code),
        hidden=not listed,
        now={n: _text(found, tag) for n, tag in _TAGS.items()},
        new_id=lambda: str(clock.uuid7()),
        fault=fault,
        codes=[(c, text(f"rejection.{c}")) for c in REJECTION_CODES],
        sexes=[("", "—"), *((s, text(f"sex.{s}")) for s in ("F", "M", "O"))],
    )


def _text(found: dict[str, Any], tag: str) -> str:
    """The first value as it is corrected: a name with all its groups, a day as forms write it."""
    value = next(iter(found.get(tag, {}).get("Value", [])), "")
    if isinstance(value, dict):
        return "=".join(value.get(g, "") for g in show.GROUPS).rstrip("=")
    if tag == "00080020":
        at = show.day(value)
        return at.isoformat() if at else ""
    return str(value)


def asked(view: View) -> dict[str, Any]:
    """What the form says, as the door of corrections wants it; an empty mapping if it says nothing."""
    head = {"id": view.field("id", 64), "reason": "correction", "comment": view.field("comment")}
    match view.field("what", 16):
        case "attributes":
            given = {n: _value(view, n) for n in STUDY_FIELDS if n in view.form}
            changed = {n: v for n, v in given.items() if view.field(n) != view.field(f"now-{n}")}
            return {**head, "type": "correct", "attributes": changed} if changed else {}
        case "patient":
            patient = {n: v for n in PATIENT_FIELDS if (v := _value(view, n))}
            return {**head, "type": "reassign", "patient": patient} if "PatientID" in patient else {}
        case "reject":
            return {**head, "type": "reject", "code": view.field("code", 16)}
        case "restore":
            return {**head, "type": "restore"}
        case _:
            return {}


def _value(view: View, name: str) -> str:
    value = view.field(name, 324)
    return value.replace("-", "") if name.endswith("Date") else value


async def correct(view: View) -> Response:
    """Send it to the door of corrections; what that does not take is shown above the form."""
    uid, said = view.part("study"), asked(view)
    check_uid(uid)
    if not said:
        return await _form(view, "nothing")
    try:
        await view.post(f"/studies/{uid}/corrections", said)
    except Refused as refused:
        if refused.told.status not in (400, 409):
            raise
        return await _form(view, "value" if refused.told.status == 400 else "again")
    return RedirectResponse(f"/web/studies/{uid}/correct?notice=saved", 303)
