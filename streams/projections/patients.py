"""patient.seen → who a patient key is, and what a person should look at."""

from __future__ import annotations

from schemas.events import PatientSeen
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
