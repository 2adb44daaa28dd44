"""access.granted, .used, .denied → who saw a study, who saw a patient's file.

A grant and the count of its uses are columns of one row, fed by one key. The month of a patient's list is that of the
access id (a UUIDv7), so that both find the same row whatever the clocks say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schemas.events import AccessDenied, AccessGranted, AccessUsed, Shown
from schemas.tables import Upsert, Write
from streams.facts import Fact, day_of

YEAR_10000_MS = 253_402_300_800_000
GRANTED, DENIED = "granted", "denied"


def granted(fact: Fact, event: AccessGranted, listed: Iterable[Shown] = ()) -> list[Write]:
    """One row per study shown; `listed` is what the event's S3 list holds when they are too many for the event."""
    shown = {s.study_uid: s.patient_key for s in (*event.shown, *listed)}
    if event.study_uid is not None:
        shown.setdefault(event.study_uid, "")
    columns = _who(event, GRANTED)
    return [w for uid, patient in shown.items() for w in _rows(fact, event.access_id, uid, patient, columns)]


def used(fact: Fact, event: AccessUsed) -> list[Write]:
    """How often a grant was used when its window closed."""
    columns = {"uses": event.uses, "bytes": event.bytes, "last_used": event.last_used}
    return _rows(fact, event.access_id, event.study_uid, event.patient_key, columns)


def denied(fact: Fact, event: AccessDenied) -> list[Write]:
    """A refusal, in the lists of whom it was about, if that is known."""
    columns = {**_who(event, DENIED), "reason": event.reason}
    return _rows(fact, event.access_id, event.study_uid or "", event.patient_key, columns)


def _who(event: AccessGranted | AccessDenied, outcome: str) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "actor": event.actor,
        "role": event.role,
        "purpose": event.purpose,
        "action": event.action,
        "occurred": event.occurred,
    }


def _rows(fact: Fact, access_id: str, study_uid: str, patient_key: str, columns: dict[str, Any]) -> list[Write]:
    writes: list[Write] = []
    if study_uid:
        writes.append(
            Upsert("accesses_by_study", {"study_uid": study_uid, "access_id": access_id}, columns, fact.offset)
        )
    if patient_key:
        key = {
            "patient_key": patient_key,
            "month": month_of(access_id, fact),
            "access_id": access_id,
            "study_uid": study_uid,
        }
        writes.append(Upsert("accesses_by_patient", key, columns, fact.offset))
    return writes


def month_of(access_id: str, fact: Fact) -> str:
    """YYYYMM of a UUIDv7 (RFC 9562 §5.7), of the record for an id of another kind."""
    stamp = int(access_id[:8] + access_id[9:13], 16)
    return day_of(stamp)[:6] if access_id[14] == "7" and stamp < YEAR_10000_MS else fact.day[:6]
