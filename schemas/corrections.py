"""What people may correct, and how a correction is written down: the document in S3 that its event names.

Values and free text are in the document, never in the event (design, rule 3). The list of attributes is closed: what
identifies a patient or a study, what tells people what they see, and nothing that changes how pixels are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from typing import Any, Final

import msgspec

from schemas.dicom_json import Element, number, person_name, text
from schemas.errors import Invalid


class Scope(IntEnum):
    """What an attribute belongs to."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    INSTANCE = 3


@dataclass(frozen=True)
class Correctable:
    """An attribute of the closed list."""

    keyword: str
    tag: str
    vr: str
    scope: Scope


def _rows(scope: Scope, lines: str) -> list[Correctable]:
    words = (line.split() for line in lines.split(";"))
    return [Correctable(keyword, tag, vr, scope) for keyword, tag, vr in words]


CORRECTABLE: Final = (
    *_rows(
        Scope.PATIENT,
        "PatientName 00100010 PN;PatientID 00100020 LO;IssuerOfPatientID 00100021 LO;PatientBirthDate 00100030 DA;"
        "PatientSex 00100040 CS",
    ),
    *_rows(
        Scope.STUDY,
        "StudyDate 00080020 DA;StudyTime 00080030 TM;AccessionNumber 00080050 SH;ReferringPhysicianName 00080090 PN;"
        "StudyDescription 00081030 LO;StudyID 00200010 SH",
    ),
    *_rows(
        Scope.SERIES,
        "SeriesDescription 0008103E LO;PerformingPhysicianName 00081050 PN;OperatorsName 00081070 PN;"
        "BodyPartExamined 00180015 CS;ProtocolName 00181030 LO;SeriesNumber 00200011 IS;Laterality 00200060 CS",
    ),
    *_rows(
        Scope.INSTANCE,
        "InstanceNumber 00200013 IS;PatientOrientation 00200020 CS;ImageLaterality 00200062 CS",
    ),
)
BY_KEYWORD: Final[Mapping[str, Correctable]] = {c.keyword: c for c in CORRECTABLE}
BY_TAG: Final[Mapping[str, Correctable]] = {c.tag: c for c in CORRECTABLE}
PATIENT_TAGS: Final = tuple(c.tag for c in CORRECTABLE if c.scope is Scope.PATIENT)

QUALITY: Final = "113001"
RETENTION_EXPIRED: Final = "113039"
REJECTION_CODES: Final[Mapping[str, str]] = {
    QUALITY: "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    RETENTION_EXPIRED: "Data Retention Policy Expired",
}
"""Document titles of rejection notes (PS3.16 CID 7011; IHE RAD TF-3 §4.66)."""


class Correction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of a correction: of its document, and of its row in the read models."""

    type: str
    """Name of its event, without the version."""
    series_uid: str = ""
    sop_uid: str = ""
    attributes: dict[str, str] = {}
    """Tag → value as in PS3.5 §6.2; "" for an attribute that is to have none."""
    sop_uids: list[str] = []
    """Instances rejected one by one; none: the series, or the study if there is none of that either."""
    code: str = ""
    """Of REJECTION_CODES."""
    until: int | None = None
    """Copies that arrived after this offset of study.arrivals are not rejected."""
    restores: str = ""
    """Id of the rejection that is taken back; "": all."""
    served_sha256: str = ""
    """Of the dataset of the copy that is to be served."""
    as_of_offset: int = 0
    """`second_offset` of the latest conflict that is decided."""


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A correction as a person made it."""

    id: str
    study_uid: str
    number: int
    """From 1, without a gap within the study."""
    actor: str
    recorded: str
    reason: str
    comment: str = ""
    correction: Correction


_document_decoder = msgspec.json.Decoder(Document)
_correction_decoder = msgspec.json.Decoder(Correction)
_encoder = msgspec.json.Encoder(order="deterministic")


def encode(value: Document | Correction) -> bytes:
    """As JSON, the same bytes for the same content."""
    return _encoder.encode(value)


def decode_document(data: bytes) -> Document:
    """Raises Invalid(`correction-document`)."""
    try:
        return _document_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Invalid("correction-document") from e


def decode_correction(data: bytes | str) -> Correction:
    """Raises Invalid(`correction-document`)."""
    try:
        return _correction_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Invalid("correction-document") from e


# ------------------------------------------------------------------------------------------------ values

_LENGTH_MAX: Final = {"SH": 16, "CS": 16, "LO": 64, "IS": 12}
_FORM: Final = {
    "CS": re.compile(r"[A-Z0-9 _]*\Z"),
    "DA": re.compile(r"(?:[0-9]{8})?\Z"),
    "TM": re.compile(r"(?:[0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?)?\Z"),
    "IS": re.compile(r"(?:[+-]?[0-9]{1,10})?\Z"),
}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_SCRIPTS: Final = ("ascii", "latin-1", "iso8859_6")
"""Those that can be put into a dataset of any other character set by an escape (PS3.5 §6.1.2.5)."""


def check_value(attribute: Correctable, value: str) -> str:
    """The value without padding. Raises Invalid(`correction-value`), which does not quote it."""
    value = value.strip()
    form = _FORM.get(attribute.vr)
    if _CONTROL.search(value) or (form and not form.match(value)) or not _is_written(value):
        raise Invalid("correction-value", f"{attribute.keyword} cannot have this value")
    if attribute.vr == "PN":
        groups = value.split("=")
        if len(groups) > 3 or any(len(g) > 64 or g.count("^") > 4 for g in groups):
            raise Invalid("correction-value", f"{attribute.keyword} has at most 3 groups of 64 characters")
    elif len(value) > _LENGTH_MAX.get(attribute.vr, 64):
        raise Invalid("correction-value", f"{attribute.keyword} is too long")
    if attribute.vr == "DA" and value:
        try:
            date(int(value[:4]), int(value[4:6]), int(value[6:]))
        except ValueError as e:
            raise Invalid("correction-value", f"{attribute.keyword} is no date") from e
    return value


def _is_written(value: str) -> bool:
    """Whether each character is Latin or Arabic."""
    return all(any(_can(c, script) for script in _SCRIPTS) for c in set(value))


def _can(character: str, script: str) -> bool:
    try:
        character.encode(script)
    except UnicodeEncodeError:
        return False
    return True


def element(tag: str, value: str) -> Element:
    """A corrected attribute as an element of DICOM JSON (PS3.18 §F.2.2)."""
    vr = BY_TAG[tag].vr
    if vr == "PN":
        return person_name(value)
    if vr == "IS":
        return number(int(value) if value else None)
    return text(vr, value)


def elements(attributes: Mapping[str, str]) -> dict[str, Any]:
    """The same of all."""
    return {tag: element(tag, value) for tag, value in attributes.items()}
