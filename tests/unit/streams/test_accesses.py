"""The lists of accesses: whom an access was about, who looked, when; one row each, whatever comes twice or late."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from infra.memory import MemoryObjects, MemoryTables
from infra.ports import Row, Select
from schemas.errors import Invalid
from schemas.events import AccessDenied, AccessEmergency, AccessGranted, AccessUsed, Event, Shown
from streams.dispatch import project, wanted
from streams.material import Material
from tests.unit.streams.samples import DOCUMENTS, fact, run

ID = "01953fcb-9c00-7000-8000-000000000001"
DAY, HOUR = "20250226", "2025022601"
ONE, TWO = "k1:" + "a" * 43, "k1:" + "b" * 43
WHO: dict[str, Any] = {
    "access_id": ID,
    "actor": "person:7",
    "role": "doctor",
    "purpose": "TREAT",
    "action": "retrieve",
    "occurred": "2025-02-26T01:00:00Z",
    "via": "http",
    "address": "192.0.2.7",
}


def applied(*events: Event) -> MemoryTables:
    """Tables after these, each at an offset of its own."""
    tables = MemoryTables()
    for offset, event in enumerate(events):
        run(tables.apply(project(fact(event, offset))))
    return tables


def rows(tables: MemoryTables, table: str, **where: str) -> list[Row]:
    """One partition, without what is not set."""
    return [{n: v for n, v in r.items() if v is not None} for r in run(tables.select(Select(table, where)))]


GRANTED = AccessGranted(
    **WHO, study_uid="1.2.3", shown=[Shown(study_uid="1.2.3", patient_key=ONE)], shown_count=1, window_s=60
)
USED = AccessUsed(
    **WHO, study_uid="1.2.3", patient_key=ONE, uses=3, bytes=70, cut_short=1, last_used="2025-02-26T01:00:09Z"
)
LISTS = {
    "accesses_by_study": {"study_uid": "1.2.3"},
    "accesses_by_patient": {"patient_key": ONE, "month": DAY[:6]},
    "accesses_by_actor": {"actor": "person:7", "day": DAY},
    "accesses_by_hour": {"hour": HOUR},
}


@pytest.mark.parametrize("events", [(GRANTED, USED), (USED, GRANTED), (GRANTED, USED, USED, GRANTED)])
def test_a_grant_and_its_count_are_one_row_of_every_list(events: tuple[Event, ...]) -> None:
    tables = applied(*events)
    for table, where in LISTS.items():
        (row,) = rows(tables, table, **where)
        said = {"access_id": ID, "outcome": "granted", "actor": "person:7", "role": "doctor", "address": "192.0.2.7"}
        assert row.items() >= said.items(), table
        assert (row["uses"], row["bytes"], row["cut_short"], row["recovered"]) == (3, 70, 1, False), table
        assert (row["study_uid"], row["purpose"], row["via"]) == ("1.2.3", "TREAT", "http"), table


def test_a_search_is_in_the_trail_of_every_patient_it_showed_and_once_in_that_of_who_asked() -> None:
    pairs = [Shown(study_uid=f"1.{n}", patient_key=(ONE, TWO)[n % 2]) for n in range(6)]
    tables = applied(AccessGranted(**WHO, shown=pairs, shown_count=6))
    for key, odd in ((ONE, 0), (TWO, 1)):
        found = rows(tables, "accesses_by_patient", patient_key=key, month=DAY[:6])
        assert {r["study_uid"] for r in found} == {f"1.{n}" for n in range(odd, 6, 2)}
    (row,) = rows(tables, "accesses_by_actor", actor="person:7", day=DAY)
    assert (row["shown_count"], row["study_uid"], row["patient_key"]) == (6, "", "")


def test_a_file_that_was_asked_for_is_in_its_patients_trail_also_when_it_showed_nothing() -> None:
    empty = applied(AccessGranted(**WHO, patient_key=ONE))
    (row,) = rows(empty, "accesses_by_patient", patient_key=ONE, month=DAY[:6])
    assert (row["study_uid"], row["outcome"]) == ("", "granted")
    shown = applied(AccessGranted(**WHO, patient_key=ONE, shown=[Shown(study_uid="1.2", patient_key=ONE)]))
    (row,) = rows(shown, "accesses_by_patient", patient_key=ONE, month=DAY[:6])
    assert row["study_uid"] == "1.2"


def test_a_refusal_is_in_the_officers_list_and_in_that_of_whom_it_was_about() -> None:
    tables = applied(AccessDenied(**WHO, reason="no-relation", study_uid="1.2.3", patient_key=ONE))
    for table, where in (LISTS | {"accesses_denied": {"day": DAY}}).items():
        (row,) = rows(tables, table, **where)
        assert (row["outcome"], row["reason"], row["study_uid"]) == ("denied", "no-relation", "1.2.3"), table


def test_an_emergency_is_in_every_list_and_where_the_next_decision_looks() -> None:
    event = AccessEmergency(
        **WHO,
        reason="no-relation",
        study_uid="1.2.3",
        patient_key=ONE,
        until="2025-02-26T09:00:00Z",
        bucket=DOCUMENTS,
        document_key=f"emergencies/{ID}.json",
        document_size=9,
        document_sha256="0" * 64,
    )
    tables = applied(event)
    for table, where in (LISTS | {"accesses_emergency": {"month": DAY[:6]}}).items():
        (row,) = rows(tables, table, **where)
        assert (row["outcome"], row["reason"], row["until"]) == ("emergency", "no-relation", event.until), table
    (row,) = rows(tables, "accesses_emergency", month=DAY[:6])
    assert row["document_key"] == event.document_key
    (row,) = rows(tables, "emergencies_by_actor", actor="person:7")
    assert row == {
        "actor": "person:7",
        "access_id": ID,
        "study_uid": "1.2.3",
        "patient_key": ONE,
        "until": event.until,
    }


def test_a_list_in_s3_is_believed_only_with_the_checksum_of_its_event() -> None:
    objects = MemoryObjects()
    body = msgspec.json.encode([Shown(study_uid="1.2", patient_key=ONE)])
    digest = hashlib.sha256(body).hexdigest()
    event = AccessGranted(**WHO, shown_count=500, shown_list="accesses/x.json", shown_list_sha256=digest)
    objects.put(DOCUMENTS, event.shown_list, body, sha256=digest)
    material = Material(objects, documents=DOCUMENTS, missing_s=0.0)
    want = wanted(event)
    assert want is not None
    assert want.sha256 == digest
    assert run(material.wanted([event])) == [[Shown(study_uid="1.2", patient_key=ONE)]]
    objects.damage(DOCUMENTS, event.shown_list, body.replace(b"1.2", b"1.9"))
    (found,) = run(material.wanted([event]))
    assert isinstance(found, Invalid)
    assert found.reason == "object-checksum"
    material.close()
