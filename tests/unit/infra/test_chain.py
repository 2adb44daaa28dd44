"""The chain of one process: kept before sent, sent until acknowledged, numbered and hashed without a gap."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from infra import anchors, chain_sender, clock
from infra.chain import ChainedLog
from infra.memory import MemoryLog, MemoryObjects
from infra.ports import Objects, Position, Stored
from infra.settings import Settings
from schemas.envelope import GENESIS, Link, Record, decode, link_of, record_hash
from schemas.errors import Defect, Invalid, Overloaded, Permanent, Transient
from schemas.identity import derived_id
from schemas.topics import topic_of
from tests.unit.infra.chains import SOURCE, rejected

TOPIC = topic_of(rejected(0))
WAIT_S = 60.0


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def stored(log: MemoryLog) -> list[Stored]:
    return list(log.read(TOPIC, {}, log.ends(TOPIC)))


def checked(log: MemoryLog, source: str = SOURCE) -> list[str]:
    """Event ids in the order of their sequence, after walking the chain."""
    records: dict[int, Record] = {}
    for s in stored(log):
        record = Record(s.position.topic, s.key or b"", s.headers, s.value or b"")
        origin, link = link_of(record.headers)
        assert link is not None
        assert origin == source
        assert records.setdefault(link.sequence, record) == record, "a repetition differs"
    prevhash = GENESIS
    ids = []
    for sequence in range(1, len(records) + 1):
        record = records[sequence]
        assert link_of(record.headers)[1] == Link(sequence, prevhash)
        prevhash = record_hash(record)
        ids.append(decode(record.topic, record.key, record.headers, record.value).id)
    return ids


class Slow(MemoryLog):
    """Answers when told to, and fails as often as told to."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Record] = []
        self.held: list[tuple[Record, Future[Position]]] = []
        self.holding = False
        self.failures = 0

    def append(self, record: Record) -> Future[Position]:
        self.sent.append(record)
        if self.failures:
            self.failures -= 1
            raise Overloaded("full")
        if not self.holding:
            return super().append(record)
        future: Future[Position] = Future()
        self.held.append((record, future))
        return future

    def answer(self, fail: Callable[[int], bool] = lambda n: False) -> None:
        """Answer all held; those for whose number `fail` is true, with an error."""
        held, self.held = self.held, []
        for n, (record, future) in enumerate(held):
            if fail(n):
                future.set_exception(Transient("away"))
            else:
                future.set_result(super().append(record).result())


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ChainedLog]]:
    """Makes chains in one folder, and closes what is still open."""
    made: list[ChainedLog] = []

    def make(log: MemoryLog, **changed: Any) -> ChainedLog:
        options: dict[str, Any] = {"backlog_max": 100_000, "anchors": None, **changed}
        made.append(ChainedLog(log, tmp_path / "chain", changed.pop("source", SOURCE), **options))
        return made[-1]

    yield make
    for chain in made:
        if not chain._closing.is_set():
            chain.close(0.0)


Start = Callable[..., ChainedLog]


def test_an_event_is_kept_then_acknowledged(log: MemoryLog, start: Start) -> None:
    chain = start(log)
    publication = chain.publish(rejected(1), subject="a subject", traceparent="00-1-2-01")
    publication.kept.result(WAIT_S)
    position = publication.acknowledged.result(WAIT_S)
    (found,) = stored(log)
    assert found.position == position == publication.position
    envelope = decode(TOPIC, found.key, found.headers, found.value)
    assert (envelope.id, envelope.source, envelope.event) == (publication.id, SOURCE, rejected(1))
    assert (envelope.subject, envelope.traceparent) == ("a subject", "00-1-2-01")
    assert envelope.link == Link(1, GENESIS)
    eventually(lambda: chain.backlog == 0)


def test_ids_may_be_given(log: MemoryLog, start: Start) -> None:
    chain = start(log)
    chain.publish(rejected(1), id="decided").acknowledged.result(WAIT_S)
    assert checked(log) == ["decided"]


def test_many_threads_make_one_chain_with_few_syncs(
    log: MemoryLog, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = start(log)
    syncs = 0
    really = os.fdatasync

    def counted(file: int) -> None:
        nonlocal syncs
        syncs += 1
        time.sleep(0.002)
        really(file)

    monkeypatch.setattr(os, "fdatasync", counted)
    publications = []

    def publish(thread: int) -> None:
        for n in range(50):
            publication = chain.publish(rejected(thread * 1000 + n))
            publication.kept.result(WAIT_S)
            publications.append(publication)

    threads = [threading.Thread(target=publish, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for publication in publications:
        publication.acknowledged.result(WAIT_S)
    assert sorted(checked(log)) == sorted(p.id for p in publications)
    assert syncs < 200


def test_an_event_that_its_schema_refuses_is_not_taken(log: MemoryLog, start: Start) -> None:
    chain = start(log)
    with pytest.raises(Invalid):
        chain.publish(rejected(-1))
    with pytest.raises(Invalid, match="does not fit"):
        chain.publish(rejected(1), subject="x" * 1_000_000)
    chain.publish(rejected(1), id="good").acknowledged.result(WAIT_S)
    assert checked(log) == ["good"]


# ------------------------------------------------------------------------------------------------ the log away


def test_with_the_log_away_events_are_kept_and_sent_when_it_is_back(log: MemoryLog, start: Start) -> None:
    log.away = True
    chain = start(log)
    publications = [chain.publish(rejected(n)) for n in range(20)]
    for publication in publications:
        publication.kept.result(WAIT_S)
    assert chain.backlog == 20
    assert not publications[0].acknowledged.done()
    log.away = False
    for publication in publications:
        publication.acknowledged.result(WAIT_S)
    assert checked(log) == [p.id for p in publications]


def test_too_much_waiting_is_overload(log: MemoryLog, start: Start) -> None:
    log.away = True
    chain = start(log, backlog_max=5)
    for n in range(5):
        chain.publish(rejected(n))
    with pytest.raises(Overloaded):
        chain.publish(rejected(5))
    log.away = False
    eventually(lambda: chain.backlog == 0)
    chain.publish(rejected(5)).acknowledged.result(WAIT_S)
    assert len(checked(log)) == 6


def test_what_does_not_fit_into_memory_comes_from_the_journal(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_sender, "RECENT_MAX", 10)
    monkeypatch.setattr(chain_sender, "WINDOW", 7)
    log = Slow()
    log.away = True
    chain = start(log)
    ids = [chain.publish(rejected(n)).id for n in range(300)]
    assert len(chain._sender._recent) <= 10
    log.away = False
    ids += [chain.publish(rejected(n)).id for n in range(300, 400)]
    eventually(lambda: chain.backlog == 0)
    assert checked(log) == ids


def test_a_repetition_is_the_same_bytes_in_the_same_order(start: Start) -> None:
    log = Slow()
    log.holding = True
    chain = start(log)
    ids = [chain.publish(rejected(n)).id for n in range(6)]
    eventually(lambda: len(log.held) == 6)
    log.answer(fail=lambda n: n in (1, 3))
    eventually(lambda: len(log.held) == 2)
    ids.append(chain.publish(rejected(6)).id)
    time.sleep(0.05)
    assert len(log.held) == 2, "a new record must not overtake those repeated"
    log.holding = False
    log.answer()
    eventually(lambda: chain.backlog == 0)
    sequences = [link.sequence for r in log.sent if (link := link_of(r.headers)[1])]
    assert sequences == [1, 2, 3, 4, 5, 6, 2, 4, 7]
    assert log.sent[6] == log.sent[1]
    assert checked(log) == ids


def test_a_queue_that_is_full_is_tried_again(start: Start) -> None:
    log = Slow()
    log.failures = 3
    chain = start(log)
    ids = [chain.publish(rejected(n)).id for n in range(3)]
    eventually(lambda: chain.backlog == 0)
    assert checked(log) == ids


# ------------------------------------------------------------------------------------------------ who waits


def test_who_no_longer_waits_is_forgotten(log: MemoryLog, start: Start) -> None:
    log.away = True
    chain = start(log)

    async def impatient() -> None:
        for n in range(10):
            publication = chain.publish(rejected(n))
            await asyncio.wrap_future(publication.kept)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(publication.acknowledged), 0.001)

    asyncio.run(impatient())
    gc.collect()
    assert (len(chain._awaited), len(chain._told)) == (0, 0)
    log.away = False
    eventually(lambda: chain.backlog == 0)
    assert len(checked(log)) == 10


def test_who_asks_late_is_told(log: MemoryLog, start: Start) -> None:
    chain = start(log)
    publication = chain.publish(rejected(1))
    eventually(lambda: publication.position is not None)
    assert publication.acknowledged.result(0) == publication.position


# ------------------------------------------------------------------------------------------------ ends and starts


def test_closing_waits_for_acknowledgements(start: Start) -> None:
    log = Slow()
    log.holding = True
    chain = start(log)
    publication = chain.publish(rejected(1))
    acknowledged = publication.acknowledged
    eventually(lambda: bool(log.held))
    threading.Timer(0.1, log.answer).start()
    chain.close(WAIT_S)
    assert acknowledged.result(0) == publication.position


def test_what_is_left_is_sent_at_the_next_start(log: MemoryLog, start: Start) -> None:
    log.away = True
    chain = start(log)
    publications = [chain.publish(rejected(n)) for n in range(5)]
    waiting = publications[0].acknowledged
    chain.close(0.05)
    with pytest.raises(Transient):
        waiting.result(0)
    with pytest.raises(Transient):
        publications[1].acknowledged.result(0)
    with pytest.raises(Transient):
        chain.publish(rejected(9))
    log.away = False
    again = start(log)
    ids = [p.id for p in publications] + [again.publish(rejected(5)).id]
    eventually(lambda: again.backlog == 0)
    assert checked(log) == ids
    again.close(WAIT_S)
    third = start(log)
    assert third.backlog == 0
    assert len(stored(log)) == 6, "what is known to be acknowledged is not sent again"


def test_one_process_a_source(log: MemoryLog, start: Start) -> None:
    chain = start(log)
    with pytest.raises(Permanent, match="SIJIL_INSTANCE"):
        start(log)
    chain.close(0.0)
    start(log)


def test_a_damaged_journal_lets_go_of_the_lock(log: MemoryLog, start: Start, tmp_path: Path) -> None:
    chain = start(log)
    for n in range(2):
        chain.publish(rejected(n)).kept.result(WAIT_S)
    chain.close(0.0)
    (path,) = (tmp_path / "chain").glob("*.journal")
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"sequence":1,', b'"sequence":3,'))
    with pytest.raises(Defect):
        start(log)
    path.write_bytes(content)
    start(log)


def test_open_by_settings(tmp_path: Path, log: MemoryLog) -> None:
    settings = Settings(home=tmp_path, site="CAIRO", instance="2")
    chain = ChainedLog.open(settings, "api", log, MemoryObjects())
    chain.publish(rejected(1)).acknowledged.result(WAIT_S)
    chain.close(0.0)
    assert chain.source == "/api/CAIRO/2"
    assert len(checked(log, "/api/CAIRO/2")) == 1


# ------------------------------------------------------------------------------------------------ the disk


def test_a_full_disk_is_overload_and_leaves_no_gap(
    log: MemoryLog, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = start(log)
    first = chain.publish(rejected(1))
    first.kept.result(WAIT_S)

    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    refused = chain.publish(rejected(2))
    with pytest.raises(Overloaded):
        refused.kept.result(WAIT_S)
    with pytest.raises(Overloaded):
        refused.acknowledged.result(0)
    monkeypatch.undo()
    third = chain.publish(rejected(3))
    third.acknowledged.result(WAIT_S)
    assert checked(log) == [first.id, third.id]


def test_a_failed_sync_ends_the_process(log: MemoryLog, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[BaseException] = []
    chain = start(log, fatal=ended.append)

    def failing(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", failing)
    publication = chain.publish(rejected(1))
    acknowledged = publication.acknowledged
    for future in (publication.kept, acknowledged):
        with pytest.raises(Defect):
            future.result(WAIT_S)
    eventually(lambda: len(ended) == 1)
    with pytest.raises(Defect):
        chain.publish(rejected(2))
    assert stored(log) == []


# ------------------------------------------------------------------------------------------------ anchors


BUCKET = "sijil-anchors"


def anchored(objects: Objects) -> list[anchors.Anchor]:
    return [anchors.read(objects, BUCKET, k) for k in anchors.keys(objects, BUCKET, SOURCE)]


def test_the_acknowledged_head_is_anchored_at_start_and_every_interval(log: MemoryLog, start: Start) -> None:
    objects = MemoryObjects()
    chain = start(log, anchors=(objects, BUCKET), anchor_interval_s=0.02)
    for n in range(3):
        chain.publish(rejected(n)).acknowledged.result(WAIT_S)
    eventually(lambda: bool(anchored(objects)) and anchored(objects)[-1].sequence == 3)
    records = {link.sequence: s for s in stored(log) if (link := link_of(s.headers)[1])}
    last = records[3]
    expected = record_hash(Record(TOPIC, last.key or b"", last.headers, last.value or b""))
    assert anchored(objects)[-1].hash == expected
    assert next(iter(objects.list(BUCKET, ""))).startswith("_gateway_LOCAL_1/000000000000")
    log.away = True
    for n in range(3):
        chain.publish(rejected(n)).kept.result(WAIT_S)
    time.sleep(0.1)
    assert anchored(objects)[-1].sequence == 3, "what the log has not acknowledged is not anchored"
    chain.close(0.0)
    log.away = False
    again = start(log, anchors=(objects, BUCKET), anchor_interval_s=0.02)
    eventually(lambda: anchored(objects)[-1].sequence == 6)
    again.close(0.0)
    start(log, anchors=(objects, BUCKET))
    time.sleep(0.05)
    assert anchored(objects)[-1].sequence == 6


def test_with_s3_away_the_chain_goes_on(log: MemoryLog, start: Start) -> None:
    objects = MemoryObjects()
    chain = start(log, anchors=(objects, BUCKET), anchor_interval_s=0.02)
    objects.away = True
    chain.publish(rejected(1)).acknowledged.result(WAIT_S)
    time.sleep(0.05)
    objects.away = False
    eventually(lambda: len(anchored(objects)) == 1)


def test_a_lost_journal_is_not_begun_again(log: MemoryLog, start: Start, tmp_path: Path) -> None:
    objects = MemoryObjects()
    chain = start(log, anchors=(objects, BUCKET), anchor_interval_s=0.02)
    chain.publish(rejected(1)).acknowledged.result(WAIT_S)
    eventually(lambda: len(anchored(objects)) == 1)
    chain.close(0.0)
    (tmp_path / "chain").rename(tmp_path / "lost")
    with pytest.raises(Defect, match="is lost"):
        start(log, anchors=(objects, BUCKET))
    objects.away = True
    with pytest.raises(Transient):
        start(log, anchors=(objects, BUCKET))


def test_what_waits_since_the_last_life_is_not_published_twice(start: Callable[..., ChainedLog]) -> None:
    away = Slow()
    away.holding = True
    decided, free = derived_id("pack", "1"), str(clock.uuid7())
    chain = start(away)
    for id in (decided, free):
        chain.publish(rejected(1), id=id).kept.result(WAIT_S)
    chain.close(0)

    log = Slow()
    log.holding = True
    chain = start(log)
    again = chain.publish(rejected(1), id=decided)
    again.kept.result(WAIT_S)
    assert (again.sequence, chain.backlog) == (1, 2)
    eventually(lambda: len(log.held) == 2)
    log.answer()
    assert again.acknowledged.result(WAIT_S) == chain.publish(rejected(1), id=decided).acknowledged.result(WAIT_S)
    assert checked(log) == [decided, free]
