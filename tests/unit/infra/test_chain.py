"""The chain: linked, durable before it is sent, sent until acknowledged, recovered as it was."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path

import pytest

from infra.chain import ChainBroken, ChainedLog
from infra.chain_journal import Journal
from infra.memory import MemoryLog, MemoryObjects
from infra.ports import Position
from schemas.envelope import GENESIS, Record, link_of, record_hash
from schemas.errors import Defect, Overloaded, Permanent, Transient
from schemas.events import StudyReopened
from schemas.topics import topic_of

TOPIC = topic_of(StudyReopened)
SOURCE = "/gateway/TEST/1"


def event(n: int) -> StudyReopened:
    return StudyReopened(study_uid=f"1.2.{n}", revision=1, pack_id="018f0000-0000-7000-8000-000000000001", offset=n)


def chain(folder: Path, log: MemoryLog, **options: object) -> ChainedLog:
    options = {"backlog_max": 1000, "fatal": lambda e: None, **options}
    return ChainedLog(log, folder, SOURCE, **options)  # type: ignore[arg-type]


def records(log: MemoryLog) -> list[Record]:
    """Of the topic, by sequence."""
    stored = log.read(TOPIC, {}, log.ends(TOPIC))
    found = [Record(TOPIC, s.key or b"", s.headers, s.value or b"") for s in stored]
    return sorted(found, key=sequence)


def sequence(record: Record) -> int:
    _, link = link_of(record.headers)
    assert link is not None
    return link.sequence


def assert_whole(found: list[Record], count: int) -> None:
    """Numbered from 1 without a gap, each linked to the one before; identical repeats allowed."""
    distinct = {sequence(r): r for r in found}
    assert sorted(distinct) == list(range(1, count + 1))
    assert all(distinct[sequence(r)] == r for r in found)
    links = [link_of(distinct[n].headers)[1] for n in range(1, count + 1)]
    assert links[0] is not None
    assert links[0].prevhash == GENESIS
    for n, (_, link) in enumerate(pairwise(links), start=1):
        assert link is not None
        assert link.prevhash == record_hash(distinct[n])


def test_events_are_numbered_linked_and_acknowledged(tmp_path: Path) -> None:
    log = MemoryLog()
    own = chain(tmp_path, log)
    sent = [own.publish(event(n)) for n in range(50)]
    for publication in sent:
        publication.kept.result(5)
        assert publication.acknowledged.result(5).topic == TOPIC
    assert own.backlog == 0
    own.close(5)
    assert_whole(records(log), 50)


def test_a_restart_goes_on_where_the_chain_ended(tmp_path: Path) -> None:
    log = MemoryLog()
    for run in range(3):
        own = chain(tmp_path, log)
        for n in range(10):
            own.publish(event(10 * run + n)).acknowledged.result(5)
        own.close(5)
    found = records(log)
    assert len(found) == 30, "nothing acknowledged is sent again after an orderly stop"
    assert_whole(found, 30)


def test_with_kafka_away_events_are_kept_and_sent_later_in_order(tmp_path: Path) -> None:
    log = MemoryLog()
    log.away = True
    own = chain(tmp_path, log)
    sent = [own.publish(event(n)) for n in range(20)]
    for publication in sent:
        publication.kept.result(5)
    assert own.backlog == 20
    own.close(0.1)
    for publication in sent:
        with pytest.raises(Transient):
            publication.acknowledged.result(5)
    log.away = False
    again = chain(tmp_path, log)
    deadline = time.monotonic() + 10
    while again.backlog and time.monotonic() < deadline:
        time.sleep(0.01)
    again.close(5)
    assert_whole(records(log), 20)


def test_what_kafka_refuses_is_sent_again_byte_for_byte(tmp_path: Path) -> None:
    class Flaky(MemoryLog):
        refusals = 3

        def append(self, record: Record) -> Future[Position]:
            if self.refusals:
                self.refusals -= 1
                failed: Future[Position] = Future()
                failed.set_exception(Transient("not now"))
                return failed
            return super().append(record)

    log = Flaky()
    own = chain(tmp_path, log)
    for publication in [own.publish(event(n)) for n in range(5)]:
        publication.acknowledged.result(10)
    own.close(5)
    assert_whole(records(log), 5)


def test_a_full_backlog_is_overloaded_and_drains(tmp_path: Path) -> None:
    log = MemoryLog()
    log.away = True
    own = chain(tmp_path, log, backlog_max=3)
    sent = [own.publish(event(n)) for n in range(3)]
    with pytest.raises(Overloaded):
        own.publish(event(4))
    log.away = False
    for publication in sent:
        publication.acknowledged.result(10)
    own.publish(event(5)).acknowledged.result(10)
    own.close(5)


def test_two_processes_cannot_have_one_chain(tmp_path: Path) -> None:
    own = chain(tmp_path, MemoryLog())
    with pytest.raises(Permanent):
        chain(tmp_path, MemoryLog())
    own.close(1)


def journal_with(folder: Path, count: int) -> Path:
    log = MemoryLog()
    log.away = True
    own = chain(folder, log)
    for n in range(count):
        own.publish(event(n)).kept.result(5)
    own.close(0)
    (path,) = folder.glob("*.jsonl")
    return path


def test_a_torn_last_line_is_cut_off_at_every_byte(tmp_path: Path) -> None:
    path = journal_with(tmp_path / "whole", 3)
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(last + 1, len(whole), 37):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / path.name).write_bytes(whole[:cut])
        journal = Journal(folder)
        assert journal.head.sequence == 2
        journal.close()
        assert (folder / path.name).read_bytes() == whole[:last]


@pytest.mark.parametrize("at", [0.2, 0.5, 0.7])
def test_a_damaged_middle_is_refused(tmp_path: Path, at: float) -> None:
    path = journal_with(tmp_path, 6)
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0x01
    path.write_bytes(data)
    with pytest.raises(Defect):
        Journal(tmp_path)


def test_segments_that_kafka_has_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.chain_journal.SEGMENT_BYTES", 2_000)
    log = MemoryLog()
    own = chain(tmp_path, log)
    for n in range(100):
        own.publish(event(n)).acknowledged.result(5)
    own.close(5)
    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    again = chain(tmp_path, log)
    again.publish(event(100)).acknowledged.result(5)
    again.close(5)
    assert_whole(records(log), 101)


def test_a_disk_that_fails_breaks_the_chain_loudly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException] = []
    own = chain(tmp_path, MemoryLog(), fatal=told.append)

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    publication = own.publish(event(1))
    with pytest.raises(ChainBroken):
        publication.kept.result(5)
    with pytest.raises(ChainBroken):
        own.publish(event(2))
    assert len(told) == 1


def test_heads_are_anchored_and_a_lost_journal_is_refused(tmp_path: Path) -> None:
    log, objects = MemoryLog(), MemoryObjects()
    own = chain(tmp_path / "a", log, anchors=(objects, "sijil-anchors"), anchor_interval_s=0.1)
    for n in range(3):
        own.publish(event(n)).acknowledged.result(5)
    deadline = time.monotonic() + 10
    while not list(objects.list("sijil-anchors", "_gateway_TEST_1/")) and time.monotonic() < deadline:
        time.sleep(0.05)
    own.close(5)
    (key, *_) = objects.list("sijil-anchors", "_gateway_TEST_1/")
    assert key == f"_gateway_TEST_1/{3:020d}.json"
    with pytest.raises(Defect, match="anchored"):
        chain(tmp_path / "b", log, anchors=(objects, "sijil-anchors"))
