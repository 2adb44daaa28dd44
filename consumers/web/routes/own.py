"""A patient's own pages, for a phone: examinations, the report, the images, who looked.

A report is shown once somebody answers for it (final and after); before that the page says that it is being written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from consumers.web import show
from consumers.web.frame import Frame, View
from consumers.web.looks import looks
from schemas.report_content import content_of
from schemas.roles import Permission

SHOWN = frozenset({"final", "amended", "corrected", "appended"})
IMAGES_MAX = 1000
SIDE = 1024
"""Pixels of an image on a phone, at most."""
WINDOWS: Mapping[str, str] = {
    "soft": "40,400,linear",
    "lung": "-600,1500,linear",
    "bone": "500,2000,linear",
    "brain": "40,80,linear",
}
"""Of CT, in Hounsfield units: what people know by the tissue."""


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/own", examinations, Permission.PATIENT_FILE)
    frame.get("/web/own/studies/{study}", examination, Permission.REPORT_READ)
    frame.get("/web/own/studies/{study}/images", images, Permission.STUDY_READ)
    frame.get("/web/own/accesses", accesses, Permission.ACCESS_READ_OWN)


async def examinations(view: View) -> Response:
    """All of them, newest first."""
    key = _key(view)
    if not key:
        return RedirectResponse("/", 303)
    file, listed = await view.all(f"/patients/{key}", f"/patients/{key}/studies")
    rows = [show.study_of_file(s) for s in listed["studies"]]
    name = show.person_text(file["patient_name"] or "", view.language.code)
    return view.render("own.html", name=name, rows=rows, tab="studies")


async def examination(view: View) -> Response:
    """One, with its report."""
    uid = view.part("study")
    listed = await view.get("/dicom-web/studies", StudyInstanceUID=uid)
    found = (await view.get(f"/studies/{uid}/reports"))["reports"]
    reports = [_report(r) for r in found if r["status"] in SHOWN]
    pending = any(r["status"] not in (*SHOWN, "cancelled", "entered-in-error") for r in found)
    study = show.study(listed[0] if listed else {"0020000D": {"Value": [uid]}}, view.language.code)
    zip_url = f"/dicom-web/studies/{uid}?{urlencode({'accept': 'application/zip'})}"
    return view.render("own_study.html", s=study, reports=reports, pending=pending, zip_url=zip_url, tab="studies")


def _report(row: Mapping[str, Any]) -> dict[str, Any]:
    content = content_of(row["document"])
    return {
        "id": row["report_id"],
        "title": content.procedure.text,
        "findings": content.findings,
        "impression": content.impression,
        "issued": row["issued"],
        "site": row["site"],
    }


async def images(view: View) -> Response:
    """The images of one series, one at a time: drawn here, so that a phone needs no viewer."""
    uid = view.part("study")
    series = [_series(s) for s in await view.get(f"/dicom-web/studies/{uid}/series") or ()]
    series = [s for s in series if s["images"]]
    asked = view.option("series", 64)
    shown = next((s for s in series if s["uid"] == asked), series[0] if series else None)
    urls: list[str] = []
    if shown is not None:
        path = f"/dicom-web/studies/{uid}/series/{shown['uid']}/instances"
        urls = frames_of(uid, await view.get(path, limit=str(IMAGES_MAX)) or ())
    number = view.option("image", 6)
    at = min(max(int(number), 1), len(urls)) if number.isascii() and number.isdigit() and urls else 1
    return view.render(
        "own_images.html",
        uid=uid,
        series=series,
        shown=shown,
        urls=urls,
        at=at,
        windows=WINDOWS if shown is not None and shown["modality"] == "CT" else {},
        tab="studies",
    )


def _series(found: Mapping[str, Any]) -> dict[str, Any]:
    def first(tag: str) -> Any:
        return next(iter(found.get(tag, {}).get("Value", ())), "")

    return {
        "uid": first("0020000E"),
        "modality": first("00080060"),
        "description": first("0008103E"),
        "images": int(first("00201209") or 0),
    }


def frames_of(study_uid: str, instances: Sequence[Mapping[str, Any]]) -> list[str]:
    """Addresses of the rendered frames of a series, in the order of its instance numbers."""

    def value(found: Mapping[str, Any], tag: str, default: int = 0) -> int:
        text = str(next(iter(found.get(tag, {}).get("Value", ())), default))
        return int(text) if text.lstrip("-").isdigit() else default

    urls: list[str] = []
    for found in sorted(instances, key=lambda i: value(i, "00200013")):
        if not value(found, "00280010"):  # no rows: no image
            continue
        series, sop = (found[tag]["Value"][0] for tag in ("0020000E", "00080018"))
        base = f"/dicom-web/studies/{study_uid}/series/{series}/instances/{sop}/frames"
        for number in range(1, value(found, "00280008", 1) + 1):
            options = urlencode({"accept": "image/jpeg", "viewport": f"{SIDE},{SIDE}"}, safe=",/")
            urls.append(f"{base}/{number}/rendered?{options}")
    return urls[:IMAGES_MAX]


async def accesses(view: View) -> Response:
    """Who looked, in plain words."""
    key = _key(view)
    if not key:
        return RedirectResponse("/", 303)
    trail = await view.get(f"/patients/{key}/accesses")
    return view.render("own_accesses.html", looks=looks(trail["accesses"], view.language), tab="accesses")


def _key(view: View) -> str:
    return view.caller.patient_key if view.caller else ""
