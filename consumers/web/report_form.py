"""The editor's form, a draft and a report: each made of the other. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from consumers.web.coded_conclusion import coded, line_of
from schemas.drafts import Draft, decode_draft
from schemas.report_content import Coded, Content, Dose, content_of

SIGNED = frozenset({"final", "amended", "corrected", "appended"})
CHANGES = ("amended", "corrected", "appended")
"""FHIR R4 DiagnosticReport.status of what follows a signed version."""


def draft_of_form(form: Mapping[str, str]) -> Draft:
    """What was written. Raises Invalid(`draft`)."""
    version = form.get("base_version", "0")
    told = {
        "language": form.get("language", "ar"),
        "title": form.get("title", "").strip(),
        "findings": _lines(form.get("findings", "")),
        "impression": _lines(form.get("impression", "")),
        "critical": form.get("critical") == "1",
        "category": form.get("category", "").strip(),
        "conclusions": form.get("conclusions", "").strip(),
        "template": form.get("template", ""),
        "report_id": form.get("report_id", ""),
        "base_version": int(version) if version.isascii() and version.isdigit() and len(version) < 5 else -1,
        "change": form.get("change", ""),
        "comparisons": [n.removeprefix("compared-") for n in form if n.startswith("compared-")],
    }
    return decode_draft(msgspec.json.encode(told))


def _lines(text: str) -> str:
    """As forms send lines (CRLF), as we keep them (LF); what is left blank at the end is cut by `content` alone."""
    return text.replace("\r\n", "\n")


def draft_of_report(row: Mapping[str, Any], language: str) -> Draft:
    """A draft that goes on from a version of a report, as the API shows it."""
    said = content_of(row["document"])
    return Draft(
        language=said.language if said.language in ("ar", "en") else language,
        title=said.procedure.text,
        findings=said.findings,
        impression=said.impression,
        critical=said.critical,
        category=said.category.text,
        conclusions=line_of(said.conclusions),
        report_id=row["report_id"],
        base_version=row["version"],
        change=CHANGES[0] if row["status"] in SIGNED else "",
        comparisons=said.comparisons,
    )


def content(
    draft: Draft,
    *,
    study_uid: str,
    status: str,
    author: str,
    before: Content | None = None,
    body_part: str = "",
    referring: str = "",
    question: str = "",
    dose: tuple[Dose, ...] = (),
) -> Content:
    """The report that a draft becomes. `author`, `referring`: person ids; `status`: what its signature makes of it;
    `dose`: what the study's dose reports say now;
    `before`: the version that it goes on from, of which all stays that the editor does not show. A form that came with
    that one (a RIS's text, a PDF) does not: it would say what the report says no longer.
    """
    base = before or Content(
        status=status,
        study_uids=(study_uid,),
        body_part=Coded(text=body_part, code=body_part) if body_part else Coded(),
        referring=referring,
        question=question,
    )
    return replace(
        base,
        status=status,
        procedure=replace(base.procedure, text=draft.title),
        findings=draft.findings.strip(),
        impression=draft.impression.strip(),
        category=base.category if base.category.text == draft.category else Coded(text=draft.category),
        conclusions=coded(draft.conclusions, base.conclusions),
        critical=draft.critical,
        comparisons=tuple(draft.comparisons),
        dose=dose or base.dose,
        language=draft.language,
        issued="",
        presented=(),
        interpreters=tuple(dict.fromkeys((*base.interpreters, *((author,) if author else ())))),
    )
