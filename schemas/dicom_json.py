"""Elements of DICOM JSON (PS3.18 Annex F) made of plain values, and names as they stand in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Element = dict[str, Any]
Dataset = dict[str, Element]

PN_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def text(vr: str, value: str | None) -> Element:
    """An element of one value; without a value for an empty one."""
    return {"vr": vr, "Value": [value]} if value else {"vr": vr}


def texts(vr: str, values: Iterable[str] | None) -> Element:
    """An element of several values, sorted."""
    present = sorted(v for v in values or () if v)
    return {"vr": vr, "Value": present} if present else {"vr": vr}


def number(value: int | None) -> Element:
    """An IS element."""
    return {"vr": "IS"} if value is None else {"vr": "IS", "Value": [value]}


def person_name(value: str | None) -> Element:
    """A PN value `alphabetic=ideographic=phonetic` as an element (§F.2.2)."""
    if not value:
        return {"vr": "PN"}
    groups = zip(PN_GROUPS, value.split("="), strict=False)
    return {"vr": "PN", "Value": [{name: group for name, group in groups if group}]}


def name_text(value: Any) -> str:
    """The inverse: a PN value of DICOM JSON as in PS3.5 §6.2.1; of another value its text."""
    if isinstance(value, dict):
        return "=".join(str(value.get(g) or "") for g in PN_GROUPS).rstrip("=")
    return "" if value is None else str(value).strip()


def ordered(dataset: Mapping[str, Element]) -> Dataset:
    """By tag, as §F.2.2 demands."""
    return {tag: dataset[tag] for tag in sorted(dataset)}
