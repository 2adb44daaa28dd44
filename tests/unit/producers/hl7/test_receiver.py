"""Messages as they come in: who may send, what is answered, what stays when it is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import clock, faults
from infra.mllp import Peer
from infra.results_waiting import Waiting
from producers.hl7 import receiver
from schemas.events import ReportIssued
from schemas.identity import patient_key
from tests.unit.producers.hl7.samples import oru, patient
from tests.unit.producers.hl7.world import BUCKET, SECRET, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.chain.close(5)


def issued(world: World) -> list[tuple[str, int, list[str]]]:
    events = [e for e in world.events() if isinstance(e, ReportIssued)]
    return [(e.status, e.version, e.study_uids) for e in events]


def waiting(world: World) -> list[Waiting]:
    return asyncio.run(world.queue.waiting())


def test_a_result_of_a_study_that_is_there_becomes_its_report(world: World) -> None:
    world.studies.arrives("1.2", "A1")
    assert world.send(oru(), codec="cp1256") == "AA"
    assert issued(world) == [("final", 1, ["1.2"])]
    (event,) = world.events()
    assert isinstance(event, ReportIssued)
    assert (event.site, event.author, event.signed_by) == ("SITE1", "hl7:H1@127.0.0.1", "hl7:H1@127.0.0.1")
    document = world.objects.get(BUCKET, event.document_key).decode()
    assert "لا يوجد نزف داخل القحف" in document
    (raw,) = world.objects.list(BUCKET, "hl7/")
    assert world.objects.get(BUCKET, raw) == oru().encode("cp1256")
    assert raw.rpartition("/")[2].removesuffix(".hl7") in document


def test_what_is_sent_again_changes_nothing(world: World) -> None:
    world.studies.arrives("1.2", "A1")
    first, second = oru("one", status="P", control="M1"), oru("two", control="M2")
    again = first.replace("20260102110000+0200||ORU", "20260102110500+0200||ORU")  # a resend with its own time
    for text in (first, first, again, second, first, oru("two", control="M3"), oru("one", status="P", control="M4")):
        assert world.send(text) == "AA"
    assert {(s, v) for s, v, _ in issued(world)} == {("preliminary", 1), ("final", 2)}


def test_f_again_with_other_words_is_amended_and_x_takes_back(world: World) -> None:
    world.studies.arrives("1.2", "A1")
    for control, (text, status) in enumerate([("a", "F"), ("b", "F"), ("c", "C"), ("b", "F"), ("", "X")]):
        assert world.send(oru(text, status=status, control=f"M{control}")) == "AA"
    assert [s for s, _, _ in sorted(issued(world), key=lambda e: e[1])][-1] == "entered-in-error"
    assert {(s, v) for s, v, _ in issued(world)} == {
        ("final", 1),
        ("amended", 2),
        ("corrected", 3),
        ("entered-in-error", 4),
    }
    msa, err = world.answer(oru("new", status="P", control="M9"))
    assert (msa.text(1), err.text(3)) == ("AE", "205")


def test_a_result_waits_for_its_study_and_versions_keep_their_order(world: World) -> None:
    assert world.send(oru("first", status="P", control="M1")) == "AA"
    assert world.send(oru("second", control="M2")) == "AA"
    assert [(w.reason, w.status, w.patient_name) for w in waiting(world)] == [
        ("study-unknown", "preliminary", "سامي^ليلى"),
        ("study-unknown", "final", "سامي^ليلى"),
    ]
    asyncio.run(world.results.look())
    assert world.results.count == 2
    world.studies.arrives("1.2", "A1")
    world.results._next.clear()  # the pause between two looks is over
    asyncio.run(world.results.look())
    assert issued(world) == [("preliminary", 1, ["1.2"]), ("final", 2, ["1.2"])]
    assert waiting(world) == []
    assert world.send(oru("first", status="P", control="M1")) == "AA"
    assert waiting(world) == []


def test_one_that_waits_while_its_next_version_is_filed_is_overtaken(world: World) -> None:
    assert world.send(oru("first", status="P", control="M1")) == "AA"
    world.studies.arrives("1.2", "A1")
    assert world.send(oru("second", control="M2")) == "AA"
    asyncio.run(world.results.look())
    assert issued(world) == [("final", 1, ["1.2"])]
    month = waiting_month(world)
    assert [w.outcome for w in asyncio.run(world.queue.ended(month))] == ["overtaken"]


def waiting_month(world: World) -> str:
    assert waiting(world) == []
    return f"{clock.now():%Y%m}"


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (patient("P2"), "patient-number"),
        (patient(born="19910101"), "patient-birth-date"),
        (patient(sex="M"), "patient-sex"),
        ("PID|1", "patient-missing"),
    ],
)
def test_a_patient_that_does_not_agree_waits_for_a_person(world: World, who: str, reason: str) -> None:
    world.studies.arrives("1.2", "A1")
    world.studies.arrives("1.3", "A2", patient_id="P9")
    assert world.send(oru(who=who)) == "AA"
    asyncio.run(world.results.look())
    assert [w.reason for w in waiting(world)] == [reason]
    assert issued(world) == []


def test_files_that_people_join_let_go_what_waited(world: World) -> None:
    """The images were made under a number for now; the report names the patient's own."""
    own, tmp = (patient_key(SECRET, patient_id=n, issuer="SITE1", birth_date="", sex="", study_uid="").value
                for n in ("P1", "TMP-1"))  # fmt: skip
    world.studies.arrives("1.2", "A1", patient_id="TMP-1", files={tmp})
    assert world.send(oru()) == "AA"
    assert [w.reason for w in waiting(world)] == ["patient-number"]
    world.studies.of.clear()
    world.studies.arrives("1.2", "A1", patient_id="TMP-1", files={tmp, own})
    world.results._next.clear()  # as if its time had come
    asyncio.run(world.results.look())
    assert (waiting(world), issued(world)) == ([], [("final", 1, ["1.2"])])
    assert world.send(oru("more", status="C", control="M2")) == "AA", "the next one is filed at once"
    assert len(issued(world)) == 2


def test_people_file_or_dismiss_what_waits(world: World) -> None:
    world.studies.arrives("1.2", "OTHER")
    for control in ("M1", "M2"):
        assert world.send(oru(control=control, number=control, accession="A7")) == "AA"
    one, two = waiting(world)

    async def decide() -> None:
        await world.queue.decide(one.waiting_id, decision="file", study_uid="1.2", by="person:7", reason="")
        await world.queue.decide(two.waiting_id, decision="dismiss", study_uid="", by="person:7", reason="test-message")
        await world.results.look()

    asyncio.run(decide())
    assert issued(world) == [("final", 1, ["1.2"])]
    ended = asyncio.run(world.queue.ended(waiting_month(world)))
    assert sorted((w.outcome, w.decided_by, bool(w.report_id)) for w in ended) == [
        ("dismissed", "person:7", False),
        ("filed", "person:7", True),
    ]


def test_the_same_accession_at_another_site_is_another_study(world: World) -> None:
    world.studies.arrives("1.2", "A1", site="SITE2")
    assert world.send(oru()) == "AA"
    assert [w.reason for w in waiting(world)] == ["study-unknown"]


@pytest.mark.parametrize(
    ("text", "code", "error"),
    [
        (oru().replace("ORU^R01", "QRY^A19"), "AR", "200"),
        (oru().replace("|P|2.5", "|T|2.5"), "AR", "202"),
        (oru(version="3.0"), "AR", "203"),
        (oru(control=""), "AE", "101"),
        (oru(""), "AE", "101"),
        (oru(status="Z"), "AE", "103"),
        (oru(facility="H9"), "AR", "207"),
        ("no message", "AE", "102"),
    ],
)
def test_what_is_not_taken_is_answered_with_its_reason(world: World, text: str, code: str, error: str) -> None:
    msa, err = world.answer(text)
    assert (msa.text(1), err.text(3)) == (code, error)
    assert issued(world) == []
    assert waiting(world) == []


def test_a_facility_sends_from_its_own_address_alone(world: World) -> None:
    assert world.send(oru(), Peer("10.1.1.1")) == "AR"
    assert world.send(oru(facility="H2"), Peer("::ffff:10.1.1.1")) == "AA"
    assert [w.site for w in waiting(world)] == ["HOME"]


def test_what_fails_for_now_is_tried_and_then_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "PAUSE_S", 0.01)
    monkeypatch.setattr(receiver, "PATIENCE_S", 0.05)
    world.studies.arrives("1.2", "A1")
    world.objects.away = True
    msa, err = world.answer(oru())
    assert (msa.text(1), err.text(3)) == ("AR", "207")
    world.objects.away = False
    assert world.send(oru()) == "AA"
    assert issued(world) == [("final", 1, ["1.2"])]


class Died(BaseException):
    """The process ended here."""


@pytest.mark.parametrize(
    "point", ["hl7.after-message", "reports.after-document", "hl7.after-event", "hl7.after-take", "hl7.before-answer"]
)
def test_a_door_that_dies_before_the_acknowledgement(world: World, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    world.studies.arrives("1.2", "A1")

    def die(name: str) -> None:
        if name == point:
            raise Died

    with monkeypatch.context() as patched:
        patched.setattr(faults, "point", die)
        with pytest.raises(Died):
            world.send(oru())
    assert world.send(oru()) == "AA"
    assert set(map(str, issued(world))) == {"('final', 1, ['1.2'])"}
    assert len([*world.objects.list(BUCKET, "reports/")]) == 1
