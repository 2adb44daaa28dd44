"""What a C-MOVE or a C-GET asks for, and what it is answered (PS3.4 §C.4.2, §C.4.3). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from consumers.api.wado import EXPLICIT_LE, IMPLICIT_LE
from schemas.errors import Invalid
from schemas.identity import check_uid

PATIENT, STUDY, SERIES, IMAGE = "PATIENT", "STUDY", "SERIES", "IMAGE"
_ROOT = "1.2.840.10008.5.1.4.1.2"

MOVE_MODELS: Final[Mapping[str, tuple[str, ...]]] = {
    f"{_ROOT}.1.2": (PATIENT, STUDY, SERIES, IMAGE),
    f"{_ROOT}.2.2": (STUDY, SERIES, IMAGE),
}
GET_MODELS: Final[Mapping[str, tuple[str, ...]]] = {
    f"{_ROOT}.1.3": (PATIENT, STUDY, SERIES, IMAGE),
    f"{_ROOT}.2.3": (STUDY, SERIES, IMAGE),
}
"""SOP class → levels: Patient Root and Study Root."""

# Statuses of C-MOVE and C-GET (PS3.4 Tables C.4-2 and C.4-3).
SUCCESS: Final = 0x0000
NOT_AUTHORISED: Final = 0x0124
CANNOT_COUNT: Final = 0xA701
CANNOT_SEND: Final = 0xA702
DESTINATION_UNKNOWN: Final = 0xA801
IDENTIFIER_MISMATCH: Final = 0xA900
SOME_FAILED: Final = 0xB000
UNABLE: Final = 0xC000
CANCELLED: Final = 0xFE00
PENDING: Final = 0xFF00

STATUSES: Final[Mapping[int, str]] = {
    SUCCESS: "every sub-operation succeeded, or nothing matches",
    NOT_AUTHORISED: "the purpose does not allow it; the refusal is recorded",
    CANNOT_COUNT: "the read models are away, or the access event could not be kept: nothing was sent",
    CANNOT_SEND: "no sub-operation succeeded: no association or no instance is accepted, or too many are open",
    DESTINATION_UNKNOWN: "the move destination is not in the AE table, or has no port there (C-MOVE only)",
    IDENTIFIER_MISMATCH: "the identifier cannot be read, or lacks the level or a unique key of it",
    SOME_FAILED: "some sub-operations failed or ended with a warning; Failed SOP Instance UID List names the failed",
    UNABLE: "a fault of the archive's own",
    CANCELLED: "cancelled by C-CANCEL; the counts say what was done",
    PENDING: "sub-operations go on; the counts say how far",
}

_UNIQUE = {STUDY: "StudyInstanceUID", SERIES: "SeriesInstanceUID", IMAGE: "SOPInstanceUID"}
UIDS_MAX = 10_000
SYNTAXES: Final = (EXPLICIT_LE, IMPLICIT_LE)
"""Of identifiers, the preferred one first."""
COUNT_MAX = 0xFFFF


@dataclass(frozen=True)
class Wanted:
    """Instances by the unique keys of a level and of those above it."""

    level: str
    studies: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    sops: tuple[str, ...] = ()
    patient_id: str = ""


def accept(abstract_syntax: str, offered: Iterable[str]) -> str | None:
    """The transfer syntax in which a context of a retrieval model is accepted, None to refuse it."""
    if abstract_syntax not in MOVE_MODELS and abstract_syntax not in GET_MODELS:
        return None
    offers = list(offered)
    return next((syntax for syntax in SYNTAXES if syntax in offers), None)


def wanted(identifier: Mapping[str, Any], levels: tuple[str, ...]) -> Wanted:
    """Of the identifier's values by keyword, lists for several. Raises Invalid(`identifier-…`).

    The hierarchical method: the unique keys of all levels above the asked one are needed, the PatientID in Patient
    Root alone. A list of UIDs may stand at the asked level, and is taken at the others as well.
    """
    level = _text(identifier.get("QueryRetrieveLevel")).upper()
    if level not in levels:
        raise Invalid("identifier-level")
    patient_id = _text(identifier.get("PatientID"))
    if level == PATIENT:
        if not patient_id:
            raise Invalid("identifier-patient-id")
        return Wanted(level, patient_id=patient_id)
    needed = [STUDY, SERIES, IMAGE][: [STUDY, SERIES, IMAGE].index(level) + 1]
    uids = [_uids(identifier.get(_UNIQUE[each])) for each in needed]
    studies, series, sops = [*uids, (), ()][:3]
    return Wanted(level, studies, series, sops, patient_id if PATIENT in levels else "")


def _uids(value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else list(value or ())
    found = tuple(dict.fromkeys(v.strip() for v in values if isinstance(v, str) and v.strip()))
    if not found or len(found) > UIDS_MAX:
        raise Invalid("identifier-uid")
    for uid in found:
        check_uid(uid)
    return found


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


@dataclass
class Progress:
    """Sub-operations of one request (PS3.7 §9.1.4.1.7)."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: tuple[str, ...] = ()

    def done(self, sop_uid: str, status: int) -> None:
        """A sub-operation ended with a C-STORE status (PS3.4 Table B.2-1)."""
        self.remaining -= 1
        if status == SUCCESS:
            self.completed += 1
        elif status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116):  # warnings: PS3.7 Annex C.4
            self.warning += 1
        else:
            self.fail_one(sop_uid)

    def fail_one(self, sop_uid: str) -> None:
        """Count a failure."""
        self.failed += 1
        self.failed_uids += (sop_uid,)

    def status(self) -> int:
        """At the end."""
        if self.failed and not self.completed and not self.warning:
            return CANNOT_SEND
        return SOME_FAILED if self.failed or self.warning else SUCCESS
