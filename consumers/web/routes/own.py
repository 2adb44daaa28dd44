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
DRAWN = urlencode({"accept": "image/jpeg", "viewport": "1024,1024"}, safe=",/")
"""How the server draws an image: pixels enough for a phone."""
DOCUMENTS = frozenset({"DOC", "KO", "PR", "SR"})
"""Modalities of series to read, not to look at (PS3.3 C.7.3.1.1.1): reports come from them."""
WINDOWS: Mapping[str, str] = {
    "soft": "40,400",
    "lung": "-600,1500",
    "bone": "500,2000",
    "brain": "40,80",
}
"""Of CT, center and width in Hounsfield units: what people know by the tissue."""


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
    """The images of one series, one at a time: drawn here, so that the first is there at once and no phone needs more.

    Where a browser can, cornerstone3D then takes over (`static/slices.js`).
    """
    uid = view.part("study")
    series = [_series(s) for s in await view.get(f"/dicom-web/studies/{uid}/series") or ()]
    series = [s for s in series if s["images"] and s["modality"] not in DOCUMENTS]
    asked = view.option("series", 64)
    shown = next((s for s in series if s["uid"] == asked), series[0] if series else None)
    base = f"/dicom-web/studies/{uid}/series/{shown['uid']}/instances/" if shown else ""
    pictures = pictures_of(await view.get(base.rstrip("/"), limit=str(IMAGES_MAX)) or ()) if base else []
    count = min(sum(frames for _, frames in pictures), IMAGES_MAX)
    number = view.option("image", 6)
    at = min(max(int(number), 1), count) if number.isascii() and number.isdigit() and count else 1
    return view.render(
        "own_images.html",
        uid=uid,
        series=series,
        shown=shown,
        base=base,
        pictures=" ".join(f"{sop}:{frames}" for sop, frames in pictures),
        count=count,
        first=f"{base}{frame_at(pictures, at)}/rendered?{DRAWN}" if count else "",
        at=at,
        drawn=DRAWN,
        library=view.frame.library.url,
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


def pictures_of(instances: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Instances with an image and how many frames each has, in the order of their numbers."""

    def value(found: Mapping[str, Any], tag: str, default: int = 0) -> int:
        text = str(next(iter(found.get(tag, {}).get("Value", ())), default))
        return int(text) if text.lstrip("-").isdigit() else default

    shown = (i for i in instances if value(i, "00280010"))  # no rows: no image
    ordered = sorted(shown, key=lambda i: value(i, "00200013"))
    return [(i["00080018"]["Value"][0], max(value(i, "00280008", 1), 1)) for i in ordered]


def frame_at(pictures: Sequence[tuple[str, int]], number: int) -> str:
    """Address of one of their frames, counted from 1 through all, under that of the instances."""
    for sop, frames in pictures:
        if number <= frames:
            return f"{sop}/frames/{number}"
        number -= frames
    raise IndexError(number)


async def accesses(view: View) -> Response:
    """Who looked, in plain words."""
    key = _key(view)
    if not key:
        return RedirectResponse("/", 303)
    trail = await view.get(f"/patients/{key}/accesses")
    return view.render("own_accesses.html", looks=looks(trail["accesses"], view.language), tab="accesses")


def _key(view: View) -> str:
    return view.caller.patient_key if view.caller else ""
