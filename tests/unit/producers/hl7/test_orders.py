"""ORM and OMI become orders of the archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from producers.hl7.order import order_id_of
from schemas.events import OrderCancelled, OrderChanged, OrderPlaced
from schemas.hl7 import Field, joined, segment
from schemas.identity import NATIONAL_ISSUER, national_id_check_digit
from schemas.orders import Order, read
from tests.unit.producers.hl7.samples import header, patient
from tests.unit.producers.hl7.world import BUCKET, World

FIRST = "2900101120012"
NATIONAL = FIRST + national_id_check_digit(FIRST)
Placed = OrderPlaced | OrderChanged | OrderCancelled


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.chain.close(5)


def orm(
    control: str = "NW", message: str = "M1", *, kind: str = "ORM^O01", state: str = "", more: tuple[str, ...] = (),
    procedure: str = "CT head", who: str = "",
) -> str:  # fmt: skip
    obr: list[Field] = ["1", "PL7", "", ["CTH", procedure, "L"], *[""] * 8, "", "", "", ["7", "علي", "منى"], *[""] * 7]
    obr += ["CT", *[""] * 6, ["", "صداع"], *[""] * 4, "20260105093000"]
    orc: list[Field] = [control, "PL7", "", "", state, "", ["", "", "", "", "", "S"], "", "20260102100000+0200"]
    return joined(
        [
            header(kind, message),
            who or patient(f"{NATIONAL}^^^EG^NI~P1"),
            segment("ORC", *orc),
            segment("OBR", *obr),
            *more,
        ]
    )


def events(world: World) -> list[Placed]:
    return sorted((e for e in world.events("sijil.orders") if isinstance(e, Placed)), key=lambda e: e.version)


def kept(world: World, event: Placed) -> Order:
    return read(msgspec.json.decode(world.objects.get(BUCKET, event.document_key)))


def test_an_order_is_placed_with_all_that_a_worklist_asks_for(world: World) -> None:
    assert world.send(orm()) == "AA"
    (event,) = events(world)
    assert (event.site, event.status, event.priority, event.day) == ("SITE1", "active", "stat", "20260105")
    order = kept(world, event)
    assert order.accession
    assert (order.placer, order.modality, order.procedure_text, order.reason) == ("PL7", "CT", "CT head", "صداع")
    assert (order.patient_name, order.patient_id, order.issuer) == ("سامي^ليلى", NATIONAL, NATIONAL_ISSUER)
    assert (order.birth_date, order.sex, order.phone) == ("19900101", "F", "01012345678")
    assert order.scheduled == "2026-01-05T07:30:00.000000Z"
    assert order.referrer_name == "علي^منى"


def test_changes_are_versions_and_what_is_sent_again_is_none(world: World) -> None:
    first, changed = orm(), orm("XO", "M2", procedure="CT head with contrast")
    for text in (first, changed, first, orm("XO", "M3", procedure="CT head with contrast")):
        assert world.send(text) == "AA"
    assert [e.version for e in {e.version: e for e in events(world)}.values()] == [1, 2]
    one, two = (kept(world, e) for e in {e.version: e for e in events(world)}.values())
    assert (two.procedure_text, two.accession, two.study_uid) == ("CT head with contrast", one.accession, one.study_uid)


@pytest.mark.parametrize(("control", "state"), [("CA", ""), ("DC", ""), ("SC", "CA")])
def test_an_order_is_taken_back_once(world: World, control: str, state: str) -> None:
    assert world.send(orm()) == "AA"
    for message in ("M2", "M2", "M3"):
        assert world.send(orm(control, message, state=state)) == "AA"
    assert isinstance(events(world)[-1], OrderCancelled)
    assert {e.version for e in events(world)} == {1, 2}


def test_omi_says_accession_study_and_station(world: World) -> None:
    ipc = "IPC|A77|RP1|1.2.3.4|SPS1|MR|||20260105|MR1"
    assert world.send(orm(kind="OMI^O23", more=("TQ1|1||||||20260106120000||A", ipc))) == "AA"
    order = kept(world, events(world)[0])
    assert (order.accession, order.study_uid, order.modality, order.station_ae) == ("A77", "1.2.3.4", "MR", "MR1")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (orm("CA"), "204"),
        (orm("QQ"), "103"),
        (orm("SC", state="ER"), "103"),
        (orm("SC"), "103"),
        (orm().replace("PID|", "ZID|"), "101"),
        (orm(who="PID|1||0000||x"), "101"),
        (orm(procedure="").replace("CTH^^L", ""), "101"),
        (joined([header("ORM^O01"), patient(), "OBR|1|PL7||X"]), "100"),
        (orm().replace("PL7", ""), "101"),
        (orm(more=("ZDS|not a uid",)), "102"),
    ],
)
def test_what_cannot_be_ordered_is_told(world: World, text: str, error: str) -> None:
    msa, err = world.answer(text)
    assert (msa.text(1), err.text(3)) == ("AE", error)
    assert events(world) == []


def test_one_that_was_completed_is_not_ordered_anew(world: World) -> None:
    for text in (orm(), orm("SC", "M2", state="CM")):
        assert world.send(text) == "AA"
    msa, _ = world.answer(orm("XO", "M3", procedure="other"))
    assert msa.text(1) == "AE"
    assert [e.status for e in events(world)][-1] == "completed"


@pytest.mark.parametrize(
    ("control", "state", "status"),
    [
        ("SN", "", "active"),
        ("nw", "", "active"),
        ("XO", "", "active"),
        ("SC", "DC", "revoked"),
        ("SC", "RP", "revoked"),
        ("SC", "HD", "on-hold"),
        ("SC", "A", "active"),
        ("SC", "CM", "completed"),
    ],
)
def test_unusual_forms_do_what_they_say(world: World, control: str, state: str, status: str) -> None:
    if state:
        assert world.send(orm()) == "AA"
    assert world.send(orm(control, "M2", state=state)) == "AA"
    assert events(world)[-1].status == status


def several(control: str, *numbers: str, message: str = "M1") -> str:
    """One ORC, and an OBR for each number."""
    more = tuple(f"OBR|{n}|{number}||C{n}^Exam {n}^L|||||||||||" for n, number in enumerate(numbers[1:], 2))
    return orm(control, message, more=more).replace("PL7", numbers[0])


def test_several_obr_of_one_orc_are_an_order_each(world: World) -> None:
    for text in (several("NW", "N1", "N2", "N3"), several("XO", "N1", "N2", "N3", message="M2")):
        assert world.send(text) == "AA"
    found = {e.order_id: kept(world, e) for e in events(world)}
    assert sorted((o.placer, o.procedure_text) for o in found.values()) == [
        ("N1", "CT head"),
        ("N2", "Exam 2"),
        ("N3", "Exam 3"),
    ]
    assert len({o.accession for o in found.values()}) == len({o.study_uid for o in found.values()}) == 3
    assert all(o.authored == "2026-01-02T08:00:00.000000Z" for o in found.values()), "the ORC holds for all"
    assert world.send(orm("CA", "M3").replace("PL7", "N2")) == "AA"
    assert {o for o, e in {e.order_id: e for e in events(world)}.items() if e.status == "revoked"} == {
        order_id_of("SITE1", "N2")
    }


@pytest.mark.parametrize("numbers", [("N1", ""), ("N1", "N1")])
def test_several_that_cannot_be_told_apart_are_refused_whole(world: World, numbers: tuple[str, ...]) -> None:
    msa, err = world.answer(several("NW", *numbers))
    assert (msa.text(1), err.text(3)) == ("AE", "101")
    assert events(world) == []


def test_of_several_orders_one_that_is_refused_stops_no_other(world: World) -> None:
    assert world.send(orm().replace("PL7", "N2")) == "AA"
    both = orm("CA", "M2", more=("ORC|CA|N2", "OBR|2|N2||C2"))
    for _ in range(2):
        msa, err = world.answer(both)
        assert (msa.text(1), err.text(3)) == ("AE", "204"), "PL7 was never ordered"
    assert [e.status for e in events(world)][-1] == "revoked"


@pytest.mark.parametrize(
    ("codec", "stated"), [("cp1256", ""), ("cp1256", "WINDOWS-1256"), ("iso-8859-6", ""), ("utf-8", "")]
)
def test_arabic_in_whatever_set(world: World, codec: str, stated: str) -> None:
    text = orm(procedure="أشعة مقطعية على المخ")
    if stated:
        text = text.replace(header("ORM^O01"), header("ORM^O01", charset=stated))
    assert world.send(text, codec=codec) == "AA"
    order = kept(world, events(world)[0])
    assert (order.patient_name, order.procedure_text, order.reason) == ("سامي^ليلى", "أشعة مقطعية على المخ", "صداع")


def test_a_number_without_an_issuer_is_its_senders(world: World) -> None:
    assert world.send(orm(who="PID|1||778899||سامي^ليلى||19900101|F")) == "AA"
    order = kept(world, events(world)[0])
    assert (order.patient_id, order.issuer) == ("778899", "SITE1")
