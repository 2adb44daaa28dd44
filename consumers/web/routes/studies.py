"""Search for studies, and one of them. The search is the API's own: names in any spelling, Arabic or Latin."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.responses import RedirectResponse, Response

from consumers.web import show
from consumers.web.frame import Frame, View
from consumers.web.inner import Refused
from schemas.roles import Permission

PAGE = 25
MODALITIES = ("CT", "CR", "DX", "MG", "MR", "NM", "PT", "RF", "US", "XA")
ACCESS = dict.fromkeys(("address", "uses", "reason", "study_uid", "action", "stated"), "")
"""What a row of a trail need not have."""
FIELDS = ("name", "id", "accession", "from", "to", "modality")


def add(frame: Frame) -> None:
    """Register the pages."""
    frame.get("/web/studies", search, Permission.STUDY_SEARCH)
    frame.get("/web/studies/{study}", study, Permission.STUDY_READ)
    frame.get("/web/studies/{study}/accesses", accesses, Permission.ACCESS_READ_STUDY)
    frame.get("/web/studies/{study}/patient", patient, Permission.PATIENT_FILE)


# ------------------------------------------------------------------------------------------------ search


def query_of(asked: Mapping[str, str]) -> dict[str, str]:
    """What a form asks, as QIDO-RS options. A name matches by the beginnings of its words, in any order."""
    options: dict[str, str] = {}
    if asked["name"]:
        options |= {"PatientName": asked["name"], "fuzzymatching": "true"}
    if asked["id"]:
        options["PatientID"] = asked["id"]
    if asked["accession"]:
        options["AccessionNumber"] = asked["accession"]
    first, last = (asked[n].replace("-", "") for n in ("from", "to"))
    if first or last:
        options["StudyDate"] = first if first == last else f"{first}-{last}"
    if asked["modality"]:
        options["ModalitiesInStudy"] = asked["modality"]
    return options


async def search(view: View) -> Response:
    """The form and what it found; without anything asked, the newest studies."""
    asked = {n: view.option(n, 120) for n in FIELDS}
    start = view.option("start", 9)
    offset = int(start) if start.isascii() and start.isdigit() else 0
    found: list[Any] = []
    fault = cut = False
    try:
        told = await view.frame.inner.call(
            view.request,
            "GET",
            "/dicom-web/studies",
            options={**query_of(asked), "limit": str(PAGE), "offset": str(offset)},
        )
        found, warning = told.json() or [], told.headers.get("warning", "")
        cut = "deadline" in warning
        more = "more results" in warning
    except Refused as refused:
        if refused.told.status != 400:
            raise
        fault, more = True, False
    t = view.language.text
    return view.render(
        "studies.html",
        asked=asked,
        rows=[show.study(f, view.language.code) for f in found],
        older=view.here(start=str(offset + PAGE)) if more else "",
        fault=fault,
        cut=cut,
        modality_options=[("", t("any")), *((m, f"{m} · {t(f'modality.{m}')}") for m in MODALITIES)],
    )


# ------------------------------------------------------------------------------------------------ one study


async def _top(view: View, tab: str) -> dict[str, Any]:
    """What stands above both tabs of a study."""
    uid = view.part("study")
    listed, status = await asyncio.gather(
        view.get("/dicom-web/studies", StudyInstanceUID=uid), view.get(f"/studies/{uid}")
    )
    tabs = [("study", f"/web/studies/{uid}", view.language.text("tab.study"))]
    if view.may(Permission.ACCESS_READ_STUDY):
        tabs.append(("accesses", f"/web/studies/{uid}/accesses", view.language.text("tab.accesses")))
    return {
        "s": show.study(listed[0] if listed else {"0020000D": {"Value": [uid]}}, view.language.code),
        "standing": status,
        "archived": sum(bool(p["archived"]) for p in status["stored_in"]),
        "patient_key": status["patient_key"],
        "tabs": tabs,
        "tab": tab,
    }


async def study(view: View) -> Response:
    """What arrived, the reports, what people corrected."""
    uid = view.part("study")
    top = await _top(view, "study")
    reports = corrections = None
    if view.may(Permission.REPORT_READ):
        reports = [report_of(r) for r in (await view.get(f"/studies/{uid}/reports"))["reports"]]
    if view.may(Permission.CORRECTIONS_READ):
        found = (await view.get(f"/studies/{uid}/corrections"))["corrections"]
        corrections = [{"attributes": {}, **c} for c in found]
    return view.render("study.html", **top, reports=reports, corrections=corrections)


def report_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A report as the page shows it: the conclusion, and the text of the narrative where there is none."""
    document = row["document"]
    code = document.get("code") or {}
    displays = (c.get("display", "") for c in code.get("coding", []))
    return {
        "title": code.get("text") or next(filter(None, displays), ""),
        "text": document.get("conclusion", ""),
        "status": row["status"],
        "issued": row["issued"],
        "site": row["site"],
        "version": row["version"],
    }


async def accesses(view: View) -> Response:
    """Who looked at a study."""
    top = await _top(view, "accesses")
    found = await view.get(f"/studies/{view.part('study')}/accesses")
    rows = [{**ACCESS, **r} for r in found["accesses"]]
    return view.render("study_accesses.html", **top, rows=rows, reports=None, corrections=None)


async def patient(view: View) -> Response:
    """The way to the file that a study is in."""
    status = await view.get(f"/studies/{view.part('study')}")
    return RedirectResponse(f"/web/patients/{status['patient_key']}", 303)
