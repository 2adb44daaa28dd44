"""What a search shows of a study (PS3.18 §10.6.3.3), made once by the projection and copied out by the doors.

The attributes of Table 10.6.3-3 and StudyDescription and SOPClassesInStudy, by tag, without Retrieve URL and Instance
Availability, which depend on who asks and when. An attribute that a study does not have is there without a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.dicom_json import Dataset, number, ordered, person_name, text, texts

CHARACTER_SET = "00080005"
UTF8 = {"vr": "CS", "Value": ["ISO_IR 192"]}
TIMEZONE = "00080201"

STUDY_ANSWER_TAGS = frozenset(
    "00080005 00080020 00080030 00080050 00080056 00080061 00080062 00080090 00080201 00081030 00081190 00100010"
    " 00100020 00100030 00100040 0020000D 00200010 00201206 00201208".split()
)
"""What an answer needs no header for: the projection's part and the door's."""


class _Header(msgspec.Struct, rename={"timezone": TIMEZONE}):
    timezone: Any = None


_header = msgspec.json.Decoder(_Header)
_encoder = msgspec.json.Encoder()


def study_answer(row: Mapping[str, Any]) -> str:
    """Of a row of `studies`."""
    found: Dataset = {
        CHARACTER_SET: UTF8,
        "00080020": text("DA", row["study_date"]),
        "00080030": text("TM", row["study_time"]),
        "00080050": text("SH", row["accession"]),
        "00080061": texts("CS", row["modalities"]),
        "00080062": texts("UI", row["sop_classes"]),
        "00080090": person_name(row["referring"]),
        "00081030": text("LO", row["description"]),
        "00100010": person_name(row["patient_name"]),
        "00100020": text("LO", row["patient_id"]),
        "00100030": text("DA", row["birth_date"]),
        "00100040": text("CS", row["sex"]),
        "0020000D": text("UI", row["study_uid"]),
        "00200010": text("SH", row["study_id"]),
        "00201206": number(row["series_count"]),
        "00201208": number(row["instance_count"]),
    }
    zone = _header.decode(row["attributes"] or "{}").timezone
    if zone is not None:
        found[TIMEZONE] = zone
    return _encoder.encode(ordered(found)).decode()


AVAILABILITY_AT = b'"00080061":'
URL_AT = b'"00100010":'
"""Where the door's elements belong: before these, each of which every answer has once. In a string of JSON a quote is
escaped, so neither can stand inside a value."""


_NO_MODALITY = AVAILABILITY_AT + b'{"vr":"CS"}'
_EMPTY_LIST = AVAILABILITY_AT + b'{"vr":"CS","Value":[]}'
"""OHIF 3.13 reads the length of ModalitiesInStudy's values without asking whether there are any: one study without a
modality would take the whole list from its readers."""


def completed(answer: bytes, availability: bytes, url: bytes) -> bytes:
    """An answer with Instance Availability and Retrieve URL, given as JSON of their values."""
    head, mid, tail = _parts(answer)
    if mid.startswith(_NO_MODALITY):
        mid = _EMPTY_LIST + mid[len(_NO_MODALITY) :]
    return b"".join(
        (
            head,
            b'"00080056":{"vr":"CS","Value":[',
            availability,
            b"]},",
            mid,
            b'"00081190":{"vr":"UR","Value":[',
            url,
            b"]},",
            tail,
        )
    )


def _parts(answer: bytes) -> tuple[bytes, bytes, bytes]:
    first = answer.index(AVAILABILITY_AT)
    second = answer.index(URL_AT, first)
    return answer[:first], answer[first:second], answer[second:]
