"""What is in answers of the API, as pages show it: names by the script of the reader, days, a study's line. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from schemas.names import fold

_ARABIC = re.compile(r"[\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc]")
_DAY = re.compile(r"(\d{4})(\d{2})(\d{2})\Z", re.ASCII)
GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


@dataclass(frozen=True)
class Name:
    """A person's name as a reader of one script wants it first, and as it is otherwise known."""

    first: str
    second: str = ""


def person(groups: Mapping[str, str], code: str) -> Name:
    """Of a PN's component groups (PS3.18 §F.2.2) for a page in the language `code`."""
    said = [_spoken(groups[g]) for g in GROUPS if groups.get(g, "").strip("^ ")]
    arabic = [s for s in said if _ARABIC.search(s)]
    others = [s for s in said if not _ARABIC.search(s)]
    ordered = arabic + others if code == "ar" else others + arabic
    return Name(*ordered[:2]) if ordered else Name("")


def person_text(text: str, code: str) -> Name:
    """The same of a PN in one string, groups joined by `=`."""
    return person(dict(zip(GROUPS, text.split("="), strict=False)), code)


def in_script(names: Sequence[str], code: str) -> str:
    """One of the ways in which somebody's name is written, that of the reader first; empty if there is none."""
    wanted = [n for n in names if bool(_ARABIC.search(n)) == (code == "ar")]
    return next(iter(wanted or names), "")


def _spoken(group: str) -> str:
    """Components (family^given^middle^prefix^suffix) as they are read: Latin family first, Arabic given name first."""
    parts = [p.strip() for p in group.split("^")] + [""] * 5
    family, given, middle, prefix, suffix = parts[:5]
    if _ARABIC.search(group):
        return " ".join(p for p in (prefix, given, middle, family, suffix) if p)
    rest = " ".join(p for p in (given, middle, suffix) if p)
    named = ", ".join(p for p in (family, rest) if p)
    return f"{prefix} {named}".strip()


def day(text: str | None) -> date | None:
    """A DICOM date; None for what is none."""
    found = _DAY.match(text or "")
    if not found:
        return None
    try:
        return date(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        return None


def clock(text: str | None) -> str:
    """`HH:MM` of a DICOM time; empty for what is none."""
    digits = (text or "")[:4]
    return f"{digits[:2]}:{digits[2:]}" if len(digits) == 4 and digits.isascii() and digits.isdigit() else ""


def moment(text: str | None) -> datetime | None:
    """An RFC 3339 time; None for what is none."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else None


@dataclass(frozen=True)
class Study:
    """A study's line in a list."""

    uid: str
    day: date | None
    time: str
    modalities: tuple[str, ...]
    description: str
    name: Name
    patient_id: str
    born: date | None
    sex: str
    accession: str
    referring: Name
    series: int | None
    instances: int | None


def study(found: Mapping[str, Any], code: str) -> Study:
    """Of a study's answer in DICOM JSON (PS3.18 §F)."""

    def values(tag: str) -> list[Any]:
        return [v for v in found.get(tag, {}).get("Value", []) if v is not None]

    def text(tag: str) -> str:
        return str(next(iter(values(tag)), ""))

    def number(tag: str) -> int | None:
        return next((int(v) for v in values(tag)), None)

    def name(tag: str) -> Name:
        return person(next(iter(values(tag)), {}), code)

    return Study(
        uid=text("0020000D"),
        day=day(text("00080020")),
        time=clock(text("00080030")),
        modalities=tuple(map(str, values("00080061"))),
        description=text("00081030"),
        name=name("00100010"),
        patient_id=text("00100020"),
        born=day(text("00100030")),
        sex=text("00100040"),
        accession=text("00080050"),
        referring=name("00080090"),
        series=number("00201206"),
        instances=number("00201208"),
    )


def study_of_file(found: Mapping[str, Any]) -> Study:
    """Of a line of a patient's file, which does not repeat whose it is."""
    return Study(
        uid=found["study_uid"],
        day=day(found["study_date"]),
        time=clock(found["study_time"]),
        modalities=tuple(found["modalities"]),
        description=found["description"],
        name=Name(""),
        patient_id="",
        born=None,
        sex="",
        accession=found["accession"],
        referring=Name(""),
        series=found["series"],
        instances=found["instances"],
    )


@dataclass(frozen=True)
class Prior:
    """An earlier study beside the one that is read."""

    uid: str
    modalities: tuple[str, ...]
    description: str
    day: date | None
    site: str
    parts: tuple[str, ...]
    """Body parts that it has in common with the one that is read, as it names them."""


def priors(
    entries: Sequence[Mapping[str, Any]], uid: str, modalities: Sequence[str], parts: Sequence[str]
) -> list[Prior]:
    """The other studies of a patient's timeline: those of the same body part first, of these those of the same device,
    and the newest first.
    """
    read = {fold(part) for part in parts}
    found = [
        (
            Prior(
                e["study_uids"][0],
                tuple(e["modalities"]),
                e["text"],
                day(e["when"][:10].replace("-", "")),
                e["site"],
                tuple(part for part in e["body_parts"] if fold(part) in read),
            ),
            e["when"],
        )
        for e in entries
        if e["kind"] == "study" and e["study_uids"][0] != uid
    ]
    found.sort(key=lambda f: (bool(f[0].parts), bool(set(f[0].modalities) & set(modalities)), f[1]), reverse=True)
    return [prior for prior, _ in found]


def age(born: date | None, on: date) -> int | None:
    """Whole years; None where the birth date is missing or lies ahead."""
    if born is None or born > on:
        return None
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))
