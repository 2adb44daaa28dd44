"""What every implementation of the Log port promises. `test_log.py` says how each is made."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import count

import pytest

from infra.murmur2 import partition_of
from infra.ports import Log, Stored
from schemas.envelope import Record
from schemas.errors import Transient

TOPIC = "sijil.people"
"""One that nothing else in the tests writes."""
_NUMBERS = count()


def record(key: str = "", value: bytes = b"{}", topic: str = TOPIC) -> Record:
    headers = (("ce_id", b"1"), ("ce_source", "/gateway/القاهرة/1".encode()), ("empty", b""))
    return Record(topic, (key or f"key-{next(_NUMBERS)}").encode(), headers, value)


class LogContract(ABC):
    partitions = 6

    @abstractmethod
    @pytest.fixture
    def log(self) -> Iterator[Log]:
        """The port, with the topics of `schemas.topics`, six partitions each; there may be records already."""

    def appended(self, log: Log, records: list[Record]) -> list[Stored]:
        """Append all, read all that came."""
        before = log.ends(TOPIC)
        for future in [log.append(r) for r in records]:
            future.result(30)
        return list(log.read(TOPIC, before, log.ends(TOPIC)))

    def test_what_was_appended_is_read(self, log: Log) -> None:
        sent = record(value='{"name": "سجل"}'.encode())
        earliest = time.time()
        (stored,) = self.appended(log, [sent])
        assert (stored.key, stored.headers, stored.value) == (sent.key, sent.headers, sent.value)
        assert earliest - 1 < stored.timestamp_ms / 1000 < time.time() + 1

    def test_the_future_says_where(self, log: Log) -> None:
        before = log.ends(TOPIC)
        sent = record("a study")
        position = log.append(sent).result(30)
        assert (position.topic, position.partition) == (TOPIC, partition_of(b"a study", self.partitions))
        assert position.offset == before[position.partition]
        (stored,) = log.read(TOPIC, {position.partition: position.offset}, {position.partition: position.offset + 1})
        assert stored.position == position

    def test_partitions_are_those_of_javas_clients(self, log: Log) -> None:
        records = [record() for _ in range(60)]
        stored = self.appended(log, records)
        assert len(stored) == 60
        assert {s.position.partition for s in stored} == set(range(self.partitions))
        assert all(s.position.partition == partition_of(s.key or b"", self.partitions) for s in stored)

    def test_a_partition_is_read_in_order(self, log: Log) -> None:
        stored = self.appended(log, [record("one", str(i).encode()) for i in range(1500)])
        assert [s.value for s in stored] == [str(i).encode() for i in range(1500)]
        offsets = [s.position.offset for s in stored]
        assert offsets == list(range(offsets[0], offsets[0] + 1500))

    def test_since_a_time(self, log: Log) -> None:
        first, second = record("one"), record("one")
        place = log.append(first).result(30)
        time.sleep(0.02)
        middle = round(time.time() * 1000)
        time.sleep(0.02)
        log.append(second).result(30)
        assert log.since(TOPIC, middle)[place.partition] == place.offset + 1
        assert log.since(TOPIC, middle + 3_600_000) == log.ends(TOPIC), "nothing is so new"
        assert set(log.since(TOPIC, 0).values()) == {0}, "all is still there"

    def test_partition_by_partition(self, log: Log) -> None:
        stored = self.appended(log, [record() for _ in range(100)])
        places = [(s.position.partition, s.position.offset) for s in stored]
        assert places == sorted(places)

    def test_ranges(self, log: Log) -> None:
        position = log.append(record("one", b"0")).result(30)
        for i in range(1, 10):
            log.append(record("one", str(i).encode())).result(30)
        p, first = position.partition, position.offset

        def values(start: dict[int, int], end: dict[int, int]) -> list[bytes | None]:
            return [s.value for s in log.read(TOPIC, start, end)]

        assert values({p: first + 3}, {p: first + 5}) == [b"3", b"4"]
        assert values({p: first + 5}, {p: first + 5}) == []
        assert values({p: first + 9}, {p: first + 2}) == []
        assert values({}, {}) == []
        assert values({}, {p: first + 1})[-1] == b"0"
        assert len(values({}, {p: first + 1})) == first + 1

    def test_reads_do_not_meet(self, log: Log) -> None:
        """One after another, several at once, one that stops early: each gives its own range."""
        before = log.ends(TOPIC)
        for future in [log.append(record()) for _ in range(120)]:
            future.result(30)
        ends = log.ends(TOPIC)
        whole = list(log.read(TOPIC, before, ends))
        stopped = log.read(TOPIC, before, ends)
        assert [next(stopped) for _ in range(7)] == whole[:7]
        assert [s for pair in zip(*(log.read(TOPIC, before, ends) for _ in range(3)), strict=True) for s in pair] == [
            s for s in whole for _ in range(3)
        ]
        for p in ends:
            middle = (before[p] + ends[p]) // 2
            found = [*log.read(TOPIC, before, {p: middle}), *log.read(TOPIC, {p: middle}, {p: ends[p]})]
            assert found == [s for s in whole if s.position.partition == p]
        assert list(stopped) == whole[7:]

    def test_a_reader_may_stop(self, log: Log) -> None:
        log.append(record("one")).result(30)
        log.append(record("one")).result(30)
        for _ in log.read(TOPIC, {}, log.ends(TOPIC)):
            break

    def test_what_is_not_there_yet_is_transient(self, log: Log) -> None:
        ends = log.ends(TOPIC)
        with pytest.raises(Transient):
            list(log.read(TOPIC, ends, {0: ends[0] + 1}))

    def test_a_topic_that_is_not_there_is_transient(self, log: Log) -> None:
        """Topics are made by the migration; a broker that just started may not know them yet."""
        with pytest.raises(Transient):
            log.append(record(topic="sijil.none-such")).result(30)
        with pytest.raises(Transient):
            log.ends("sijil.none-such")
