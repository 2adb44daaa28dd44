"""A Query becomes a Plan: which read model a search begins with, and what is left to look at. Pure.

The plan starts from the most selective read model: StudyInstanceUID, SOPInstanceUID, AccessionNumber, PatientID, a
piece of PatientName through the vocabulary of its words, else the days, newest first. No plan scans a table: what no
index knows is looked for day by day, up to a deadline, and the answer says where to go on. Every condition is checked
on every row, so an index only has to give enough, never exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from consumers.api.attributes import Level
from consumers.api.qido import Condition, Kind, Query
from schemas.answers import STUDY_ANSWER_TAGS
from schemas.levels import STUDY_TAGS
from schemas.names import PREFIX_LENGTH, TRIGRAM_LENGTH, Part, pattern_pieces
from schemas.sounds import Asked, asked

DAYS_NAMED_MAX = 31
"""A range of so many days is read day by day, without asking first which of them have studies."""


@dataclass(frozen=True)
class ByUid:
    """`studies`, a row for each UID."""

    study_uids: tuple[str, ...]


@dataclass(frozen=True)
class BySop:
    """`instances_by_uid`, a partition for each UID, then `studies`."""

    sop_uids: tuple[str, ...]


@dataclass(frozen=True)
class ByAccession:
    """`studies_by_accession`, one partition."""

    accession: str


@dataclass(frozen=True)
class ByPatientID:
    """`studies_by_patient_id`, one partition."""

    patient_id: str


@dataclass(frozen=True)
class ByName:
    """`studies_by_name_token`, months newest first, of the words that have `piece`: as a whole, at the start, or inside
    (`name_tokens`, `name_trigrams`).
    """

    piece: str
    part: Part
    sound: str = ""
    """A token of a key (`schemas.sounds`) whose studies are looked at too; empty: none."""
    sound_part: Part = Part.WHOLE


@dataclass(frozen=True)
class ByDay:
    """`studies_by_day`, newest first."""


@dataclass(frozen=True)
class ByReach:
    """`studies_by_patient`, the files of the patients whom somebody may see, and the studies that they may see besides:
    what a doctor or a patient searches.
    """

    patients: tuple[str, ...]
    study_uids: tuple[str, ...]


Source = ByUid | BySop | ByAccession | ByPatientID | ByName | ByDay | ByReach


@dataclass(frozen=True)
class Plan:
    """Where to begin, within which days, and what has to be looked at on the way."""

    source: Source
    first_day: str = ""
    """YYYYMMDD; empty: open."""
    last_day: str = ""
    filters: tuple[Condition, ...] = ()
    """Conditions on the study that its answer decides."""
    header_filters: tuple[Condition, ...] = ()
    """Conditions on the study that its header decides: read for those that pass all others."""
    shows_header: bool = False
    """Whether an answer shows what only the header has."""
    counted: bool = False
    """Whether all that is listed fits, so that `offset` can leave out whole days by their counts."""

    @property
    def days(self) -> tuple[str, ...]:
        """The days of a short range, newest first; none if the range is open or long."""
        first, last = _day(self.first_day), _day(self.last_day)
        if first is None or last is None or not 0 <= (last - first).days < DAYS_NAMED_MAX:
            return ()
        return tuple((last - timedelta(n)).strftime("%Y%m%d") for n in range((last - first).days + 1))


def plan(query: Query) -> Plan:
    """The most selective start for a query."""
    of_study = [c for c in query.conditions if c.attribute.level is Level.STUDY]
    dates = query.find("StudyDate")
    first, last = dates.values if dates and dates.kind is Kind.RANGE else ("", "")
    source = _source(query)
    shown = query.include | {c.attribute.top for c in of_study}
    return Plan(
        source,
        first,
        last,
        filters=tuple(c for c in of_study if c.attribute.top in STUDY_ANSWER_TAGS),
        header_filters=tuple(c for c in of_study if c.attribute.top not in STUDY_ANSWER_TAGS),
        shows_header=query.include_all or bool((shown & _STUDY_TAGS) - STUDY_ANSWER_TAGS),
        counted=isinstance(source, ByDay)
        and not query.conditions
        and query.level is Level.STUDY
        and not query.cursor[0],
    )


_STUDY_TAGS = frozenset(STUDY_TAGS)


def _source(query: Query) -> Source:
    if (study := query.find("StudyInstanceUID")) and study.kind is Kind.UIDS:
        return ByUid(study.values)
    if (instance := query.find("SOPInstanceUID")) and instance.kind is Kind.UIDS:
        return BySop(instance.values)
    if (accession := query.find("AccessionNumber")) and accession.kind is Kind.TEXT:
        return ByAccession(accession.values[0])
    if (patient := query.find("PatientID")) and patient.kind is Kind.TEXT:
        return ByPatientID(patient.values[0])
    if (name := query.find("PatientName")) and name.kind is Kind.NAME:
        return _by_name(name.values[0], fuzzy=query.fuzzy)
    return ByDay()


def _by_name(pattern: str, *, fuzzy: bool) -> Source:
    """The piece that is the rarest as a rule: the longest, and of as long ones the one that is known best."""
    useful = [s for s in names_by(pattern, fuzzy=fuzzy) if len(s.piece) >= _LEAST[s.part]]
    return max(useful, key=lambda s: len(s.piece) + s.part, default=ByDay())


def names_by(pattern: str, *, fuzzy: bool) -> list[ByName]:
    """The ways to begin with a name: each holds every name that matches."""
    found = [
        # A fuzzy match asks for the beginnings of words alone.
        ByName(piece, min(part, Part.START) if fuzzy else part)
        for part, piece in pattern_pieces(pattern)
    ]
    if fuzzy and (words := asked(pattern)):
        found = [_heard(word, name) for name in found for word in words if name.piece in word.heard.words]
    return found


def _heard(word: Asked, name: ByName) -> ByName:
    """With the names that a word may be the sound of."""
    if not word.token:
        return name
    return ByName(name.piece, name.part, word.token, Part.START if word.begins else Part.WHOLE)


_LEAST = {Part.WHOLE: 1, Part.START: PREFIX_LENGTH, Part.INSIDE: TRIGRAM_LENGTH}
"""Characters of a piece below which the vocabulary is no help."""


def _day(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None


_TABLES: dict[type, str] = {
    ByUid: "studies",
    BySop: "instances_by_uid",
    ByAccession: "studies_by_accession",
    ByPatientID: "studies_by_patient_id",
    ByName: "studies_by_name_token",
    ByDay: "studies_by_day",
    ByReach: "studies_by_patient",
}


def explain(query: Query, plan: Plan) -> dict[str, Any]:
    """A plan for people to read: names of attributes, never what was asked for."""
    told: dict[str, Any] = {
        "level": query.level.name,
        "table": _TABLES[type(plan.source)],
        "filters": [c.attribute.keyword for c in plan.filters + plan.header_filters],
        "days": "named" if plan.days else "bounded" if plan.first_day or plan.last_day else "all",
        "reads_headers": bool(plan.header_filters) or plan.shows_header,
        "offset": "by counts" if plan.counted else "by walking",
    }
    if isinstance(plan.source, ByName):
        told["vocabulary"] = {
            Part.WHOLE: "none: a whole word",
            Part.START: "name_tokens",
            Part.INSIDE: "name_trigrams",
        }[plan.source.part]
        told["sounds"] = bool(plan.source.sound)
    return told
