"""Rows become DICOM JSON (PS3.18 Annex F), as QIDO-RS answers show them (§10.6.3.3). Pure.

An attribute of the usual ones that a study does not have is there without a value; others come when `includefield`
asks for them and the header had them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from consumers.api.qido import Query

Row = Mapping[str, Any]
Element = dict[str, Any]
Dataset = dict[str, Element]

MEDIA_TYPES = ("application/dicom+json", "application/json")
CHARACTER_SET = "00080005"
AVAILABILITY = "ONLINE"
"""Instance Availability (PS3.3 C.4.23.1.1) of what lies in the hot or the archive bucket: both answer at once."""

_header = msgspec.json.Decoder(dict[str, Element])
_encoder = msgspec.json.Encoder()


def encode(datasets: Iterable[Dataset]) -> bytes:
    """An answer's body: UTF-8."""
    return _encoder.encode(list(datasets))


def study(row: Row, base: str, query: Query) -> Dataset:
    """A study. `base` is the URL of the DICOMweb service, without a slash at its end."""
    found: Dataset = {
        CHARACTER_SET: {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080020": _text("DA", row.get("study_date")),
        "00080030": _text("TM", row.get("study_time")),
        "00080050": _text("SH", row.get("accession")),
        "00080056": {"vr": "CS", "Value": [AVAILABILITY]},
        "00080061": _texts("CS", row.get("modalities")),
        "00080062": _texts("UI", row.get("sop_classes")),
        "00080090": person_name(row.get("referring")),
        "00081030": _text("LO", row.get("description")),
        "00081190": {"vr": "UR", "Value": [f"{base}/studies/{row['study_uid']}"]},
        "00100010": person_name(row.get("patient_name")),
        "00100020": _text("LO", row.get("patient_id")),
        "00100030": _text("DA", row.get("birth_date")),
        "00100040": _text("CS", row.get("sex")),
        "0020000D": {"vr": "UI", "Value": [row["study_uid"]]},
        "00200010": _text("SH", row.get("study_id")),
        "00201206": _number(row.get("series_count")),
        "00201208": _number(row.get("instance_count")),
    }
    return _with_header(found, row, query, ("00080201",))


def series(row: Row, base: str, query: Query) -> Dataset:
    """A series of a study."""
    found: Dataset = {
        CHARACTER_SET: {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080056": {"vr": "CS", "Value": [AVAILABILITY]},
        "00080060": _text("CS", row.get("modality")),
        "0008103E": _text("LO", row.get("description")),
        "00081190": {"vr": "UR", "Value": [f"{base}/studies/{row['study_uid']}/series/{row['series_uid']}"]},
        "00180015": _text("CS", row.get("body_part")),
        "0020000D": {"vr": "UI", "Value": [row["study_uid"]]},
        "0020000E": {"vr": "UI", "Value": [row["series_uid"]]},
        "00200011": _number(row.get("series_number")),
        "00201209": _number(row.get("instance_count")),
    }
    return _with_header(found, row, query, ("00080021", "00080031", "00080201", "00400244", "00400245", "00400275"))


def instance(row: Row, base: str, query: Query) -> Dataset:
    """An instance: the copy that is served."""
    series_url = f"{base}/studies/{row['study_uid']}/series/{row['series_uid']}"
    found: Dataset = {
        CHARACTER_SET: {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080016": _text("UI", row.get("sop_class")),
        "00080018": {"vr": "UI", "Value": [row["sop_uid"]]},
        "00080056": {"vr": "CS", "Value": [AVAILABILITY]},
        "00081190": {"vr": "UR", "Value": [f"{series_url}/instances/{row['sop_uid']}"]},
        "00083002": _text("UI", row.get("transfer_syntax")),
        "0020000D": {"vr": "UI", "Value": [row["study_uid"]]},
        "0020000E": {"vr": "UI", "Value": [row["series_uid"]]},
        "00200013": _number(row.get("instance_number")),
    }
    usual = ("00080201", "00280008", "00280010", "00280011", "00280100")
    return _with_header(found, row, query, usual)


def needs_study_header(query: Query) -> bool:
    """Whether a study's answer shows more than its columns have."""
    return query.include_all or not query.include <= STUDY_TAGS


STUDY_TAGS = frozenset(
    "00080005 00080020 00080030 00080050 00080056 00080061 00080062 00080090 00081030 00081190 00100010 00100020"
    " 00100030 00100040 0020000D 00200010 00201206 00201208".split()
)
"""Tags of a study's answer that columns give."""


def person_name(value: str | None) -> Element:
    """A PN value `alphabetic=ideographic=phonetic` as an element (PS3.18 §F.2.2)."""
    if not value:
        return {"vr": "PN"}
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), value.split("="), strict=False)
    return {"vr": "PN", "Value": [{name: text for name, text in groups if text}]}


def _with_header(found: Dataset, row: Row, query: Query, usual: tuple[str, ...]) -> Dataset:
    """Adds what the header has of the usual elements and of those asked for; what is derived here stands."""
    text = row.get("attributes")
    if text:
        header = _header.decode(text)
        header.pop(CHARACTER_SET, None)
        for tag, element in header.items():
            if tag not in found and (query.include_all or tag in query.include or tag in usual):
                found[tag] = element
    return found


def _text(vr: str, value: str | None) -> Element:
    return {"vr": vr, "Value": [value]} if value else {"vr": vr}


def _texts(vr: str, values: Iterable[str] | None) -> Element:
    present = sorted(v for v in values or () if v)
    return {"vr": vr, "Value": present} if present else {"vr": vr}


def _number(value: int | None) -> Element:
    return {"vr": "IS"} if value is None else {"vr": "IS", "Value": [value]}
