"""patient.seen → who a patient key is, and what a person should look at."""

from __future__ import annotations

from schemas.events import PatientSeen, TreatingEnded, TreatingStated
from schemas.tables import Upsert, Write
from streams.facts import Fact
from streams.pack_rows import StudyPart


def seen(fact: Fact, event: PatientSeen, person: StudyPart) -> list[Write]:
    """`person` is the header of the pack that the event names: the log itself holds no identity."""
    columns = {
        "basis": event.basis,
        "patient_name": person.patient_name,
        "patient_id": person.patient_id,
        "issuer": person.issuer,
        "birth_date": person.birth_date,
        "sex": person.sex,
        "last_study_uid": event.study_uid,
    }
    writes: list[Write] = [Upsert("patients", {"patient_key": event.patient_key}, columns, fact.offset)]
    if event.proposal:
        key = {"month": fact.day[:6], "study_uid": event.study_uid, "patient_key": event.patient_key}
        columns = {"proposal": event.proposal, "site": event.site}
        writes.append(Upsert("identity_proposals", key, columns, fact.offset))
    return writes


def treating_stated(fact: Fact, event: TreatingStated) -> list[Write]:
    """What was said last of a person and a patient, or a study of theirs, holds."""
    columns = {
        "relation": event.relation,
        "until": event.until or "",
        "ended": False,
        "stated_by": event.stated_by,
        "stated": event.recorded,
    }
    return [Upsert("treating_by_person", _treating(event), columns, fact.offset)]


def treating_ended(fact: Fact, event: TreatingEnded) -> list[Write]:
    """The row stays: who ended it, and when."""
    columns = {"ended": True, "stated_by": event.stated_by, "stated": event.recorded}
    return [Upsert("treating_by_person", _treating(event), columns, fact.offset)]


def _treating(event: TreatingStated | TreatingEnded) -> dict[str, str]:
    return {
        "person_id": event.person_id,
        "patient_key": event.patient_key,
        "study_uid": event.study_uid or "",
    }
