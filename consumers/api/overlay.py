"""What people decided, laid over everything that leaves (design, Corrections). Pure.

The read models keep what arrived and, apart from it, what corrections come to (`schemas.overlay`). Here the second is
laid over the first: rows of studies, series and instances, headers in DICOM JSON; `consumers.api.patch` does the same
to the bytes of a dataset. What a correction does not speak of leaves as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from schemas.answers import study_answer
from schemas.corrections import elements
from schemas.overlay import Overlay, Rejection

Row = dict[str, Any]
Edits = Mapping[str, str]
"""Tag → value as in PS3.5 §6.2; "" for an attribute without one."""

LAID = "laid_over"
"""Key of the Overlay in the row of a study that has one."""
MEMBERS = "members"
"""Key of the visible members in the row of a study of which some are hidden."""
EDITS = "edits"
"""Key of the Edits in the row of an instance."""

# Columns of a study by the tags of what may be corrected.
_STUDY_COLUMNS = {
    "00100010": "patient_name", "00100020": "patient_id", "00100021": "issuer", "00100030": "birth_date",
    "00100040": "sex", "00080020": "study_date", "00080030": "study_time", "00080050": "accession",
    "00080090": "referring", "00081030": "description", "00200010": "study_id",
}  # fmt: skip
_SERIES_COLUMNS = {"0008103E": "description", "00180015": "body_part", "00200011": "series_number"}
_INSTANCE_COLUMNS = {"00200013": "instance_number"}
_NUMBERS = frozenset(("series_number", "instance_number"))

_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()


# ------------------------------------------------------------------------------------------------ what is hidden


def why_hidden(laid: Overlay, series_uid: str, sop_uid: str, record_offset: int) -> Rejection | None:
    """The rejection that hides a copy of an instance."""
    for rejection in (laid.whole, laid.rejected_series.get(series_uid), laid.rejected.get(sop_uid)):
        if rejection is not None and rejection.hides(record_offset):
            return rejection
    return None


def shown(laid: Overlay, rows: Iterable[Row]) -> list[Row]:
    """Of the copies of instances those that are not hidden."""
    return [r for r in rows if why_hidden(laid, r["series_uid"], r["sop_uid"], r["record_offset"]) is None]


def chosen(laid: Overlay, rows: Sequence[Row]) -> list[Row]:
    """Of the copies of each instance those with the content that a person chose, where one did and it is there."""
    if not laid.served:
        return list(rows)
    there = {(r["sop_uid"], r["sha256"]) for r in rows}
    wanted = {s: c.sha256 for s, c in laid.served.items() if (s, c.sha256) in there}
    return [r for r in rows if wanted.get(r["sop_uid"], r["sha256"]) == r["sha256"]]


def served(laid: Overlay | None, rows: Sequence[Row], *, original: bool = False) -> list[Row]:
    """Copies that may be served, with their edits; `original`: without, and those that are rejected too."""
    if laid is None:
        return list(rows)
    if original:
        return chosen(laid, rows)
    return [_edited_instance(laid, r) for r in chosen(laid, shown(laid, rows))]


# ------------------------------------------------------------------------------------------------ rows


def study(row: Row, laid: Overlay, members: Sequence[Row], series: Sequence[Row]) -> Row | None:
    """A row of `studies` as it is now, None when all of it is hidden. `members` and `series`: of a study of which
    something may be hidden, rows of its instances and series.
    """
    found = {**row, LAID: laid}
    if laid.hides:
        visible = served(laid, members)
        if not visible:
            return None
        kept = {m["series_uid"] for m in visible}
        found |= {
            MEMBERS: visible,
            "series_count": len(kept),
            "instance_count": len({m["sop_uid"] for m in visible}),
            "sop_classes": frozenset(m["sop_class"] for m in visible),
            "modalities": frozenset(s["modality"] for s in series if s["series_uid"] in kept and s["modality"]),
        }
    found |= _columns(_STUDY_COLUMNS, laid.study)
    if laid.patient_key:
        found["patient_key"] = laid.patient_key
    found["attributes"] = study_header(found, row["attributes"] or "{}")
    found["answer"] = study_answer(found)
    return found


def study_header(row: Mapping[str, Any], header: str) -> str:
    """A study's header, DICOM JSON, as its row says that it is now."""
    laid: Overlay | None = row.get(LAID)
    return header if laid is None or not laid.study else edited(header.encode(), laid.study).decode()


def series_rows(study: Mapping[str, Any], rows: Sequence[Row]) -> list[Row]:
    """Rows of series of a study as they are now, without those of which nothing is to be seen."""
    laid: Overlay | None = study.get(LAID)
    if laid is None:
        return list(rows)
    counts: dict[str, set[str]] = {}
    for member in study.get(MEMBERS, ()):
        counts.setdefault(member["series_uid"], set()).add(member["sop_uid"])
    found = []
    for row in rows:
        if laid.hides:
            if row["series_uid"] not in counts:
                continue
            row = {**row, "instance_count": len(counts[row["series_uid"]])}
        found.append(_edited_row(row, laid.series.get(row["series_uid"], {}), _SERIES_COLUMNS))
    return found


def instance_rows(study: Mapping[str, Any], rows: Sequence[Row]) -> list[Row]:
    """Copies of instances of a study as lists show them now."""
    return served(study.get(LAID), rows)


def _edited_instance(laid: Overlay, row: Row) -> Row:
    """A copy with all that is corrected in its header, and what of it its row shows."""
    own = laid.instances.get(row["sop_uid"], {})
    edits = {**laid.study, **laid.series.get(row["series_uid"], {}), **own}
    found = _edited_row(row, own, _INSTANCE_COLUMNS)
    return {**found, EDITS: edits} if edits else found


def _edited_row(row: Row, edits: Edits, columns: Mapping[str, str]) -> Row:
    if not edits:
        return row
    found = row | _columns(columns, edits)
    if row.get("attributes"):
        found["attributes"] = edited(row["attributes"].encode(), edits).decode()
    return found


def _columns(columns: Mapping[str, str], edits: Edits) -> Row:
    found: Row = {}
    for tag, value in edits.items():
        if name := columns.get(tag):
            found[name] = (int(value) if value else None) if name in _NUMBERS else value
    return found


# ------------------------------------------------------------------------------------------------ headers


def edited(header: bytes, edits: Edits | None) -> bytes:
    """A header in DICOM JSON (PS3.18 Annex F) with other values, in the order of its tags."""
    if not edits:
        return header
    found: dict[str, Any] = dict(_raw.decode(header))
    found |= elements(edits)
    return _encoder.encode({tag: found[tag] for tag in sorted(found)})
