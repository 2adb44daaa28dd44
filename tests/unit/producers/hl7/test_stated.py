"""ADT: who patients are, and whose numbers are one person's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from consumers.api.person import stated
from schemas.events import PatientLinked, PatientStated, PatientUnlinked
from schemas.hl7 import joined
from schemas.identity import KEY_NATIONAL, NATIONAL_ISSUER, national_id_check_digit, patient_key
from schemas.stated import Stated, decode
from schemas.tables import Upsert
from streams.dispatch import project, wanted
from tests.unit.producers.hl7.samples import header, patient
from tests.unit.producers.hl7.world import BUCKET, SECRET, World
from tests.unit.streams.samples import fact

FIRST = "2900101120012"
NATIONAL = FIRST + national_id_check_digit(FIRST)
BOTH = f"{NATIONAL}^^^EG^NI~P1"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.chain.close(5)


def key(number: str, site: str = "SITE1", born: str = "19900101", sex: str = "F") -> str:
    return patient_key(SECRET, patient_id=number, issuer=site, birth_date=born, sex=sex, study_uid="").value


def adt(event: str, *more: str, who: str = "", message: str = "M1") -> str:
    return joined([header(f"ADT^{event}", message), "EVN||20260102", who or patient(), *more])


@pytest.mark.parametrize("event", ["A01", "A04", "A08", "A31"])
def test_what_a_hospital_states_is_shown(world: World, event: str) -> None:
    for _ in range(2):
        assert world.send(adt(event, who=patient(BOTH, name="سامي^ليلى"))) == "AA"
    found = [e for e in world.events("sijil.patients") if isinstance(e, PatientStated)]
    assert [e.patient_key for e in found] == [key(NATIONAL), key("P1")]
    document = world.objects.get(BUCKET, found[0].document_key)
    person = Stated(
        name="سامي^ليلى",
        number=NATIONAL,
        issuer=NATIONAL_ISSUER,
        birth_date="19900101",
        sex="F",
        phone="01012345678",
        locals=("P1",),
        locals_issuer="SITE1",
    )
    assert decode(document) == person
    want = wanted(found[0])
    assert want is not None
    assert (want.kind, want.key) == ("stated", found[0].document_key)
    (write,) = project(fact(found[0], 7), person)
    assert isinstance(write, Upsert)
    seen = {
        "patient_name": "SAMY^LAYLA",
        "birth_date": "19900102",
        "sex": "",
        "patient_id": "",
        "issuer": "",
        "basis": None,
    }
    shown = stated({**seen, **write.columns})
    assert (shown["patient_name"], shown["birth_date"], shown["sex"]) == ("سامي^ليلى", "19900101", "F")
    assert (shown["patient_id"], shown["issuer"], shown["basis"]) == (NATIONAL, NATIONAL_ISSUER, KEY_NATIONAL)
    assert stated({**seen, "stated": None}) == {**seen, "stated": None}


def test_a_merge_joins_files_and_is_undone(world: World) -> None:
    merge = adt("A40", "MRG|P9^^^H1^MR", who=patient(BOTH))
    for text in (merge, merge, adt("A37", "PID|2||P9^^^H1^MR||x", who=patient(BOTH), message="M2")):
        assert world.send(text) == "AA"
    events = world.events("sijil.patients")
    assert all(isinstance(e, PatientLinked | PatientUnlinked) for e in events)
    told = [
        (type(e), e.patient_key, e.other_key, e.reason)
        for e in events
        if isinstance(e, PatientLinked | PatientUnlinked)
    ]
    assert told == [
        (PatientLinked, key(NATIONAL), key("P9"), "adt-a40"),
        (PatientUnlinked, key(NATIONAL), key("P9"), "adt-a37"),
    ]


def test_numbers_of_another_site_are_other_files(world: World) -> None:
    assert key("P1") != key("P1", "SITE2")
    assert world.send(adt("A40", "MRG|P9", who=patient("P1"))) == "AA"
    (event,) = world.events("sijil.patients")
    assert isinstance(event, PatientLinked)
    assert (event.patient_key, event.other_key) == (key("P1"), key("P9"))


def test_a_national_id_that_does_not_agree_makes_no_file_of_its_own(world: World) -> None:
    assert world.send(adt("A08", who=patient(NATIONAL, born="20200101"))) == "AA"  # a mother's, for her child
    (event,) = world.events("sijil.patients")
    assert isinstance(event, PatientStated)
    assert event.patient_key == key(NATIONAL, born="20200101") != key(NATIONAL)


@pytest.mark.parametrize(
    "text",
    [
        adt("A08", who="PID|1||UNKNOWN||x"),
        adt("A40"),
        adt("A40", "MRG|P1"),
        adt("A40", "MRG|0000"),
        adt("A40", "MRG|P9", who="PID|1||0||x"),
    ],
)
def test_what_names_nobody_is_told(world: World, text: str) -> None:
    msa, err = world.answer(text)
    assert (msa.text(1), err.text(3)) == ("AE", "101")
    assert world.events("sijil.patients") == []
