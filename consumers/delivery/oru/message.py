"""A version of a report as ORU^R01 (HL7 v2.5.1 ch. 7.3.1), and what its acknowledgement says (ch. 2.9). Pure.

| segment | what it holds |
|---|---|
| PID-3 | the national ID (`…^^^EGY^NI`), or the site's own number (`…^^^<site>^MR`) |
| ORC-3, OBR-3 | the report's id |
| OBR-18 | the accession number |
| OBR-25 | the status: STATUS |
| OBX 1… | procedure, findings and impression as text, then the printed report (ED, PDF in Base64) |
| ZDS | the Study Instance UID (IHE RAD TF-2 §4.4.4.1.2.5) |
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from schemas.errors import Invalid
from schemas.hl7 import joined, parse, segment
from schemas.report_content import FINDINGS_CODE, IMAGING_REPORT, Content, content_of

STATUS: Final[Mapping[str, str]] = {
    "registered": "O",
    "partial": "A",
    "preliminary": "P",
    "final": "F",
    "amended": "C",
    "corrected": "C",
    "appended": "C",
    "cancelled": "X",
    "entered-in-error": "C",
}
"""DiagnosticReport.status → OBR-25 (table 0123)."""
WRONG: Final = "W"
"""OBX-11 (table 0085): what was sent was wrong, of another patient for example."""
OBX_STATUS: Final[Mapping[str, str]] = {"O": "O", "A": "P", "P": "P", "F": "F", "C": "C", "X": "X"}
"""OBR-25 → OBX-11."""
NATIONAL: Final = "EGY"
NUMBER_TYPE: Final[Mapping[bool, str]] = {True: "NI", False: "MR"}
CONTROL_ID_LENGTH: Final = 20
ACCEPTED: Final = frozenset(("AA", "CA"))
REJECTED: Final = frozenset(("AR", "CR"))
"""For a cause that is not the message's content: it may be sent again (ch. 2.9.2.2)."""


@dataclass(frozen=True)
class Numbered:
    """A patient by a number and who gives it: `EGY` for the national ID, else the site."""

    authority: str
    value: str

    @property
    def cx(self) -> tuple[str, ...]:
        """PID-3."""
        return (self.value, "", "", self.authority, NUMBER_TYPE[self.authority == NATIONAL])


@dataclass(frozen=True)
class Sent:
    """What a message is about, beside the report."""

    control_id: str
    sent: str
    """RFC 3339."""
    report_id: str
    version: int
    status: str
    site: str
    issued: str


def control_id(delivery_id: str) -> str:
    """MSH-10: the same at every attempt, so that a receiver knows what it has."""
    return delivery_id.replace("-", "")[:CONTROL_ID_LENGTH].upper()


def result(
    about: Sent,
    patient: Numbered,
    person: Mapping[str, Any],
    document: Mapping[str, Any],
    studies: Sequence[tuple[str, str]],
    pdf: bytes,
) -> bytes:
    """A version of a report. `person`: a row about the patient; `studies`: (UID, accession number)."""
    content = content_of(document)
    code = STATUS[about.status]
    status = WRONG if about.status == "entered-in-error" else OBX_STATUS[code]
    lines = [_header(about), _person(patient, person), _order(about), _request(about, content, code, studies)]
    texts = [
        (FINDINGS_CODE, "Procedure findings Narrative", content.findings),
        (IMAGING_REPORT["code"], IMAGING_REPORT["display"], content.impression),
    ]
    number = 0
    for loinc, display, text in texts:
        if text:
            number += 1
            lines.append(_observation(number, "TX", (loinc, display, "LN"), text, status))
    if pdf:
        data = ("", "application", "pdf", "Base64", b64encode(pdf).decode())
        lines.append(_observation(number + 1, "ED", ("PDF", "Report", "L"), data, status))
    return joined([*lines, *_studies(studies)]).encode()


def withdrawal(about: Sent, patient: Numbered, studies: Sequence[tuple[str, str]]) -> bytes:
    """What was sent of a report was not this patient's. Nothing of it is said again."""
    code = (IMAGING_REPORT["code"], IMAGING_REPORT["display"], "LN")
    content = Content(status="entered-in-error", study_uids=())
    lines = [_header(about), _person(patient, {}), _order(about), _request(about, content, "C", studies)]
    return joined([*lines, _observation(1, "TX", code, "", WRONG), *_studies(studies)]).encode()


def acknowledged(answer: bytes, control_id: str) -> str:
    """MSA-1 of an acknowledgement. Raises Invalid(`hl7-ack`) for an answer to something else, or none."""
    try:
        msa = parse(answer.decode("utf-8", "replace")).first("MSA")
    except Invalid as e:
        raise Invalid("hl7-ack", "the answer is no HL7 message") from e
    if msa.text(2) != control_id or not msa.text(1):
        raise Invalid("hl7-ack", "the answer is to another message")
    return msa.text(1)


def _header(about: Sent) -> str:
    kind = ("ORU", "R01", "ORU_R01")
    return segment(
        "MSH", "SIJIL", about.site, "", "", _time(about.sent), "", kind, about.control_id, "P", "2.5.1",
        "", "", "AL", "NE", "EGY", "UNICODE UTF-8",
    )  # fmt: skip


def _person(patient: Numbered, person: Mapping[str, Any]) -> str:
    name = (person.get("patient_name") or "").split("=")
    shown = next((group for group in name if group.strip()), "")
    born, sex = person.get("birth_date") or "", person.get("sex") or ""
    return segment("PID", "1", "", patient.cx, "", shown.split("^")[:5], "", born, sex)


def _order(about: Sent) -> str:
    return segment("ORC", "RE", "", about.report_id)


def _request(about: Sent, content: Content, code: str, studies: Sequence[tuple[str, str]]) -> str:
    procedure = content.procedure
    service = (procedure.code or IMAGING_REPORT["code"], procedure.text or IMAGING_REPORT["display"])
    fields: list[str | Sequence[str]] = [""] * 25
    fields[0], fields[2] = "1", about.report_id
    fields[3] = (*service, "LN" if not procedure.code else "L")
    fields[17] = next((accession for _, accession in studies if accession), "")
    fields[21], fields[23], fields[24] = _time(about.issued), "RAD", code
    return segment("OBR", *fields)


def _observation(number: int, kind: str, code: Sequence[str], value: str | Sequence[str], status: str) -> str:
    return segment("OBX", str(number), kind, code, "", value, "", "", "", "", "", status)


def _studies(studies: Sequence[tuple[str, str]]) -> list[str]:
    return [segment("ZDS", (uid, "SIJIL", "Application", "DICOM")) for uid, _ in studies]


def _time(moment: str) -> str:
    """RFC 3339 as DTM (ch. 2A.21), in UTC."""
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")
