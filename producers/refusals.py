"""What each reason to refuse an instance is called at each door: one table.

C-STORE statuses are those of PS3.4 Table B.2-1, failure reasons of STOW-RS those of PS3.18 Table I.2-2; both leave
the low digits of A9xx and Cxxx to the implementation, so that each reason can be told apart in a sender's log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from producers.dicom.reasons import REASONS

SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700
PROCESSING_FAILURE: Final = 0x0110
NOT_AUTHORIZED: Final = 0x0124
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
TRANSFER_SYNTAX_NOT_SUPPORTED: Final = 0xC122
DATA_SET_DOES_NOT_MATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000


class Refusal(NamedTuple):
    """How a reason is told."""

    status: int
    """C-STORE status and STOW-RS failure reason."""
    text: str
    """Error Comment (LO: at most 64 characters); holds no value of the dataset."""


_OWN: Final[Mapping[str, Refusal]] = {
    "uid-missing": Refusal(0xC010, "a study, series, SOP instance or SOP class UID is missing"),
    "uid-invalid": Refusal(0xC011, "a UID is longer than 64 characters or is no UID"),
    "study-mismatch": Refusal(0xC012, "the study UID is not the one of the request's address"),
    "media-type": Refusal(0xC013, "the part is not application/dicom"),
    "metadata-json": Refusal(0xC014, "the metadata are not in the DICOM JSON Model"),
    "metadata-value": Refusal(0xC015, "a value of the metadata is none of its VR"),
    "metadata-length": Refusal(0xC016, "a value is longer than its VR or an element allows"),
    "metadata-too-deep": Refusal(0xC017, "sequences are nested deeper than the bound"),
    "bulk-data-missing": Refusal(0xC018, "no part has the location of a BulkDataURI"),
    "bulk-data-syntax": Refusal(0xC019, "pixel data in a media type that they cannot be in"),
    "metadata-xml": Refusal(0xC01B, "the metadata are not in the Native DICOM Model"),
    "request-broken-off": Refusal(0xC01A, "the request broke off: what followed was not received"),
    "sop-class-mismatch": Refusal(DATA_SET_DOES_NOT_MATCH, "the SOP class is not the one of the command"),
    "sop-instance-mismatch": Refusal(0xA901, "the SOP instance UID is not the one of the command"),
    "sop-class-not-storage": Refusal(SOP_CLASS_NOT_SUPPORTED, "the SOP class is not one of storage"),
    "transfer-syntax": Refusal(TRANSFER_SYNTAX_NOT_SUPPORTED, "the transfer syntax is not supported"),
}

_UNREADABLE: Final[Mapping[str, Refusal]] = {
    reason: Refusal(CANNOT_UNDERSTAND + 0x20 + n, text[:64]) for n, (reason, text) in enumerate(REASONS.items())
}

REFUSALS: Final[Mapping[str, Refusal]] = {**_UNREADABLE, **_OWN}
"""Reason → how it is told. The reasons are those of the event `study.instance-rejected`."""


def refusal(reason: str) -> Refusal:
    """How a reason is told; one that is not in the table is not understood."""
    return REFUSALS.get(reason, Refusal(CANNOT_UNDERSTAND, "cannot be understood"))
