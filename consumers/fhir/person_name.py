"""DICOM person names (PS3.5 §6.2.1) as FHIR R4 HumanName. Pure."""

from __future__ import annotations

from typing import Final

from consumers.fhir.codes import Resource, compact

REPRESENTATION: Final = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
GROUPS: Final = ("ABC", "IDE", "SYL")
"""Alphabetic, ideographic (in Egypt: the name in Arabic), phonetic."""


def human_names(person_name: str) -> list[Resource]:
    """A HumanName of each component group that is there, the alphabetic one first; `official`."""
    found = []
    for representation, group in zip(GROUPS, person_name.split("="), strict=False):
        if name := _human_name(group):
            extension = {"url": REPRESENTATION, "valueCode": representation}
            found.append({"extension": [extension], "use": "official", **name})
    return found


def name_text(person_name: str) -> str:
    """A name on one line: its first group as it is spoken, prefix first and family last."""
    for group in person_name.split("="):
        if name := _human_name(group):
            return str(name["text"])
    return ""


def _human_name(group: str) -> Resource:
    family, given, middle, prefix, suffix = (*(" ".join(p.split()) for p in group.split("^")), "", "", "", "", "")[:5]
    text = " ".join(p for p in (prefix, given, middle, family, suffix) if p)
    if not text:
        return {}
    return compact(
        {
            "text": text,
            "family": family,
            "given": [p for p in (given, middle) if p],
            "prefix": [prefix] if prefix else [],
            "suffix": [suffix] if suffix else [],
        }
    )
