"""Which file a study goes into (design, Patients): two strangers never share one."""

from __future__ import annotations

import pytest

from infra.memory import MemoryObjects, MemoryTables
from infra.ports import Select
from schemas.events import Event, PatientKeptApart, PatientLinked, PatientSeen, PatientUnlinked
from schemas.tables import Upsert
from streams.arrivals import decide, fold
from streams.dispatch import project as project_fact
from streams.projections import patients
from streams.projections.studies import project, study_part
from tests.unit.streams.samples import KEYS, PERSON, Pack, fact, run, stored

NATIONAL = "28001010101123"
"""Born 1980-01-01 in Cairo, a woman by its 13th digit."""


def key_of(pack: Pack) -> tuple[str, str, str]:
    """(key, basis, proposal) of a pack."""
    found = project(fact(pack.put(MemoryObjects()), 0), pack.manifest, KEYS).patient
    return found.value, found.basis, found.proposal


def person(**changed: str) -> dict[str, str]:
    return {**PERSON, **changed}


@pytest.mark.parametrize("placeholder", ["", "0", "0000", "UNKNOWN", "test", "مجهول", "99999", "-"])
def test_a_placeholder_is_a_file_of_that_study_alone(placeholder: str) -> None:
    first = key_of(Pack(0, study="1.2.3", header=person(t00100020=placeholder)))
    other = key_of(Pack(1, study="1.2.4", header=person(t00100020=placeholder)))
    same = key_of(Pack(2, study="1.2.3", header=person(t00100020=placeholder)))
    assert first[1] == "study"
    assert first == same
    assert first[0] != other[0]


def test_a_national_id_that_agrees_is_one_patient_at_every_site() -> None:
    header = person(t00100020=NATIONAL)
    here, there = (key_of(Pack(n, site=site, header=header)) for n, site in enumerate(("CAIRO-1", "ASWAN-9")))
    assert here[1] == "national-id"
    assert here[0] == there[0]
    assert key_of(Pack(2, header=person(t00100020="٢٨٠٠١٠١٠١٠١١٢٣")))[0] == here[0], "Arabic digits are the same ID"


def test_a_mothers_id_for_her_child_makes_no_common_file() -> None:
    mother = key_of(Pack(0, header=person(t00100020=NATIONAL)))
    child = key_of(Pack(1, header=person(t00100020=NATIONAL, t00100030="20240105", t00100040="M")))
    assert child[0] != mother[0]
    assert child[1:] == ("local", "national-id-mismatch")


def test_the_same_local_number_at_two_sites_is_two_patients() -> None:
    assert key_of(Pack(0, site="CAIRO-1"))[0] != key_of(Pack(1, site="ASWAN-9"))[0]
    assert key_of(Pack(0, site="CAIRO-1"))[0] == key_of(Pack(1, site="CAIRO-1", study="1.2.4"))[0]


def test_the_datasets_issuer_goes_before_the_sites() -> None:
    issued = person(t00100021="HOSPITAL-GROUP")
    assert key_of(Pack(0, site="CAIRO-1", header=issued))[0] == key_of(Pack(1, site="GIZA-2", header=issued))[0]


def test_a_study_that_meets_a_second_patient_is_proposed_to_a_person() -> None:
    objects = MemoryObjects()
    made = [Pack(0), Pack(1, header=person(t00100020="P-78")), Pack(2)]
    facts = [fact(p.put(objects), n) for n, p in enumerate(made)]
    folded = fold(facts, (), {n: p.manifest for n, p in enumerate(made)}, KEYS)
    seen = [e.event for e in decide(folded, 60_000, ()) if isinstance(e.event, PatientSeen)]
    assert [(s.pack_id, s.proposal) for s in seen] == [
        (facts[0].event.pack_id, ""),  # type: ignore[attr-defined]
        (facts[1].event.pack_id, "study-patient-differs"),  # type: ignore[attr-defined]
    ]


def test_seen_writes_who_and_what_to_look_at() -> None:
    pack = Pack(0, header=person(t00100020=NATIONAL, t00100040="M"))
    event = PatientSeen(
        patient_key=key_of(pack)[0],
        basis="local",
        proposal="national-id-mismatch",
        study_uid="1.2.3",
        site="CAIRO-1",
        pack_id=pack.manifest.pack.pack_id,
        bucket="sijil-packs",
        manifest_key="k",
    )
    record = stored(event, 5)
    assert b"Hassan" not in (record.value or b""), "the log holds no name"
    who, proposal = patients.seen(fact(event, 5), event, study_part(pack.manifest))
    assert isinstance(who, Upsert)
    assert who.columns["patient_name"] == "Hassan^Mona=منى حسن"
    assert who.timestamp == 5
    assert proposal.key == {"month": "202503", "study_uid": "1.2.3", "patient_key": event.patient_key}


# ------------------------------------------------------------------------------------------------ links

A, B = "k1:" + "a" * 43, "k1:" + "b" * 43


def decision(kind: type[PatientLinked | PatientUnlinked | PatientKeptApart], **more: object) -> Event:
    said = {
        "link_id": "01953fcb-9c00-7000-8000-000000000001",
        "patient_key": A,
        "other_key": B,
        "reason": "proposal",
        "stated_by": "person:7",
        "recorded": "2025-03-01T08:00:00Z",
    }
    return kind(**{**said, **more})  # type: ignore[arg-type]


def links(*events: Event) -> dict[tuple[str, str, str], bool]:
    tables = MemoryTables()
    for offset, event in enumerate(events):
        run(tables.apply(project_fact(fact(event, offset))))
    rows = [r for key in (A, B) for r in run(tables.select(Select("patient_links", {"patient_key": key})))]
    return {(r["patient_key"], r["relation"], r["other_key"]): r["holds"] for r in rows}


def test_a_link_is_named_by_both_files_and_undone_in_both() -> None:
    joined = {(A, "replaces", B): True, (B, "replaced-by", A): True}
    assert links(decision(PatientLinked)) == joined
    assert links(decision(PatientLinked), decision(PatientUnlinked)) == dict.fromkeys(joined, False)
    assert links(decision(PatientLinked), decision(PatientUnlinked), decision(PatientLinked)) == joined


def test_two_people_who_look_alike_are_kept_apart_until_somebody_says_otherwise() -> None:
    apart = {(A, "apart", B): True, (B, "apart", A): True}
    assert links(decision(PatientKeptApart)) == apart
    assert links(decision(PatientKeptApart), decision(PatientUnlinked, apart=True)) == dict.fromkeys(apart, False)


def test_every_decision_is_listed_by_its_month() -> None:
    (row,) = [w for w in project_fact(fact(decision(PatientUnlinked), 3)) if w.table == "patient_links_by_month"]
    assert (row.key["month"], row.key["type"], row.key["link_id"][:8]) == ("202503", "unlinked", "01953fcb")
