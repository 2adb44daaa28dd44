"""The life of a report: who signs, what waits, a second writer; critical results until they are read back."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.chain import ChainedLog
from infra.memory import MemoryLog, MemoryObjects
from producers import reports
from producers.critical import Criticals, Duty, critical_id, read_back
from producers.reports import Conflict, Reports, Writer
from schemas.envelope import decode
from schemas.errors import Invalid, NotFound
from schemas.events import CriticalAcknowledged, CriticalRaised, Event, ReportIssued
from schemas.report_content import Content, document_of, signature_of
from tests.unit.producers.test_report_document import UID

ID = "01890000-0000-7000-8000-000000000001"
RESIDENT, SENIOR = Writer("person:res-1", may_sign=False), Writer("person:dr-2", may_sign=True)
TOPIC = "sijil.reports"
DUTY = Duty(("on-call",), 1800)


def said(status: str, **more: Any) -> bytes:
    return json.dumps(document_of(Content(status=status, study_uids=(UID,), findings="CANARY", **more))).encode()


@dataclass
class World:
    """Reports over the ports in memory."""

    log: MemoryLog
    objects: MemoryObjects
    chain: ChainedLog
    reports: Reports
    criticals: Criticals

    def events(self, kind: type[Event] = Event) -> list[Any]:
        deadline = time.monotonic() + 60
        while self.chain.backlog and time.monotonic() < deadline:
            time.sleep(0.005)
        found = [decode(TOPIC, r.key, r.headers, r.value) for r in self.log.read(TOPIC, {}, self.log.ends(TOPIC))]
        assert not any(b"CANARY" in (r.value or b"") for r in self.log.read(TOPIC, {}, self.log.ends(TOPIC)))
        unique = {e.id: e.event for e in found}
        return [e for e in unique.values() if isinstance(e, kind)]

    def document(self, version: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.objects.get("docs", f"reports/{ID}/{version}.json"))
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    log, objects = MemoryLog(), MemoryObjects()
    chain = ChainedLog(log, tmp_path / "chain", "/api/LOCAL/1", backlog_max=100, anchors=None)
    yield World(
        log, objects, chain, Reports(objects, chain, "docs", "S", DUTY), Criticals(objects, chain, bucket="docs")
    )
    chain.close(0.1)


def test_what_a_resident_finishes_waits_until_a_supervisor_signs(world: World) -> None:
    told = world.reports.add(said("final"), ID, RESIDENT)
    assert (told.status, told.version, told.signed_by) == ("preliminary", 1, "")
    # Sent again it is there, whatever it is called
    assert world.reports.add(said("final"), ID, RESIDENT).new is False
    assert world.reports.add(said("preliminary"), ID, RESIDENT).new is False
    signed = world.reports.sign(ID, 1, told.sha256, SENIOR)
    assert (signed.status, signed.version, signed.signed_by) == ("final", 2, "person:dr-2")
    first, second = world.events(ReportIssued)
    assert (first.author, first.signed_by, first.signed) == ("person:res-1", "", None)
    assert (second.author, second.signed_by) == ("person:res-1", "person:dr-2")
    data = world.objects.get("docs", second.document_key)
    assert hashlib.sha256(data).hexdigest() == second.document_sha256 == signed.sha256
    found = signature_of(json.loads(data))
    assert found is not None
    assert (found.who, found.when) == ("person:dr-2", second.signed)
    assert {(n.person_id, n.relation) for n in second.people} == {("res-1", "reporting"), ("dr-2", "reporting")}
    kept = json.loads(data)
    assert {o["status"] for o in kept["contained"]} == {"final"}
    assert kept["contained"][0]["valueString"] == "CANARY"
    # Both versions stay
    assert world.document(1)["status"] == "preliminary"


def test_a_signature_is_of_what_the_signer_saw(world: World) -> None:
    told = world.reports.add(said("preliminary"), ID, RESIDENT)
    changed = world.reports.replace(ID, said("preliminary", impression="another"), 1, RESIDENT)
    for version, sha256 in ((1, ""), (1, told.sha256), (2, told.sha256)):
        with pytest.raises(Conflict) as stale:
            world.reports.sign(ID, version, sha256, SENIOR)
        assert stale.value.status == 412
        assert stale.value.current is not None
        assert (stale.value.current.version, stale.value.current.sha256) == (2, changed.sha256)
    with pytest.raises(Conflict) as refused:
        world.reports.sign(ID, 2, "", RESIDENT)
    assert refused.value.status == 403
    assert world.reports.sign(ID, 2, changed.sha256, SENIOR).version == 3
    # The answer was lost: the same again changes nothing, another's signature is refused
    assert world.reports.sign(ID, 2, changed.sha256, SENIOR).new is False
    with pytest.raises(Conflict) as late:
        world.reports.sign(ID, 2, "", Writer("person:dr-9", may_sign=True))
    assert late.value.status == 412
    with pytest.raises(Conflict) as again:
        world.reports.sign(ID, 3, "", SENIOR)
    assert (again.value.status, again.value.reason) == (409, "report-transition")
    with pytest.raises(NotFound):
        world.reports.sign("01890000-0000-7000-8000-000000000002", 1, "", SENIOR)
    assert len(world.events()) == 3


@pytest.mark.parametrize("status", ["amended", "corrected", "appended", "entered-in-error"])
def test_what_was_signed_is_changed_by_those_who_sign(world: World, status: str) -> None:
    world.reports.add(said("final"), ID, SENIOR)
    with pytest.raises(Conflict) as refused:
        world.reports.replace(ID, said(status, impression="b"), 1, RESIDENT)
    assert (refused.value.status, refused.value.reason) == (403, "report-signature")
    told = world.reports.replace(ID, said(status, impression="b"), 1, SENIOR)
    assert (told.version, told.status) == (2, status)
    assert told.signed_by == ("" if status == "entered-in-error" else "person:dr-2")


def test_a_client_cannot_say_who_signed(world: World) -> None:
    document = json.loads(said("preliminary"))
    document["extension"] = [
        {"url": "urn:sijil:report-author", "valueIdentifier": {"value": "person:other"}},
        {"url": "urn:sijil:report-signature", "extension": [{"url": "who", "valueIdentifier": {"value": "person:x"}}]},
    ]
    told = world.reports.add(json.dumps(document).encode(), ID, RESIDENT)
    (event,) = world.events(ReportIssued)
    assert (told.signed_by, event.author, event.signed_by) == ("", "person:res-1", "")
    # A client that edits what it read sends them back: that is no other content
    again = world.reports.add(json.dumps(world.document(1)).encode(), ID, SENIOR)
    assert again.new is False


def test_the_second_writer_is_told_what_is_there(world: World) -> None:
    world.reports.add(said("preliminary"), ID, RESIDENT)
    second = world.reports.replace(ID, said("preliminary", impression="first writer"), 1, RESIDENT)
    with pytest.raises(Conflict) as stale:
        world.reports.replace(ID, said("preliminary", impression="second writer"), 1, SENIOR)
    assert stale.value.current is not None
    assert (stale.value.status, stale.value.current.version) == (412, 2)
    assert (stale.value.current.sha256, stale.value.current.status) == (second.sha256, "preliminary")


# ------------------------------------------------------------------------------------------------ critical results


def test_a_critical_result_is_raised_once_and_read_back_once(world: World) -> None:
    world.reports.add(said("preliminary"), ID, RESIDENT)
    flagged = said("preliminary", critical=True, contacts=("dr-7",), referring="dr-8")
    told = world.reports.replace(ID, flagged, 1, RESIDENT)
    assert told.critical_id == critical_id(ID, 2)
    world.reports.replace(ID, flagged, 1, RESIDENT)  # its answer was lost
    assert world.reports.sign(ID, 2, "", SENIOR).critical_id == ""
    (task,) = world.events(CriticalRaised)
    assert (task.version, task.raised_by, task.contacts) == (2, "person:res-1", ["dr-7", "dr-8", "on-call"])
    assert (task.within_s, task.study_uids) == (1800, [UID])
    last = world.reports.kept(ID, 2)
    assert last is not None
    words = read_back(b'{"words": "CANARY: bleeding, I call the surgeon"}')
    done = world.criticals.acknowledge(ID, 2, last.report, words, "person:dr-7", "dr-7", "S")
    again = world.criticals.acknowledge(ID, 2, last.report, words, "person:dr-8", "dr-8", "S")
    assert (done.new, again.new) == (True, False)
    assert (again.clinician, again.acknowledged) == ("dr-7", done.acknowledged)
    (event,) = world.events(CriticalAcknowledged)
    assert (event.critical_id, event.clinician, event.channel) == (told.critical_id, "dr-7", "page")
    data = world.objects.get("docs", event.document_key)
    assert hashlib.sha256(data).hexdigest() == event.document_sha256
    assert json.loads(data)["words"].startswith("CANARY")
    assert world.reports.versions(ID) == [1, 2, 3]


def test_one_that_nobody_is_named_for_is_due_at_once(world: World) -> None:
    alone = Reports(world.objects, world.chain, "docs", "S", Duty())
    alone.add(said("final", critical=True), ID, SENIOR)
    (task,) = world.events(CriticalRaised)
    assert (task.contacts, task.due) == ([], task.raised)


def test_what_is_taken_back_is_no_task_and_what_is_critical_again_is_one(world: World) -> None:
    world.reports.add(said("registered", critical=True), ID, SENIOR)
    assert world.events(CriticalRaised) == []
    world.reports.add(said("final", critical=True), ID, SENIOR)
    world.reports.add(said("amended"), ID, SENIOR)
    world.reports.add(said("amended", critical=True), ID, SENIOR)
    world.reports.add(said("entered-in-error", critical=True), ID, SENIOR)
    assert [e.version for e in world.events(CriticalRaised)] == [2, 4]


def test_a_task_whose_event_was_lost_is_raised_when_the_report_is_sent_again(world: World, tmp_path: Path) -> None:
    flagged = said("final", critical=True, contacts=("dr-7",))
    world.reports.add(flagged, ID, SENIOR)
    log = MemoryLog()
    chain = ChainedLog(log, tmp_path / "other", "/api/LOCAL/2", backlog_max=100, anchors=None)
    Reports(world.objects, chain, "docs", "S", DUTY).add(flagged, ID, SENIOR)
    sent = [decode(TOPIC, r.key, r.headers, r.value) for r in log.read(TOPIC, {}, log.ends(TOPIC))]
    assert [e.event for e in sent] == world.events()
    chain.close(0.1)


def test_reading_back_names_a_clinician(world: World) -> None:
    world.reports.add(said("final", critical=True), ID, SENIOR)
    kept = world.reports.kept(ID)
    assert kept is not None
    with pytest.raises(Invalid, match="clinician"):
        world.criticals.acknowledge(ID, 1, kept.report, read_back(b'{"words": "yes"}'), "service:ris", "", "S")
    phone = read_back(b'{"words": "yes", "clinician": "dr-7", "channel": "phone"}')
    assert world.criticals.acknowledge(ID, 1, kept.report, phone, "service:ris", "", "S").clinician == "dr-7"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"words": ""}', b'{"words": "CANARY", "channel": "fax"}', b"[]"])
def test_what_is_no_reading_back(body: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        read_back(body)
    assert "CANARY" not in str(refused.value)


def test_kafka_away_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "ACKNOWLEDGED_S", 0.05)
    world.log.away = True
    world.reports.add(said("final", critical=True), ID, SENIOR)
    world.log.away = False
    assert [type(e) for e in world.events()] == [ReportIssued, CriticalRaised]
