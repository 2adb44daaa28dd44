"""patient.* → who a patient key is, whose files are joined, whom somebody treats, what a person should look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.events import (
    PatientAliased,
    PatientKeptApart,
    PatientLinked,
    PatientSeen,
    PatientStated,
    PatientUnlinked,
    TreatingEnded,
    TreatingStated,
)
from schemas.stated import Stated
from schemas.tables import Upsert, Write
from streams.facts import Fact
from streams.pack_rows import StudyPart

ALIAS_STAMP = 1
"""Write time of every alias: it has but one value, which is written by offset and by who retires a secret."""


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


def stated(fact: Fact, event: PatientStated, person: Stated) -> list[Write]:
    """What a hospital says stands beside what images say, which may be older: whoever shows the patient prefers it."""
    columns = {
        "stated_name": person.name,
        "stated_id": person.number,
        "stated_issuer": person.issuer,
        "stated_birth_date": person.birth_date,
        "stated_sex": person.sex,
        "stated_phone": person.phone,
        "stated_locals": list(person.locals),
        "stated_locals_issuer": person.locals_issuer,
        "stated_by": event.stated_by,
        "stated": event.recorded,
    }
    return [Upsert("patients", {"patient_key": event.patient_key}, columns, fact.offset)]


REPLACES, REPLACED_BY, APART = "replaces", "replaced-by", "apart"
"""How another file stands to a patient's, in `patient_links`."""


def linked(fact: Fact, event: PatientLinked) -> list[Write]:
    """Both files name each other; nothing of either moves, so that nothing is lost when it is undone."""
    return _decided(fact, event, "linked", (REPLACES, REPLACED_BY), holds=True)


def unlinked(fact: Fact, event: PatientUnlinked) -> list[Write]:
    """The rows stay: who ended it, and when."""
    return _decided(fact, event, "unlinked", (APART, APART) if event.apart else (REPLACES, REPLACED_BY), holds=False)


def kept_apart(fact: Fact, event: PatientKeptApart) -> list[Write]:
    """Both files say that the other is somebody else's."""
    return _decided(fact, event, "kept-apart", (APART, APART), holds=True)


def _decided(
    fact: Fact,
    event: PatientLinked | PatientUnlinked | PatientKeptApart,
    kind: str,
    relations: tuple[str, str],
    *,
    holds: bool,
) -> list[Write]:
    said: Mapping[str, Any] = {"reason": event.reason, "stated_by": event.stated_by, "recorded": event.recorded}
    pairs = ((event.patient_key, relations[0], event.other_key), (event.other_key, relations[1], event.patient_key))
    writes: list[Write] = [
        Upsert(
            "patient_links",
            {"patient_key": one, "relation": relation, "other_key": other},
            {"link_id": event.link_id, "holds": holds, **said},
            fact.offset,
        )
        for one, relation, other in pairs
    ]
    key = {"month": fact.day[:6], "moment": fact.log_time, "link_id": event.link_id, "type": kind}
    columns = {"patient_key": event.patient_key, "other_key": event.other_key, **said}
    return [*writes, Upsert("patient_links_by_month", key, columns, fact.offset)]


def aliased(fact: Fact, event: PatientAliased) -> list[Write]:
    """It is said as often as there are writers, and never differently: whoever writes it writes the same cell."""
    return [alias_row(event.alias, event.patient_key)]


def alias_row(alias: str, patient_key: str) -> Upsert:
    """The row of an alias."""
    return Upsert("patient_aliases", {"alias": alias}, {"patient_key": patient_key}, ALIAS_STAMP)


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
