"""Orders taken in: document, then events; one writer of a version; the same again changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from infra import faults
from infra.chain import ChainedLog
from infra.memory import MemoryLog, MemoryObjects
from producers import orders
from producers.order_document import accession_of, parse
from producers.orders import Conflict, Orders, Told
from schemas.envelope import decode
from schemas.errors import Invalid
from schemas.events import Event, OrderCancelled, OrderChanged, OrderPlaced, StudyExpected
from schemas.lifecycle import ORDER_TRANSITIONS
from schemas.orders import Order, read, resource
from tests.unit.schemas.test_orders import WHOLE

BUCKET, SITE, ACTOR = "sijil-documents", "CAI-01", "person:clerk-1"
ID = "01890000-0000-7000-8000-000000000001"
CANARY = "قناري"


class World:
    """Orders over the ports in memory."""

    def __init__(self, folder: Path) -> None:
        self.log, self.objects = MemoryLog(), MemoryObjects()
        self.chain = ChainedLog(self.log, folder / "chain", "/api/LOCAL/1", backlog_max=100, anchors=None)
        self.orders = Orders(self.objects, self.chain, bucket=BUCKET, site=SITE, zone="Africa/Cairo")

    def events(self) -> list[tuple[str, Event]]:
        found = []
        for topic in ("sijil.orders", "sijil.study.arrivals"):
            for r in self.log.read(topic, {}, self.log.ends(topic)):
                assert CANARY.encode() not in (r.value or b"")
                assert WHOLE.patient_id.encode() not in (r.value or b"")
                assert WHOLE.accession.encode() not in (r.value or b"")
                envelope = decode(topic, r.key, r.headers, r.value)
                found.append((envelope.id, envelope.event))
        return found

    def kinds(self) -> list[str]:
        return [e.TYPE for _, e in self.events()]

    def kept(self, told: Told) -> Order:
        return read(json.loads(self.objects.get(BUCKET, f"orders/{told.order_id}/{told.version}.json")))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(orders, "ACKNOWLEDGED_S", 0.2)
    it = World(tmp_path)
    yield it
    it.chain.close(0.1)


def document(**changes: Any) -> bytes:
    base = replace(WHOLE, order_id="", accession="", study_uid="", patient_name=CANARY)
    return json.dumps(resource(replace(base, **changes))).encode()


def test_an_order_gets_what_it_has_not(world: World) -> None:
    told = world.orders.place(document(placer="", scheduled="", authored=""), actor=ACTOR)
    assert told.new
    assert told.version == 1
    assert told.status == "active"
    assert told.site == SITE
    assert UUID(told.order_id).version == 7
    assert len(told.accession) == 12
    assert told.accession.isdigit()
    assert told.study_uid == f"2.25.{UUID(told.order_id).int}"
    kept = world.kept(told)
    assert (kept.accession, kept.study_uid, kept.site) == (told.accession, told.study_uid, SITE)
    assert kept.authored
    assert kept.patient_name == CANARY
    (_, placed), (_, expected) = world.events()
    assert isinstance(placed, OrderPlaced)
    assert isinstance(expected, StudyExpected)
    assert placed.order_id == expected.order_id == told.order_id
    assert placed.study_uid == expected.study_uid
    assert placed.scheduled == ""
    assert placed.day_before == ""
    assert placed.actor == ACTOR
    assert [(n.person_id, n.relation) for n in placed.people] == [("dr-9", "referring")]


def test_the_same_again_is_no_version(world: World) -> None:
    first = world.orders.place(document(), actor=ACTOR)
    again = world.orders.place(document(), actor=ACTOR)
    assert (again.order_id, again.version, again.new) == (first.order_id, 1, False)
    assert again.accession == first.accession
    changed = world.orders.place(document(reason="other"), actor=ACTOR)
    assert (changed.version, changed.new, changed.accession) == (2, True, first.accession)
    late = world.orders.place(document(), actor=ACTOR)
    assert (late.version, late.new) == (1, False), "what is sent again does not take a change back"
    ids = [i for i, _ in world.events()]
    assert len(set(ids)) == 3, "placed, changed, expected; each under the id it was published with before"


def test_a_start_is_where_the_site_is(world: World) -> None:
    world.orders.place(document(scheduled="2026-11-23T23:30:00Z"), actor=ACTOR)
    world.orders.change(ID, document(scheduled="2026-12-01"), None, actor=ACTOR)
    found = [e for _, e in world.events() if isinstance(e, OrderPlaced)]
    assert {(e.day, e.scheduled) for e in found} == {("20261124", "20261124013000"), ("20261201", "")}


def test_a_change_names_what_it_changes(world: World) -> None:
    told = world.orders.change(ID, document(), None, actor=ACTOR)
    assert told.order_id == ID
    later = document(scheduled="2026-11-30")
    assert world.orders.change(ID, later, 1, actor=ACTOR).version == 2
    again = world.orders.change(ID, later, 1, actor=ACTOR)
    assert (again.version, again.new) == (2, False), "our answer was lost: sent again it is the version it asked for"
    with pytest.raises(Conflict) as late:
        world.orders.change(ID, document(reason="x"), 1, actor=ACTOR)
    assert (late.value.status, str(late.value)) == (412, "the current version is 2")
    changed = next(e for _, e in world.events() if isinstance(e, OrderChanged))
    assert (changed.day_before, changed.day) == ("20261123", "20261130")
    assert changed.previous_key == f"orders/{ID}/1.json"
    with pytest.raises(Conflict) as moved:
        world.orders.change(ID, document(site="ALX-01"), 2, actor=ACTOR)
    assert moved.value.reason == "order-site"


def test_of_two_writers_of_a_version_one_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.orders.change(ID, document(), None, actor=ACTOR)
    other = Orders(world.objects, world.chain, bucket=BUCKET, site=SITE, zone="Africa/Cairo")
    monkeypatch.setattr(other, "_versions", lambda id: [1])
    world.orders.change(ID, document(reason="one"), 1, actor=ACTOR)
    with pytest.raises(Conflict) as late:
        other.change(ID, document(reason="two"), 1, actor=ACTOR)
    assert late.value.status == 412


def test_cancelled_and_not_revived(world: World) -> None:
    with pytest.raises(Conflict) as unknown:
        world.orders.cancel(ID, None, actor=ACTOR, reason="patient-away")
    assert unknown.value.status == 404
    world.orders.change(ID, document(), None, actor=ACTOR)
    assert world.orders.cancel(ID, 1, actor=ACTOR, reason="patient-away").status == "revoked"
    assert not world.orders.cancel(ID, 1, actor=ACTOR, reason="patient-away").new
    with pytest.raises(Conflict) as revived:
        world.orders.change(ID, document(reason="after all"), 2, actor=ACTOR)
    assert revived.value.reason == "order-transition"
    assert world.orders.cancel(ID, None, actor=ACTOR, reason="wrong-patient", status="entered-in-error").version == 3
    cancelled = [e for _, e in world.events() if isinstance(e, OrderCancelled)]
    assert {e.reason for e in cancelled} == {"patient-away", "wrong-patient"}


def test_accession_numbers_are_of_one_order_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "accession_of", lambda id, day, attempt: f"{attempt}")
    told = [world.orders.place(document(placer=f"P-{n}"), actor=ACTOR) for n in range(3)]
    assert [t.accession for t in told] == ["0", "1", "2"]
    monkeypatch.undo()
    given = world.orders.place(document(placer="P-9", accession="RIS-7"), actor=ACTOR)
    beside = world.orders.place(document(placer="P-10", accession="RIS-7"), actor=ACTOR)
    assert given.accession == beside.accession == "RIS-7", "a visit of two procedures has one number"
    assert accession_of(ID, "20261123", 0) == accession_of(ID, "20261123", 0) != accession_of(ID, "20261123", 1)


def test_a_crash_before_the_event_is_mended_by_sending_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(name: str) -> None:
        if name == "orders.after-document":
            raise Killed

    monkeypatch.setattr(faults, "point", kill)
    with pytest.raises(Killed):
        world.orders.place(document(), actor=ACTOR)
    assert world.kinds() == []
    monkeypatch.undo()
    told = world.orders.place(document(), actor=ACTOR)
    assert (told.version, told.new) == (1, False)
    assert sorted(world.kinds()) == [OrderPlaced.TYPE, StudyExpected.TYPE]


@pytest.mark.parametrize(
    ("member", "value", "reason"),
    [
        ("resourceType", "Patient", "order-type"),
        ("intent", "plan", "order-intent"),
        ("status", "unknown", "order-status"),
        ("priority", "now", "order-priority"),
        ("code", {}, "order-code"),
        ("contained", [], "order-patient"),
        ("subject", {"reference": "#x"}, "order-patient"),
        (
            "orderDetail",
            [{"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "C T"}]}],
            "order-modality",
        ),
        ("locationReference", [{"reference": "Location/a b"}], "order-site"),
        ("occurrenceDateTime", "2026-11-23T10:00:00", "order-time"),
        ("occurrenceDateTime", "2026-02-30", "order-time"),
        ("authoredOn", "2026", "order-time"),
    ],
)
def test_what_is_no_order_is_refused(member: str, value: Any, reason: str) -> None:
    sent = resource(WHOLE) | {member: value}
    with pytest.raises(Invalid) as refused:
        parse(json.dumps(sent).encode())
    assert refused.value.reason == reason
    assert WHOLE.patient_id not in str(refused.value)


@pytest.mark.parametrize("number", ["1" * 17, "a\\b", "a\nb"])
def test_an_accession_number_is_sh(number: str) -> None:
    with pytest.raises(Invalid, match="accession"):
        parse(json.dumps(resource(replace(WHOLE, accession=number))).encode())


def test_every_status_has_a_way() -> None:
    for after in ORDER_TRANSITIONS.values():
        assert after <= set(ORDER_TRANSITIONS)
    assert ORDER_TRANSITIONS["revoked"] == {"entered-in-error"}


def test_what_the_archive_does_not_know_stays(world: World) -> None:
    sent = json.loads(document()) | {"note": [{"text": "x"}], "quantityQuantity": {"value": 0.10}}
    told = world.orders.place(json.dumps(sent).replace("0.1}", "0.10}").encode(), actor=ACTOR)
    data = world.objects.get(BUCKET, f"orders/{told.order_id}/1.json")
    assert b'"value":0.10' in data
    assert json.loads(data)["note"] == [{"text": "x"}]
