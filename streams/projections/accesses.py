"""access.granted, .used, .denied, .emergency → who saw a study, a patient's file; what somebody saw; all of an hour.

A grant and the count of its uses are columns of one row, fed by one key. Month, day and hour of a list are those of the
access id (a UUIDv7), so that both find the same row whatever the clocks say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schemas.events import (
    AccessDenied,
    AccessEmergency,
    AccessGranted,
    AccessInvited,
    AccessUninvited,
    AccessUsed,
    Shown,
)
from schemas.identity import made_ms
from schemas.tables import Upsert, Write
from streams import milestones
from streams.facts import Fact, rfc3339_of

READ_REPORT = "read-report"
"""The action of who is shown a report's text."""
GRANTED, DENIED, EMERGENCY, INVITED, UNINVITED = "granted", "denied", "emergency", "invited", "uninvited"


def granted(fact: Fact, event: AccessGranted, listed: Iterable[Shown] = ()) -> list[Write]:
    """One row per study shown; `listed` is what the event's S3 list holds when they are too many for the event."""
    shown = {s.study_uid: s.patient_key for s in (*event.shown, *listed)}
    if event.study_uid is not None:
        shown.setdefault(event.study_uid, "")
    columns = _who(event, GRANTED)
    writes = [w for uid, patient in shown.items() for w in _seen(fact, event.access_id, uid, patient, columns)]
    if event.patient_key and event.patient_key not in shown.values():
        writes += _seen(fact, event.access_id, "", event.patient_key, columns)
    if event.action == READ_REPORT:
        writes += [_read(fact, event, uid, {"occurred": event.occurred}) for uid in shown]
    only = next(iter(shown.items())) if len(shown) == 1 else (event.study_uid or "", event.patient_key)
    writes += milestones.of_access(fact, event, listed)
    return writes + _told(fact, event, *only, columns | {"shown_count": event.shown_count})


def used(fact: Fact, event: AccessUsed) -> list[Write]:
    """How often a grant was used when its window closed."""
    columns = {
        "uses": event.uses,
        "bytes": event.bytes,
        "cut_short": event.cut_short,
        "recovered": event.recovered,
        "last_used": event.last_used,
    }
    rows = _seen(fact, event.access_id, event.study_uid, event.patient_key, columns)
    if event.action == READ_REPORT:
        rows.append(_read(fact, event, event.study_uid, {"last_used": event.last_used}))
    return rows + _told(fact, event, event.study_uid, event.patient_key, columns)


def denied(fact: Fact, event: AccessDenied) -> list[Write]:
    """A refusal, also in the lists of whom it was about, if that is known."""
    columns = {**_who(event, DENIED), "reason": event.reason}
    about = event.study_uid or "", event.patient_key
    key = {"day": moment_of(event.access_id, fact, 8), "access_id": event.access_id}
    named = {"study_uid": about[0], "patient_key": about[1]}
    return [
        *_seen(fact, event.access_id, *about, columns),
        *_told(fact, event, *about, columns),
        Upsert("accesses_denied", key, columns | named, fact.offset),
    ]


def emergency(fact: Fact, event: AccessEmergency) -> list[Write]:
    """Somebody was let in without a relation: in every list, in the officer's, and where the next decision looks."""
    columns = {**_who(event, EMERGENCY), "reason": event.reason, "until": event.until}
    about = event.study_uid or "", event.patient_key
    named = {"study_uid": about[0], "patient_key": about[1]}
    words = {n: getattr(event, n) for n in ("bucket", "document_key", "document_sha256")}
    month = {"month": moment_of(event.access_id, fact, 6), "access_id": event.access_id}
    return [
        *_seen(fact, event.access_id, *about, columns),
        *_told(fact, event, *about, columns),
        Upsert("accesses_emergency", month, columns | named | words, fact.offset),
        Upsert(
            "emergencies_by_actor",
            {"actor": event.actor, "access_id": event.access_id},
            named | {"until": event.until},
            fact.offset,
        ),
    ]


def invited(fact: Fact, event: AccessInvited) -> list[Write]:
    """A patient was given a link: they see in their own trail by whom, and until when it holds."""
    columns = {**_who(event, INVITED), "until": event.until}
    return [
        *_seen(fact, event.access_id, "", event.patient_key, columns),
        *_told(fact, event, "", event.patient_key, columns),
    ]


def uninvited(fact: Fact, event: AccessUninvited) -> list[Write]:
    """Such a link was taken back."""
    columns = _who(event, UNINVITED)
    return [
        *_seen(fact, event.access_id, "", event.patient_key, columns),
        *_told(fact, event, "", event.patient_key, columns),
    ]


_Said = AccessGranted | AccessDenied | AccessEmergency | AccessInvited | AccessUninvited


def _who(event: _Said, outcome: str) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "actor": event.actor,
        "role": event.role,
        "purpose": event.purpose,
        "action": event.action,
        "via": event.via,
        "address": event.address,
        "destination": event.destination,
        "occurred": event.occurred,
    }


def _read(fact: Fact, event: AccessGranted | AccessUsed, study_uid: str, columns: dict[str, Any]) -> Write:
    """When somebody saw a study's reports."""
    key = {"actor": event.actor, "study_uid": study_uid, "access_id": event.access_id}
    return Upsert("report_reads", key, columns, fact.offset)


def _seen(fact: Fact, access_id: str, study_uid: str, patient_key: str, columns: dict[str, Any]) -> list[Write]:
    """In the lists of whom an access was about."""
    writes: list[Write] = []
    if study_uid:
        writes.append(
            Upsert("accesses_by_study", {"study_uid": study_uid, "access_id": access_id}, columns, fact.offset)
        )
    if patient_key:
        key = {
            "patient_key": patient_key,
            "month": moment_of(access_id, fact, 6),
            "access_id": access_id,
            "study_uid": study_uid,
        }
        writes.append(Upsert("accesses_by_patient", key, columns, fact.offset))
    return writes


def _told(
    fact: Fact,
    event: _Said | AccessUsed,
    study_uid: str,
    patient_key: str,
    columns: dict[str, Any],
) -> list[Write]:
    """In the lists of who looked and of when, where each access is one row."""
    id, named = event.access_id, {"study_uid": study_uid, "patient_key": patient_key}
    by_actor = {"actor": event.actor, "day": moment_of(id, fact, 8), "access_id": id}
    by_hour = {"hour": moment_of(id, fact, 10), "access_id": id}
    others = {n: v for n, v in columns.items() if n != "actor"}
    return [
        Upsert("accesses_by_actor", by_actor, others | named, fact.offset),
        Upsert("accesses_by_hour", by_hour, columns | named, fact.offset),
    ]


def moment_of(access_id: str, fact: Fact, digits: int) -> str:
    """The first digits of YYYYMMDDHH of a UUIDv7 (RFC 9562 §5.7), of the record for an id of another kind."""
    made = made_ms(access_id)
    told = rfc3339_of(fact.log_ms if made is None else made)
    return "".join(c for c in told if c.isdigit())[:digits]
