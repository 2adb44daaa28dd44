"""A row of an order as a Modality Worklist item (PS3.4 Table K.6-1). Pure.

One order is one requested procedure with one scheduled step, so the accession number stands for both their IDs: unique
at its site and at most 16 characters, as VR SH wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from enum import Enum
from typing import Any, Final

from schemas.dicom_json import Dataset, Element, ordered, person_name, text
from schemas.identity import NATIONAL_ISSUER

Row = Mapping[str, Any]

STEP: Final = "00400100"
"""Scheduled Procedure Step Sequence."""
STATION_AE, START_DATE, START_TIME, STEP_STATUS = "00400001", "00400002", "00400003", "00400020"
ON_THE_LIST: Final = frozenset({"active"})
"""FHIR ServiceRequest.status of an order that a device may be told of."""
PRIORITIES: Final = {"stat": "STAT", "asap": "HIGH", "urgent": "HIGH", "routine": "ROUTINE"}
"""FHIR request-priority → Requested Procedure Priority (0040,1003)."""
SCHEMES: Final = {
    "http://loinc.org": "LN",
    "http://snomed.info/sct": "SCT",
    "http://dicom.nema.org/resources/ontology/DCM": "DCM",
    "http://radlex.org": "RADLEX",
    "http://www.ama-assn.org/go/cpt": "C4",
    "http://hl7.org/fhir/sid/icd-10": "I10",
}
"""Code system of FHIR → Coding Scheme Designator (PS3.16 Table 8-1); another URI is a private scheme's."""
PRIVATE_SCHEME = "99SIJIL"
SH_LENGTH, LO_LENGTH = 16, 64

# What an item never has a value for: asked for, it is there and empty (type 2 of the table).
_EMPTY: Final[Mapping[str, str]] = {
    "00081110": "SQ",
    "00081120": "SQ",
    "00101030": "DS",
    "00102000": "LO",
    "00102110": "LO",
    "001021C0": "US",
    "00321033": "LO",
    "00380010": "LO",
    "00380050": "LO",
    "00380300": "LO",
    "00380500": "LO",
    "00401004": "LO",
    "00401400": "LT",
    "00403001": "LO",
}
_EMPTY_STEP: Final[Mapping[str, str]] = {
    "00321070": "LO",
    "00400006": "PN",
    "00400010": "SH",
    "00400011": "SH",
    "00400012": "LO",
    "00400400": "LT",
}


class State(Enum):
    """Where an order stands for the devices: value of Scheduled Procedure Step Status (0040,0020)."""

    SCHEDULED = "SCHEDULED"
    STARTED = "STARTED"
    DONE = ""
    """No more on the list."""


def state(order: Row, steps: Iterable[Row], study: Row | None) -> State:
    """`steps`: rows of steps_by_study or steps_by_accession. `study`: its row of `studies`, if something has arrived.

    A step that was broken off leaves the order on the list: it has to be done again, or cancelled by a person.
    """
    said = {s["status"] for s in steps}
    if order["status"] not in ON_THE_LIST or "completed" in said or (study and study["completed_revision"] is not None):
        return State.DONE
    return State.STARTED if study or "in-progress" in said else State.SCHEDULED


def item(order: Row, *, stands: State, zone: tzinfo) -> Dataset:
    """The whole item, DICOM JSON. An order that any station may do names none."""
    start = _start(order, zone)
    code = _code(order)
    description = order["procedure_text"] or order["procedure_code"]
    step: Dataset = {
        "00080060": text("CS", order["modality"]),
        STATION_AE: text("AE", order["station_ae"]),
        START_DATE: text("DA", start[:8]),
        START_TIME: text("TM", start[8:]),
        "00400007": text("LO", _cut(description, LO_LENGTH)),
        "00400008": code,
        "00400009": text("SH", _cut(order["accession"], SH_LENGTH)),
        STEP_STATUS: text("CS", stands.value),
        **{tag: {"vr": vr} for tag, vr in _EMPTY_STEP.items()},
    }
    return ordered(
        {
            **{tag: {"vr": vr} for tag, vr in _EMPTY.items()},
            "00080050": text("SH", _cut(order["accession"], SH_LENGTH)),
            "00080051": _issuer(order["site"]),
            "00080090": person_name(order["referrer_name"]),
            "00100010": person_name(order["patient_name"]),
            "00100020": text("LO", order["patient_id"]),
            # A national ID says itself what it is, and whose; a study that repeats its issuer would make another key
            "00100021": text("LO", "" if order["issuer"] == NATIONAL_ISSUER else order["issuer"]),
            "00100030": text("DA", order["birth_date"]),
            "00100040": text("CS", order["sex"]),
            "0020000D": text("UI", order["study_uid"]),
            "00321032": person_name(order["referrer_name"]),
            "00321060": text("LO", _cut(description, LO_LENGTH)),
            "00321064": code,
            STEP: {"vr": "SQ", "Value": [ordered(step)]},
            "00401001": text("SH", _cut(order["accession"], SH_LENGTH)),
            "00401002": text("LO", _cut(order["reason"], LO_LENGTH)),
            "00401003": text("SH", PRIORITIES.get(order["priority"] or "", "ROUTINE")),
            "00402016": text("LO", _cut(order["placer"], LO_LENGTH)),
        }
    )


def _start(order: Row, zone: tzinfo) -> str:
    """YYYYMMDDHHMMSS where the site is; of a patient who just came in, when the order was written."""
    if order["scheduled"]:
        return str(order["scheduled"])
    written = datetime.fromisoformat(order["recorded"]).astimezone(zone).strftime("%Y%m%d%H%M%S")
    return written if written.startswith(order["day"]) else f"{order['day']}000000"


def _code(order: Row) -> Element:
    """The requested procedure, coded; an item without a scheme would be no code (PS3.3 §8.2)."""
    if not order["procedure_code"] or not order["procedure_scheme"]:
        return {"vr": "SQ"}
    scheme = order["procedure_scheme"]
    scheme = SCHEMES.get(scheme, scheme if len(scheme) <= SH_LENGTH and ":" not in scheme else PRIVATE_SCHEME)
    coded = {
        "00080100": text("SH", _cut(order["procedure_code"], SH_LENGTH)),
        "00080102": text("SH", scheme),
        "00080104": text("LO", _cut(order["procedure_text"] or order["procedure_code"], LO_LENGTH)),
    }
    return {"vr": "SQ", "Value": [coded]}


def _issuer(site: str) -> Element:
    return {"vr": "SQ", "Value": [{"00400031": text("UT", site)}]}


def _cut(value: str | None, length: int) -> str:
    return (value or "")[:length].strip()
