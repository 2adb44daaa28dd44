"""Values of HL7 v2 data types as the archive writes them: TS, XPN, XTN, CE (HL7 v2.5.1 ch. 2A). Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from typing import Final

from schemas.hl7 import Segment
from schemas.names import ascii_digits

_TS: Final = re.compile(
    r"(\d{4})(\d\d)?(\d\d)?(?:(\d\d)(\d\d)?(\d\d)?(?:\.(\d{1,6})\d*)?)?([+-]\d{4})?\Z",
)
_IDEOGRAPHIC_PHONETIC: Final = {"I": 1, "P": 2}
_ARABIC: Final = re.compile(r"[\u0600-\u06ff]")
SCHEMES: Final = {
    "LN": "http://loinc.org",
    "SCT": "http://snomed.info/sct",
    "SNM": "http://snomed.info/sct",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    "I10C": "http://hl7.org/fhir/sid/icd-10-cm",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "C4": "http://www.ama-assn.org/go/cpt",
}
"""Coding system of a CE or CWE (table 0396) → FHIR system."""


def moment(text: str, zone: tzinfo) -> str:
    """A TS in RFC 3339 UTC; without a zone of its own it is of `zone`. "" for one that is none, or is a day alone."""
    match = _TS.match(ascii_digits(text))
    if match is None or match[4] is None:
        return ""
    try:
        own = datetime.strptime(match[8], "%z").tzinfo if match[8] else None
        year, month, day, hour, minute, second = (int(match[n] or (n < 4)) for n in range(1, 7))
        micro = int((match[7] or "").ljust(6, "0"))
        local = datetime(year, month, day, hour, minute, second, micro, tzinfo=own or zone)
        return local.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return ""


def day(text: str) -> str:
    """The day of a TS, YYYYMMDD; "" for one that is none or knows no day."""
    match = _TS.match(ascii_digits(text))
    if match is None or match[3] is None:
        return ""
    try:
        return datetime(int(match[1]), int(match[2]), int(match[3]), tzinfo=UTC).strftime("%Y%m%d")
    except ValueError:
        return ""


def person_name(segment: Segment, field: int) -> str:
    """XPN as DICOM PN (PS3.5 §6.2.1.2): alphabetic=ideographic=phonetic. A second name in Arabic letters is the second
    group, as the archive's own names are; further ones (maiden, alias) are left out.
    """
    groups = ["", "", ""]
    for repetition in range(1, segment.repetitions(field) + 1):
        name = _one_name(segment, field, repetition, first=1)
        place = _IDEOGRAPHIC_PHONETIC.get(segment.text(field, 8, repetition=repetition), 0)
        if place == 0 and groups[0] and bool(_ARABIC.search(name)) != bool(_ARABIC.search(groups[0])):
            place = 1
        groups[place] = groups[place] or name
    if groups[1] and not _ARABIC.search(groups[1]) and _ARABIC.search(groups[0]):
        groups[0], groups[1] = groups[1], groups[0]
    return "=".join(groups).rstrip("=")


def provider_name(segment: Segment, field: int, *, repetition: int = 1) -> str:
    """XCN (or CN) as DICOM PN: the name behind the number."""
    return _one_name(segment, field, repetition, first=2)


def _one_name(segment: Segment, field: int, repetition: int, *, first: int) -> str:
    family, given, middle, suffix, prefix = (
        _component(segment.text(field, first + n, repetition=repetition)) for n in range(5)
    )
    return "^".join((family, given, middle, prefix, suffix)).rstrip("^")


def _component(text: str) -> str:
    return re.sub(r"[\^=\\\s]+", " ", text).strip()[:64]


def telephone(segment: Segment, field: int) -> str:
    """XTN: the number as written before 2.3, else the parts of it; a mobile (CP) before others. "" for none."""
    found = []
    for repetition in range(1, segment.repetitions(field) + 1):
        whole = segment.text(field, 12, repetition=repetition) or segment.text(field, 1, repetition=repetition)
        parts = "".join(segment.text(field, n, repetition=repetition) for n in (5, 6, 7))
        number = re.sub(r"[^0-9+]", "", ascii_digits(whole or parts))
        if len(number) >= 5:
            found.append((segment.text(field, 3, repetition=repetition) != "CP", number[:20]))
    return min(found, default=(True, ""), key=lambda f: f[0])[1]


def coded(segment: Segment, field: int) -> tuple[str, str, str]:
    """(system, code, text) of a CE or CWE. A local code's system is "": it means something at its site alone."""
    code, text, scheme = (segment.text(field, n) for n in (1, 2, 3))
    return (SCHEMES.get(scheme, ""), code, text) if text or scheme in SCHEMES else ("", "", code)
