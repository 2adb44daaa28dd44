"""ORM and OMI become orders of the archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

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
        (orm("SC", state="A"), "103"),
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
