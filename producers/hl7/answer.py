"""Acknowledgements (HL7 v2.5.1 ch. 2.9, 2.13): what a sender is told, and the reasons as tables. Pure.

AA: what the message says is kept and its events are acknowledged. AE: something in it is wrong; the same message will
be answered so again. AR: it was not judged: not for this archive, or not now. Senders that ask for commit
acknowledgements alone (MSH-15 without MSH-16) get CA, CE and CR for these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.hl7 import Message, joined, segment

ERRORS: Final[Mapping[str, tuple[str, str]]] = {
    "100": ("AE", "Segment sequence error"),
    "101": ("AE", "Required field missing"),
    "102": ("AE", "Data type error"),
    "103": ("AE", "Table value not found"),
    "200": ("AR", "Unsupported message type"),
    "202": ("AR", "Unsupported processing id"),
    "203": ("AR", "Unsupported version id"),
    "204": ("AE", "Unknown key identifier"),
    "205": ("AE", "Duplicate key identifier"),
    "207": ("AR", "Application internal error"),
}
"""Table 0357 → table 0008, and its words."""
REASONS: Final[Mapping[str, str]] = {
    "hl7-segment": "100",
    "hl7-obr-missing": "100",
    "hl7-patient-missing": "101",
    "hl7-merge-missing": "101",
    "hl7-number-missing": "101",
    "hl7-text-missing": "101",
    "hl7-procedure-missing": "101",
    "hl7-control-id": "101",
    "hl7-result-status": "103",
    "hl7-order-control": "103",
    "hl7-type": "200",
    "hl7-processing": "202",
    "hl7-version": "203",
    "hl7-order-unknown": "204",
    "report-transition": "205",
    "hl7-sender": "207",
    "not-now": "207",
}
"""Reason of ours → table 0357; others are data type errors."""


@dataclass(frozen=True)
class Told:
    """What a message is answered with."""

    reason: str = ""
    """"" for AA, else a code of ours."""
    words: str = ""
    """For a person at the sender's; never anything of the message."""

    @property
    def code(self) -> str:
        """Table 0008."""
        return ERRORS[self.error][0] if self.reason else "AA"

    @property
    def error(self) -> str:
        """Table 0357."""
        return REASONS.get(self.reason, "102")


def acknowledgement(message: Message | None, told: Told, *, control_id: str, now: str) -> bytes:
    """The ACK; ASCII, so right in every character set. `message`: None where it could not be read. `control_id` and
    `now` (TS) are this answer's own.
    """
    header = message.header if message is not None else None

    def said(field: int, component: int = 1) -> str:
        return header.text(field, component) if header is not None else ""

    version = said(12) or "2.5.1"
    code = told.code
    if said(15) and said(16) in ("", "NE"):
        code = "C" + code[1]
    kind = ["ACK", said(9, 2), "ACK"] if version >= "2.3.1" else ["ACK"]
    lines = [
        segment("MSH", said(5), said(6), said(3), said(4), now, "", kind, control_id, said(11) or "P", version),
        segment("MSA", code, said(10), "" if not told.reason else _line(told)),
    ]
    if told.reason:
        number, name = told.error, ERRORS[told.error][1]
        if version >= "2.5":
            lines.append(segment("ERR", "", "", [number, name, "HL70357"], "E", [told.reason], "", "", _line(told)))
        else:
            lines.append(f"ERR|^^^{number}&{name}&HL70357")
    return joined(lines).encode("ascii", "replace")


def _line(told: Told) -> str:
    return f"{told.reason}: {told.words}"[:240] if told.words else told.reason
