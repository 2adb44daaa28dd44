"""Rows become DICOM JSON (PS3.18 Annex F), as QIDO-RS answers show them (§10.6.3.3). Pure.

A study's part was made by the projection (`schemas.answers`) and is copied. What a search shows beyond the usual
attributes comes of the level's header, when the search asked for it or by it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from consumers.api.accept import ANY, Accepted, single_part
from consumers.api.qido import Query
from consumers.api.wado import NotAcceptable, part_head
from schemas import native_xml
from schemas.answers import CHARACTER_SET, TIMEZONE, UTF8, completed
from schemas.dicom_json import Dataset, Element, number, ordered, text

Row = Mapping[str, Any]

MEDIA_TYPES = ("application/dicom+json", "application/json")
XML_PARTS = f'multipart/related; type="{native_xml.MEDIA_TYPE}"'
AVAILABILITY = "ONLINE"
"""Instance Availability (PS3.3 C.4.23.1.1) of what lies in the hot or the archive bucket: both answer at once."""
AVAILABILITY_TAG, URL_TAG = "00080056", "00081190"
STUDY_UID, SERIES_UID, SOP_UID = "0020000D", "0020000E", "00080018"

_header = msgspec.json.Decoder(dict[str, Element])
_encoder = msgspec.json.Encoder()
_AVAILABILITY = _encoder.encode(AVAILABILITY)

# Attributes of headers that every answer of a level shows, if they are there.
SERIES_USUAL = ("00080021", "00080031", TIMEZONE, "00400244", "00400245", "00400275")
INSTANCE_USUAL = (TIMEZONE, "00280008", "00280010", "00280011", "00280100")
SERIES_SHOWN = frozenset(
    ("00080005", "00080056", "00080060", "0008103E", "00081190", "00180015", STUDY_UID, SERIES_UID, "00200011",
     "00201209", *SERIES_USUAL)
)  # fmt: skip
INSTANCE_SHOWN = frozenset(
    ("00080005", "00080016", SOP_UID, "00080056", "00081190", "00083002", STUDY_UID, SERIES_UID, "00200013",
     *INSTANCE_USUAL)
)  # fmt: skip


def study_text(row: Row, base: str) -> bytes:
    """A study without more than the usual. `base` is the URL of the DICOMweb service, without a slash at its end."""
    url = _encoder.encode(f"{base}/studies/{row['study_uid']}")
    return completed(row["answer"].encode(), _AVAILABILITY, url)


def study(row: Row, query: Query) -> Dataset:
    """A study, with what the search asked for of its header, where the row has that. Without a Retrieve URL."""
    found: Dataset = _header.decode(row["answer"])
    found[AVAILABILITY_TAG] = {"vr": "CS", "Value": [AVAILABILITY]}
    if header := row.get("attributes"):
        asked = _asked(query)
        for tag, element in _header.decode(header).items():
            if tag not in found and (query.include_all or tag in asked):
                found[tag] = element
    return found


def series(row: Row) -> Dataset:
    """All that is known of a series."""
    return _header.decode(row.get("attributes") or "{}") | {
        CHARACTER_SET: UTF8,
        AVAILABILITY_TAG: {"vr": "CS", "Value": [AVAILABILITY]},
        "00080060": text("CS", row.get("modality")),
        "0008103E": text("LO", row.get("description")),
        "00180015": text("CS", row.get("body_part")),
        STUDY_UID: {"vr": "UI", "Value": [row["study_uid"]]},
        SERIES_UID: {"vr": "UI", "Value": [row["series_uid"]]},
        "00200011": number(row.get("series_number")),
        "00201209": number(row.get("instance_count")),
    }


def instance(row: Row) -> Dataset:
    """All that is known of an instance: the copy that is served."""
    return _header.decode(row.get("attributes") or "{}") | {
        CHARACTER_SET: UTF8,
        AVAILABILITY_TAG: {"vr": "CS", "Value": [AVAILABILITY]},
        "00080016": text("UI", row.get("sop_class")),
        SOP_UID: {"vr": "UI", "Value": [row["sop_uid"]]},
        "00083002": text("UI", row.get("transfer_syntax")),
        STUDY_UID: {"vr": "UI", "Value": [row["study_uid"]]},
        SERIES_UID: {"vr": "UI", "Value": [row["series_uid"]]},
        "00200013": number(row.get("instance_number")),
    }


def shown(found: Dataset, usual: Collection[str], query: Query) -> Dataset:
    """Of a series or instance what an answer to the search shows."""
    if query.include_all:
        return found
    asked = _asked(query)
    return {tag: element for tag, element in found.items() if tag in usual or tag in asked}


def encode(dataset: Mapping[str, Element], base: str) -> bytes:
    """A dataset by tag, with the Retrieve URL of the lowest level that it names."""
    path = f"{base}/studies/{dataset[STUDY_UID]['Value'][0]}"
    for tag, name in ((SERIES_UID, "series"), (SOP_UID, "instances")):
        if tag in dataset:
            path += f"/{name}/{dataset[tag]['Value'][0]}"
    return _encoder.encode(ordered({**dataset, URL_TAG: {"vr": "UR", "Value": [path]}}))


def model_type(accepted: Sequence[Accepted]) -> str:
    """The first that a client takes and datasets leave as; XML in parts only (PS3.18 §8.7.3). Raises NotAcceptable."""
    for a in accepted:
        if a.multipart and a.of != ANY and a.takes(native_xml.MEDIA_TYPE):
            return native_xml.MEDIA_TYPE
        if media_type := single_part((a,), MEDIA_TYPES):
            return media_type
    raise NotAcceptable("datasets are answered as application/dicom+json, or application/dicom+xml in parts")


def xml_parts(datasets: Iterable[bytes], boundary: str) -> bytes:
    """Datasets in JSON as parts in XML."""
    documents = (native_xml.document(msgspec.json.decode(d)) for d in datasets)
    return b"".join(part_head(boundary, native_xml.MEDIA_TYPE, "", len(d)) + d for d in documents)


def listed(datasets: Iterable[bytes]) -> bytes:
    """An answer's body."""
    return b"[" + b",".join(datasets) + b"]"


def _asked(query: Query) -> frozenset[str]:
    """Attributes that the search names: to show, and to match by (§10.6.3.3)."""
    return query.include | {c.attribute.top for c in query.conditions}
