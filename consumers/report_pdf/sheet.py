"""What is printed of a report, as plain values: from its document, its study's answer and the site's letterhead. Pure.

Nothing is decided here about who may see it: whoever calls has been let in (`consumers.api.guard`), or delivers.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from consumers.report_pdf.letterhead import Lang, Letterhead
from consumers.report_pdf.words import word
from schemas.report_content import Coded, Content, content_of, signature_of

MARK_LETTERS: Final = 16
"""So many hexadecimal digits of a document's SHA-256 are printed: 64 bits, to be compared and not to be guessed."""
_BREAK: Final = re.compile(r"<\s*(?:br|/p|/div|/li|/tr|/h[1-6])\b[^>]*>", re.IGNORECASE)
_TAG: Final = re.compile(r"<[^>]*>")
_BLANKS: Final = re.compile(r"[ \t\r\f\v]+")
_DA: Final = re.compile(r"(\d{4})(\d{2})(\d{2})\Z", re.ASCII)


@dataclass(frozen=True)
class Section:
    """A part of the report. `weighty`: what is read first."""

    heading: str
    text: str
    weighty: bool = False


@dataclass(frozen=True)
class Sheet:
    """What a printed report says."""

    lang: Lang
    letterhead: Letterhead
    site: str
    title: str
    notices: tuple[str, ...]
    """Why it is not to be taken for the last word; none for one that is."""
    facts: tuple[tuple[str, str], ...]
    """(label, value)."""
    sections: tuple[Section, ...]
    signatures: tuple[str, ...]
    version: int
    mark: str
    verify_url: str
    issued: str
    """RFC 3339: of the file's own date, so that the same report gives the same bytes."""


@dataclass(frozen=True)
class About:
    """What the archive knows of a version beside its document."""

    report_id: str
    version: int
    current_version: int
    status: str
    site: str
    issued: str
    sha256: str
    """Of the document."""


def sheet_of(
    document: Mapping[str, Any],
    study: Mapping[str, Any],
    about: About,
    letterhead: Letterhead,
    *,
    base_url: str,
    lang: Lang,
    zone: ZoneInfo,
    priors: Sequence[str] = (),
    signer: str = "",
) -> Sheet:
    """`study` is the study's answer as DICOM JSON (PS3.18 §F), corrections laid over; `base_url` that of the door;
    `priors` a line for each study that was compared with; `signer` the name of who signed it, where one is known.
    """
    content, signature = content_of(document), signature_of(document)
    notices = [word(f"status.{about.status}", lang)]
    if about.version < about.current_version:
        notices.insert(0, word("superseded", lang))
    mark = about.sha256[:MARK_LETTERS]
    return Sheet(
        lang=lang,
        letterhead=letterhead,
        site=about.site,
        title=content.procedure.text or _text(study, "00081030") or word("report", lang),
        notices=tuple(filter(None, notices)),
        facts=tuple((word(k, lang), v) for k, v in _facts(study, about, lang, zone) if v),
        sections=tuple(_sections(content, _narrative(document), priors, lang)),
        signatures=(f"{signer or signature.who} · {local(signature.when, zone)}",) if signature else (),
        version=about.version,
        mark=mark,
        verify_url=f"{base_url.rstrip('/')}/verify/{about.report_id}/{about.version}/{mark}",
        issued=about.issued,
    )


def _facts(study: Mapping[str, Any], about: About, lang: Lang, zone: ZoneInfo) -> Iterable[tuple[str, str]]:
    sex = _text(study, "00100040")
    modalities = [str(v) for v in study.get("00080061", {}).get("Value", ())]
    examination = " · ".join(filter(None, ("/".join(modalities), _text(study, "00081030"))))
    examined = " ".join(filter(None, (_day(_text(study, "00080020")), _clock(_text(study, "00080030")))))
    yield "name", _person(study, "00100010", lang)
    yield "id", _text(study, "00100020")
    yield "born", _day(_text(study, "00100030"))
    yield "sex", word(f"sex.{sex}", lang) if sex in ("M", "F", "O") else ""
    yield "examination", examination
    yield "examined", examined
    yield "accession", _text(study, "00080050")
    yield "referrer", _person(study, "00080090", lang)
    yield "issued", local(about.issued, zone)


def _sections(content: Content, narrative: str, priors: Sequence[str], lang: Lang) -> Iterable[Section]:
    """A document from elsewhere may have nothing but its narrative; where there are findings it repeats them."""
    said = (
        ("question", content.question),
        ("technique", content.technique),
        ("comparison", "\n".join(priors)),
        ("findings", content.findings),
        ("text", "" if content.findings or narrative == content.impression else narrative),
        ("impression", content.impression),
        ("category", _coded(content.category)),
        ("codes", "\n".join(map(_coded, content.conclusions))),
        ("dose", "\n".join(f"{d.meaning or d.code}: {d.value} {d.unit}" for d in content.dose)),
    )
    for key, text in said:
        if text.strip():
            yield Section(word(key, lang), text.strip(), weighty=key == "impression")


def prior(study: Mapping[str, Any]) -> str:
    """A line of a study that was compared with: its day, what it was."""
    modalities = "/".join(str(v) for v in study.get("00080061", {}).get("Value", ()))
    return " · ".join(filter(None, (_day(_text(study, "00080020")), modalities, _text(study, "00081030"))))


def _narrative(document: Mapping[str, Any]) -> str:
    text = document.get("text")
    return plain(str(text.get("div", ""))) if isinstance(text, Mapping) else ""


def local(moment: str, zone: ZoneInfo) -> str:
    """`2026-01-02 10:11` of an RFC 3339 time; empty for what is none."""
    try:
        return f"{datetime.fromisoformat(moment).astimezone(zone):%Y-%m-%d %H:%M}"
    except ValueError:
        return ""


def plain(div: str) -> str:
    """The text of a narrative's XHTML, a line for each block."""
    text = html.unescape(_TAG.sub("", _BREAK.sub("\n", div)))
    lines = (_BLANKS.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _coded(coded: Coded) -> str:
    return " · ".join(filter(None, (coded.code, coded.text)))


def _text(study: Mapping[str, Any], tag: str) -> str:
    values = study.get(tag, {}).get("Value") or ("",)
    return "" if values[0] is None else str(values[0])


def _person(study: Mapping[str, Any], tag: str, lang: Lang) -> str:
    """The group of a PN in the script that is read; names as they are spoken."""
    found = next(iter(study.get(tag, {}).get("Value") or ()), None)
    groups = [str(v).strip("^ ") for v in found.values()] if isinstance(found, Mapping) else []
    arabic = [g for g in groups if any("\u0600" <= c <= "\u06ff" for c in g)]
    others = [g for g in groups if g and g not in arabic]
    ordered = [*arabic, *others] if lang == "ar" else [*others, *arabic]
    return _spoken(ordered[0]) if ordered else ""


def _spoken(group: str) -> str:
    """family^given^middle^prefix^suffix."""
    family, given, middle, prefix, suffix = ([p.strip() for p in group.split("^")] + [""] * 5)[:5]
    return " ".join(filter(None, (prefix, given, middle, family, suffix)))


def _day(text: str) -> str:
    found = _DA.match(text)
    return "-".join(found.groups()) if found else ""


def _clock(text: str) -> str:
    return f"{text[:2]}:{text[2:4]}" if len(text) >= 4 and text[:4].isascii() and text[:4].isdigit() else ""
