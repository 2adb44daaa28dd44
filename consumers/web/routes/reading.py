"""The radiologist's pages: what waits, the editor beside what is known of the study, the signature.

The shortest way is four presses: the study (Enter), a template (Alt+1) or what is dictated, Ctrl+Enter for the page
that shows what will be signed, Enter. What is signed is a saved draft, by the id of its save: exactly what was shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.responses import JSONResponse, RedirectResponse, Response

from consumers.web import show
from consumers.web.frame import Frame, View
from consumers.web.inner import Refused
from consumers.web.report_form import CHANGES, SIGNED, content, draft_of_form, draft_of_report
from consumers.web.report_templates import Template, blanks, fitting, load
from infra import clock
from schemas.drafts import Draft
from schemas.identity import check_uid
from schemas.report_content import Dose, content_of, document_of
from schemas.roles import Permission
from schemas.to_read import PRIORITIES

MODALITIES = ("CT", "CR", "DX", "MG", "MR", "NM", "PT", "RF", "US", "XA")
ORDERED = ("requester", "reason", "procedure_text", "referrer_name")
"""What is shown of an order."""
REFUSED = frozenset({"report-version", "report-transition", "report-signature", "report-versions"})
"""Why a report is not taken, as its door says it, where somebody can do something about it here."""
BEGUN = frozenset({"registered", "partial", "preliminary"})
OFFERED_MAX = 9
"""Templates with a key of their own: Alt+1 to Alt+9."""
PRIORS_MAX = 30
ENTRIES = "1000"
"""Of the patient's timeline, in which priors are."""


def add(frame: Frame) -> None:
    """Register the pages."""
    pages = Editor(load())
    frame.get("/web/reading", waiting, Permission.REPORT_DRAFT)
    frame.get("/web/reading/{study}", pages.editor, Permission.REPORT_DRAFT)
    frame.get("/web/reading/{study}/prior", prior, Permission.REPORT_DRAFT)
    frame.post("/web/reading/{study}/claim", claim, Permission.REPORT_DRAFT)
    frame.post("/web/reading/{study}/release", release, Permission.REPORT_DRAFT)
    frame.post("/web/reading/{study}/draft", save, Permission.REPORT_DRAFT)
    frame.post("/web/reading/{study}/check", pages.check, Permission.REPORT_WRITE)
    frame.post("/web/reading/{study}/sign", pages.sign, Permission.REPORT_WRITE)


# ------------------------------------------------------------------------------------------------ what waits


async def waiting(view: View) -> Response:
    """The list; it renews itself."""
    asked = {n: view.option(n, 64) for n in ("site", "modality", "priority", "mine")}
    asked["priority"] = asked["priority"] if asked["priority"] in PRIORITIES else ""
    found = await view.get("/reading", **asked, after=view.option("after", 100))
    now = clock.now()
    rows = [_row(r, view, now) for r in found["waiting"]]
    text, sites = view.language.text, sorted((view.caller.sites if view.caller else frozenset()) - {"*"})
    return view.render(
        "reading.html",
        rows=rows,
        asked=asked,
        following=f"/web/reading?{urlencode({**asked, 'after': found['next']})}" if found["next"] else "",
        urgent=sum(r["priority"] != "routine" for r in rows),
        sites=[("", text("any")), *((s, s) for s in sites)] if len(sites) > 1 else [],
        modality_options=[("", text("any")), *((m, f"{m} · {text(f'modality.{m}')}") for m in MODALITIES)],
        priority_options=[("", text("any")), *((n, text(f"priority.{n}")) for n in PRIORITIES)],
        self_url=view.here(),
    )


def _row(found: Mapping[str, Any], view: View, now: datetime) -> dict[str, Any]:
    s = show.study(found["study"], view.language.code)
    since = show.moment(found["waits_since"])
    minutes = max(0, int((now - since).total_seconds() // 60)) if since else 0
    today = now.astimezone(view.frame.zone).date()
    return {
        **{"reason": "", "report_status": "", "claimed_by": "", "draft": "", **found},
        "who": _who(found, view),
        "s": s,
        "age": show.age(s.born, today),
        "waited": _waited(view, minutes),
    }


def _who(found: Mapping[str, Any], view: View) -> str:
    """Who has claimed a study, by name; of whom the archive does not know, by id."""
    return show.in_script(found.get("claimed_names", ()), view.language.code) or found.get("claimed_by", "")


def _waited(view: View, minutes: int) -> str:
    number = view.language.number
    if minutes < 60:
        return view.language.text("waited.minutes", count=number(minutes))
    if minutes < 48 * 60:
        return view.language.text("waited.hours", count=number(minutes // 60))
    return view.language.text("waited.days", count=number(minutes // (24 * 60)))


async def claim(view: View) -> Response:
    """It is mine from now on; then to the editor."""
    uid = _study(view)
    await view.post(f"/studies/{uid}/claim", {})
    return RedirectResponse(f"/web/reading/{uid}", 303)


async def release(view: View) -> Response:
    """Somebody else may; the draft stays."""
    await view.post(f"/studies/{_study(view)}/release", {})
    return RedirectResponse("/web/reading?notice=released", 303)


# ------------------------------------------------------------------------------------------------ the draft


async def save(view: View) -> Response:
    """What the script sends while somebody writes: JSON in both ways that it can go."""
    uid, draft = _study(view), draft_of_form(view.form)
    try:
        told = await _keep(view, uid, draft, view.field("save_id", 64))
    except Refused as refused:
        if refused.told.status != 412:
            raise
        kept = await view.get(f"/studies/{uid}/draft")
        other = {"save_id": kept.get("save_id", ""), "at": _at(view, kept.get("saved", ""))}
        return JSONResponse({"state": "changed", **other})
    return JSONResponse({"state": "saved", "save_id": told["save_id"], "at": _at(view, told["saved"])})


def _at(view: View, text: str) -> str:
    at = show.moment(text)
    return view.language.digits(f"{at.astimezone(view.frame.zone):%H:%M:%S}") if at else ""


async def _keep(view: View, uid: str, draft: Draft, after: str) -> Any:
    headers = {"If-Match": f'"{after}"'} if after else {"If-None-Match": "*"}
    inner = view.frame.inner
    told = await inner.post(view.request, f"/studies/{uid}/draft", draft, method="PUT", headers=headers)
    return told.json()


# ------------------------------------------------------------------------------------------------ the editor


async def prior(view: View) -> Response:
    """The reports of an earlier study, as a piece of the editor's page."""
    uid = view.option("of", 64)
    check_uid(uid)
    found = (await view.get(f"/studies/{uid}/reports"))["reports"]
    return view.render("reading_prior.html", reports=[report_of(r) for r in found])


def report_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A report as it is read beside the editor."""
    said = content_of(row["document"])
    return {
        **{n: row[n] for n in ("report_id", "version", "status", "issued", "site")},
        "title": said.procedure.text or said.procedure.code,
        "findings": said.findings,
        "impression": said.impression,
        "critical": said.critical,
        "category": said.category.text or said.category.code,
        "conclusions": said.conclusions,
    }


class Editor:
    """The pages of one study."""

    def __init__(self, templates: tuple[Template, ...]) -> None:
        self._templates = templates

    async def editor(self, view: View) -> Response:
        """What was written so far, or what there is to begin with."""
        uid = _study(view)
        kept, known = await asyncio.gather(view.get(f"/studies/{uid}/draft"), self._known(view, uid))
        if kept["draft"] is not None:
            draft, save_id, saved = _draft(kept), kept["save_id"], _at(view, kept["saved"])
            known["came"] = _came(known, kept)
        else:
            draft, save_id, saved = _begun(view, known), "", ""
        return self._render(view, known, draft, save_id, saved=saved)

    async def check(self, view: View) -> Response:
        """What will be signed, saved before it is shown."""
        uid, draft = _study(view), draft_of_form(view.form)
        known = await self._known(view, uid)
        try:
            told = await _keep(view, uid, draft, view.field("save_id", 64))
        except Refused as refused:
            if refused.told.status != 412:
                raise
            other = await view.get(f"/studies/{uid}/draft")
            shown = _draft(other) if other["draft"] is not None else None
            return self._render(view, known, draft, other.get("save_id", ""), fault="changed", other=shown)
        if not (draft.findings.strip() or draft.impression.strip()) or not draft.title:
            return self._render(view, known, draft, told["save_id"], fault="empty")
        known["came"] = _came(known, told)
        left = blanks(draft.title, draft.findings, draft.impression)
        signs = view.may(Permission.REPORT_SIGN)
        return view.render("reading_check.html", **known, draft=draft, save_id=told["save_id"], left=left, signs=signs)

    async def sign(self, view: View) -> Response:
        """The saved draft that was shown becomes a version of a report; then it is a draft no longer."""
        uid, save_id = _study(view), view.field("save_id", 64)
        kept, known = await asyncio.gather(view.get(f"/studies/{uid}/draft"), self._known(view, uid))
        if kept["draft"] is None:  # sent twice: the first has signed it
            return RedirectResponse("/web/reading?notice=signed", 303)
        draft = _draft(kept)
        if kept["save_id"] != save_id:
            return self._render(view, known, draft, kept["save_id"], fault="changed")
        status = "preliminary" if view.field("as") == "preliminary" else (draft.change or "final")
        try:
            told = await self._issue(view, known, draft, kept["becomes"], status)
        except Refused as refused:
            if refused.told.json().get("reason") not in REFUSED:
                raise
            fault = "version" if refused.told.status == 412 else "refused"
            return self._render(view, await self._known(view, uid), draft, save_id, fault=fault)
        try:
            headers = {"If-Match": f'"{save_id}"'}
            await view.frame.inner.call(view.request, "DELETE", f"/studies/{uid}/draft", headers=headers)
        except Refused as refused:
            if refused.told.status != 412:  # written on in another tab: that is kept
                raise
        await view.frame.inner.call(view.request, "POST", f"/studies/{uid}/release", options={"reason": "signed"})
        notice = "signed" if told["status"] in SIGNED else "preliminary"
        return RedirectResponse(f"/web/reading?notice={notice}", 303)

    async def _issue(self, view: View, known: Mapping[str, Any], draft: Draft, becomes: str, status: str) -> Any:
        person = view.caller.person_id if view.caller else ""
        order = known["order"]
        report = content(
            draft,
            before=next((content_of(r["document"]) for r in known["rows"] if r["report_id"] == becomes), None),
            study_uid=known["s"].uid,
            status=status,
            author=person,
            body_part=next(iter(known["reading"]["body_parts"]), ""),
            referring=order["requester"],
            question=order["reason"],
            dose=msgspec.convert(known["reading"]["dose"], tuple[Dose, ...]),
        )
        inner, document = view.frame.inner, document_of(report)
        if draft.base_version:
            headers = {"If-Match": f'W/"{draft.base_version}"'}
            answer = await inner.post(view.request, f"/reports/{becomes}", document, method="PUT", headers=headers)
        else:
            answer = await inner.post(view.request, "/reports", document, headers={"Report-Id": becomes})
        return answer.json()

    async def _known(self, view: View, uid: str) -> dict[str, Any]:
        """All that is known of a study beside what is written."""
        listed, standing, reading, reported = await asyncio.gather(
            view.get("/dicom-web/studies", StudyInstanceUID=uid),
            view.get(f"/studies/{uid}"),
            view.get(f"/studies/{uid}/reading"),
            view.get(f"/studies/{uid}/reports"),
        )
        s = show.study(listed[0] if listed else {"0020000D": {"Value": [uid]}}, view.language.code)
        key, priors = standing["patient_key"], []
        if key and view.may(Permission.PATIENT_FILE):
            file = await view.get(f"/patients/{key}/timeline", limit=ENTRIES)
            priors = show.priors(file["entries"], uid, s.modalities, reading["body_parts"])[:PRIORS_MAX]
        today = clock.now().astimezone(view.frame.zone).date()
        return {
            "s": s,
            "age": show.age(s.born, today),
            "standing": standing,
            "reading": {"claimed_by": "", "claimed": "", "dose": [], **reading, "who": _who(reading, view)},
            "order": {**dict.fromkeys(ORDERED, ""), **reading.get("order", {})},
            "rows": reported["reports"],
            "reports": [report_of(r) for r in reported["reports"]],
            "priors": priors,
            "patient_key": key,
            "came": None,
        }

    def _render(
        self,
        view: View,
        known: Mapping[str, Any],
        draft: Draft,
        save_id: str,
        *,
        saved: str = "",
        fault: str = "",
        other: Draft | None = None,
    ) -> Response:
        s = known["s"]
        suited = fitting(self._templates, s.modalities, known["reading"]["body_parts"], s.description)
        base = next((r for r in known["reports"] if r["report_id"] == draft.report_id), None)
        if fault == "version" and base is not None:
            # Whoever signs now has seen the version that came between: it stands beside the editor
            change = (draft.change or CHANGES[0]) if base["status"] in SIGNED else ""
            draft = msgspec.structs.replace(draft, base_version=base["version"], change=change)
        text = view.language.text
        return view.render(
            "reading_editor.html",
            status=409 if fault in ("changed", "version", "refused") else 422 if fault else 200,
            **known,
            draft=draft,
            save_id=save_id,
            saved=saved,
            fault=fault,
            other=other,
            base=base,
            templates=suited[:OFFERED_MAX],
            languages=[("ar", "العربية"), ("en", "English")],
            changes=[(c, text(f"report.{c}")) for c in CHANGES] if draft.change else [],
            switch_url=f"/web/reading/{s.uid}?lang={'en' if view.language.code == 'ar' else 'ar'}",
        )


def _begun(view: View, known: Mapping[str, Any]) -> Draft:
    """What there is to begin with: a report that waits for its signature, one to be amended, or nothing."""
    code, wanted = view.language.code, view.option("amend", 64)
    for row in known["rows"]:
        if row["report_id"] == wanted or (not wanted and row["status"] in BEGUN):
            return draft_of_report(row, code)
    return Draft(language=code, title=known["order"]["procedure_text"] or known["s"].description)


def _came(known: Mapping[str, Any], kept: Mapping[str, Any]) -> datetime | None:
    """When images came that a draft, which was begun before, may know nothing of; None: none did."""
    came, begun = show.moment(known["standing"]["last_images"]), show.moment(kept["begun"])
    return came if came and begun and came > begun else None


def _draft(kept: Mapping[str, Any]) -> Draft:
    return msgspec.convert(kept["draft"], Draft)


def _study(view: View) -> str:
    uid = view.part("study")
    check_uid(uid)
    return uid
