"""study.corrections of one study, a batch of them at once → their rows, what they come to, and where lists have it now.

Pure: rows and documents come in as values. All corrections of a study are folded in the order of the log; the last one
of each kind decides. Its lists point to a corrected study under what it was and under all that it has become: whoever
reads a list takes the study as it is now (`studies.overlay`) and looks whether it still belongs there.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from schemas import overlay as overlays
from schemas.corrections import BY_TAG, PATIENT_TAGS, Correction, Document, decode_correction, encode
from schemas.errors import Invalid
from schemas.events import Event, StudyRejected
from schemas.overlay import Choice, Overlay, Rejection
from schemas.pack import Manifest
from schemas.patient_keys import Keys
from schemas.tables import EVER, Upsert, Write
from streams import rejection_notes
from streams.facts import Fact
from streams.limits import within
from streams.pack_rows import PackRow, StudyPart
from streams.projections.studies import day_of_study, index_keys, vocabulary

TABLE = "corrections"
COLUMNS = ("study_uid", "record_offset", "correction_id", "content")

# Columns of a study's part by the tags of what may be corrected.
_PARTS: Mapping[str, str] = {
    "00100010": "patient_name", "00100020": "patient_id", "00100021": "issuer", "00100030": "birth_date",
    "00100040": "sex", "00080020": "study_date", "00080030": "study_time", "00080050": "accession",
    "00080090": "referring", "00081030": "description", "00200010": "study_id",
}  # fmt: skip
_STUDY_DATE = "00080020"
_IDENTIFYING = frozenset(("00100020", "00100021", "00100030", "00100040"))


@dataclass(frozen=True, slots=True)
class Row:
    """A correction in its place in the log."""

    offset: int
    id: str
    content: Correction

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Row:
        """From a row with COLUMNS."""
        return cls(row["record_offset"], row["correction_id"], decode_correction(row["content"]))


@dataclass(frozen=True)
class Folded:
    """What a batch of one study's corrections says."""

    writes: list[Write]
    failed: tuple[tuple[Fact, Invalid], ...]


def fold(
    facts: Sequence[Fact], before: Sequence[Row], materials: Sequence[Any], first: PackRow | None, keys: Keys
) -> Folded:
    """`facts`: one study's, by offset. `before`: its rows below the first of them. `materials`: what `dispatch.wanted`
    asked for, or why it is not there. `first`: the study's first pack; None when the read models have none.

    A correction_id is the identity of a correction: its record coming again is no news.
    """
    rows = list(before)
    writes: list[Write] = []
    failed: list[tuple[Fact, Invalid]] = []
    for fact, material in zip(facts, materials, strict=True):
        try:
            if isinstance(material, Invalid):
                raise material
            if first is None:
                raise Invalid("correction-of-unknown-study")
            id = _id(fact.event)
            if any(row.id == id for row in rows):
                continue
            content = _content(fact.event, material)
            after = [*rows, Row(fact.offset, id, content)]
            number = {"number": material.number} if isinstance(material, Document) else {}
            written = within([*_rows(fact, content, number), *_summarised(after, first, keys)])
        except Invalid as error:
            failed.append((fact, error))
            continue
        rows = after
        writes += written
    return Folded(writes, tuple(failed))


def _id(event: Event) -> str:
    found: str = event.correction_id  # type: ignore[attr-defined]
    return found


def _content(event: Event, material: Any) -> Correction:
    if isinstance(event, StudyRejected) and isinstance(material, Manifest):
        return rejection_notes.correction(event, material)
    if not isinstance(material, Document):
        raise Invalid("correction-document")
    said = material.correction
    if (material.study_uid, material.id, f"{said.type}.v1") != (event.key(), _id(event), event.TYPE):
        raise Invalid("correction-other-document")
    if not said.attributes.keys() <= BY_TAG.keys():
        raise Invalid("correction-attribute")
    return said


def _rows(fact: Fact, content: Correction, number: Mapping[str, int]) -> Iterator[Upsert]:
    event: Any = fact.event
    columns = {
        "correction_id": event.correction_id,
        "type": content.type,
        "actor": event.actor,
        "reason": event.reason,
        "recorded": event.recorded,
        "note_sop_uid": getattr(event, "note_sop_uid", None) or "",
    }
    document = {
        "content": encode(content).decode(),
        "bucket": event.bucket,
        "document_key": event.document_key or "",
        "document_sha256": event.document_sha256 or "",
    }
    yield Upsert(
        TABLE,
        {"study_uid": event.study_uid, "record_offset": fact.offset},
        {**columns, **document, **number},
        fact.offset,
    )
    listed = {
        "code": content.code,
        "scope": "instances" if content.sop_uids else "series" if content.series_uid else "study",
        "instances": len(content.sop_uids),
    }
    key = {
        "month": fact.day[:6],
        "moment": fact.log_time,
        "study_uid": event.study_uid,
        "record_offset": fact.offset,
    }
    yield Upsert("corrections_by_month", key, columns | listed, fact.offset)


# ------------------------------------------------------------------------------------------------ all together


def _summarised(rows: Sequence[Row], first: PackRow, keys: Keys) -> Iterator[Upsert]:
    uid, offset = first.study_uid, rows[-1].offset
    found = laid_over(rows)
    before, study = first.summary.study, corrected(first.summary.study, found.study, first.site)
    whose = first.patient_key
    if _IDENTIFYING & found.study.keys():
        whose = key_of(study, uid, keys)
        found = msgspec.structs.replace(found, patient_key=whose)
    yield Upsert("studies", {"study_uid": uid}, {"overlay": overlays.encode(found)}, offset)
    day = day_of_study(first)
    places = list(index_keys(before, uid, first.patient_key, day))
    today = study.study_date or day
    for table, key in index_keys(study, uid, whose, today):
        if (table, key) not in places:
            places.append((table, key))
    for table, key in places:
        yield Upsert(table, key, {"corrected": True}, offset)
    if (study.patient_name, today) != (before.patient_name, day):
        yield from vocabulary(study.patient_name, today[:6], offset)
    yield from _counts(rows, uid, day, "" if found.whole else today, offset)


def key_of(study: StudyPart, uid: str, keys: Keys) -> str:
    """Whose a study is that says so."""
    return keys.of(
        patient_id=study.patient_id,
        issuer=study.issuer,
        birth_date=study.birth_date,
        sex=study.sex,
        study_uid=uid,
    ).value


def _counts(rows: Sequence[Row], uid: str, counted: str, today: str, offset: int) -> Iterator[Upsert]:
    """What `study_counts` has too much or too little of a study, which arrivals have counted on the day `counted`, when
    it is to be seen on `today`, or nowhere. A study's rows are its own: they lie under a number that no partition has.
    """
    moved = {row.content.attributes.get(_STUDY_DATE, "") for row in rows} - {""}
    if not moved and not any(row.content.type == "study.rejected" for row in rows):
        return
    own = -1 - (zlib.crc32(uid.encode()) >> 1)
    parts = {part for day in {counted, *moved} for part in ((EVER, day[:4]), (day[:4], day[:6]), (day[:6], day))}
    for within_, part in sorted(parts):
        key = {"within": within_, "part": part, "arrivals_partition": own}
        more = today.startswith(part) - counted.startswith(part)
        yield Upsert("study_counts", key, {"studies": more, "last_offset": offset}, offset)


def corrected(study: StudyPart, attributes: Mapping[str, str], site: str) -> StudyPart:
    """A study's part with corrected attributes. Without an issuer, identifiers are the site's."""
    values = {_PARTS[tag]: value for tag, value in attributes.items() if tag in _PARTS}
    if values.get("issuer") == "":
        values["issuer"] = site
    return msgspec.structs.replace(study, **values)


def laid_over(rows: Sequence[Row]) -> Overlay:
    """What corrections come to, in the order of the log."""
    study: dict[str, str] = {}
    series: dict[str, dict[str, str]] = {}
    instances: dict[str, dict[str, str]] = {}
    served: dict[str, Choice] = {}
    rejections: dict[str, Row] = {}
    for row in rows:
        said = row.content
        match said.type:
            case "study.corrected" if said.sop_uid:
                instances.setdefault(said.sop_uid, {}).update(said.attributes)
            case "study.corrected" if said.series_uid:
                series.setdefault(said.series_uid, {}).update(said.attributes)
            case "study.corrected":
                study.update(said.attributes)
            case "study.reassigned":
                study.update({tag: said.attributes.get(tag, "") for tag in PATIENT_TAGS})
            case "study.conflict-resolved":
                served[said.sop_uid] = Choice(id=row.id, sha256=said.served_sha256, as_of_offset=said.as_of_offset)
            case "study.rejected":
                rejections[row.id] = row
            case "study.restored":
                rejections = {i: r for i, r in rejections.items() if said.restores not in ("", i)}
    whole: Rejection | None = None
    rejected_series: dict[str, Rejection] = {}
    rejected: dict[str, Rejection] = {}
    for row in rejections.values():
        why = Rejection(id=row.id, code=row.content.code, until=row.content.until)
        if row.content.sop_uids:
            rejected |= dict.fromkeys(row.content.sop_uids, why)
        elif row.content.series_uid:
            rejected_series[row.content.series_uid] = why
        else:
            whole = why
    return Overlay(
        revision=rows[-1].offset,
        study=study,
        series=series,
        instances=instances,
        whole=whole,
        rejected_series=rejected_series,
        rejected=rejected,
        served=served,
    )
