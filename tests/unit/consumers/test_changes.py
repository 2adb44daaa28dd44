"""The change feed: nothing is skipped, nothing comes twice, whatever arrives between two reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.api import feed as feeds
from consumers.api.changes import TOPICS, Cursor, Read, Seen, decode, merged
from consumers.api.feed import Feed
from infra import clock
from infra.chain import ChainedLog
from infra.ports import Position, Stored
from schemas.envelope import encode
from schemas.errors import Invalid
from schemas.events import AccessGranted, PackStored, StudyCompleted
from tests.unit.consumers.archive import MemoryArchive, part10


def arrived(study: str) -> PackStored:
    return PackStored(
        pack_id=str(clock.uuid7()),
        study_uid=study,
        site="LOCAL",
        gateway="/gateway/LOCAL/1",
        door="stow",
        bucket="sijil-packs",
        pack_key="k",
        pack_size=1,
        pack_sha256="0" * 64,
        manifest_key="m",
        manifest_size=1,
        manifest_sha256="0" * 64,
        instances=1,
        opened="2025-01-01T00:00:00Z",
        sealed="2025-01-01T00:00:00Z",
    )


def test_a_cursor_is_text_and_back() -> None:
    cursor = Cursor({TOPICS[0]: {0: 5, 3: 7}, TOPICS[3]: {1: 1}})
    assert decode(cursor.encode()) == cursor
    assert decode("") == Cursor()
    many = Cursor({t: {p: 10**9 + p * 7919 for p in range(48)} for t in TOPICS})
    assert len(many.encode()) < 2000
    assert decode(many.encode()) == many


@pytest.mark.parametrize("text", ["x", "eJyr", "a" * 9000, "%00", "eJyrVspIVbIyqgUADXMCng"])
def test_no_cursor(text: str) -> None:
    with pytest.raises(Invalid, match="cursor"):
        decode(text)


LOGS = st.dictionaries(
    st.tuples(st.sampled_from(TOPICS), st.integers(0, 3)),
    st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=12),
    max_size=6,
)


@given(LOGS, st.integers(1, 7), st.integers(1, 5))
def test_pages_of_any_size_are_the_whole_in_one_order(
    log: dict[tuple[str, int], list[tuple[int, bool]]], limit: int, size: int
) -> None:
    def pages(limit: int, size: int) -> list[tuple[str, int, int]]:
        cursor = Cursor()
        found: list[tuple[str, int, int]] = []
        while True:
            reads = []
            for (topic, partition), records in log.items():
                start = cursor.of(topic, partition)
                seen = [
                    Seen(topic, partition, n, time, arrived(f"1.{partition}.{n}") if told else None)
                    for n, (time, told) in enumerate(records)
                ][start : start + size]
                if seen:
                    reads.append(Read(seen, start + size >= len(records)))
            if not reads:
                return found
            changes, after = merged(cursor, reads, limit)
            assert after != cursor
            cursor = decode(after.encode())
            found += [(c.studies[0], c.time_ms, limit) for c in changes]

    expected = sum(told for records in log.values() for _, told in records)
    whole = [c[:2] for c in pages(1000, 1000)]
    assert len(whole) == expected
    assert [c[:2] for c in pages(limit, size)] == whole, "the same order, whatever the pages"


class Logged:
    """A log in memory that is read and never written; counts its records as they are read."""

    def __init__(self, records: dict[tuple[str, int], list[int]]) -> None:
        self.times, self.read_count = records, 0
        """(topic, partition) → time of each record."""

    def ends(self, topic: str) -> dict[int, int]:
        return {p: len(self.times.get((topic, p), ())) for p in range(3)}

    def read(self, topic: str, start: Mapping[int, int], end: Mapping[int, int]) -> Iterator[Stored]:
        for p in sorted(end):
            for offset in range(start[p], end[p]):
                self.read_count += 1
                record = encode(arrived(f"1.{p}.{offset}"), id="1", source="/gateway/X/1", time="2025-01-01T00:00:00Z")
                time_ms = self.times[topic, p][offset]
                yield Stored(Position(topic, p, offset), time_ms, record.key, record.headers, record.value)

    append = close = None


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.just(TOPICS[0]), st.integers(0, 2)), st.lists(st.integers(0, 300), max_size=90).map(sorted)
    ),
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.sampled_from([1, 2, 256]),
)
def test_blocks_of_the_log_make_pages_of_any_size(
    records: dict[tuple[str, int], list[int]], limits: list[int], blocks: int
) -> None:
    """Several readers at once, also where nearly nothing is remembered; where all is, every record is read once."""
    log = Logged(records)
    feed = Feed(log)  # type: ignore[arg-type]

    async def through(limit: int) -> list[str]:
        cursor, found = Cursor(), list[str]()
        while True:
            page = await feed.page(cursor, limit)
            found += [c.studies[0] for c in page.changes]
            cursor = page.next
            if not page.more:
                return found

    async def run() -> list[list[str]]:
        return await asyncio.gather(*(through(limit) for limit in limits))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeds, "BLOCKS_MAX", blocks)
        patch.setattr(feeds, "BLOCK", 8)
        every = asyncio.run(run())
    whole = sorted((time, p, n) for (_, p), times in records.items() for n, time in enumerate(times))
    for found in every:
        assert sorted(found) == sorted(f"1.{p}.{n}" for _, p, n in whole)
        assert found == every[0]
    if blocks == 256 and len(limits) == 1:
        partial = sum(len(times) % 8 for times in records.values())
        assert log.read_count <= len(whole) + partial * (len(whole) // limits[0] + 2)


class Site:
    """An archive with a study, and a log that the tests write to."""

    def __init__(self, folder: Path) -> None:
        self.archive = MemoryArchive()
        self.archive.store([part10("1.2.3.1.1")])
        self.chain = ChainedLog(self.archive.log, folder, "/worker/LOCAL/1", backlog_max=1000, anchors=None)

    def publish(self, *events: Any) -> None:
        for event in events:
            self.chain.publish(event).acknowledged.result(60)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path / "chain")
    yield found
    found.chain.close(5)


def completed(study: str, revision: int = 1) -> StudyCompleted:
    return StudyCompleted(
        study_uid=study, revision=revision, basis="quiet", as_of_partition=0, as_of_offset=revision - 1, packs=1,
        series=1, instances=1, bytes=1, first_arrival="2025-01-01T00:00:00Z", last_arrival="2025-01-01T00:00:00Z",
    )  # fmt: skip


def test_what_was_said_is_there_page_by_page(site: Site) -> None:
    site.publish(*(arrived(f"1.2.{n}") for n in range(25)), completed("1.2.3"))

    async def run() -> list[dict[str, Any]]:
        changes: list[dict[str, Any]] = []
        async with site.archive.client() as client:
            since, more = "", True
            while more:
                answer = (await client.get("/changes", params={"since": since, "limit": "7"})).raise_for_status().json()
                changes += answer["changes"]
                since, more = answer["next"], answer["more"]
            assert (await client.get("/changes", params={"since": since})).json()["changes"] == []
            await asyncio.to_thread(site.publish, arrived("1.9"))
            late = (await client.get("/changes", params={"since": since})).json()
            assert [c["study_uids"] for c in late["changes"]] == [["1.9"]]
            assert (await client.get("/changes", params={"since": "now"})).json()["changes"] == []
            assert (await client.get("/changes", params={"since": "nonsense"})).status_code == 400
            assert (await client.get("/changes", params={"limit": "0"})).status_code == 400
        return changes

    changes = asyncio.run(run())
    arrivals = [c["study_uids"][0] for c in changes if c["type"] == "study.arrived"]
    assert sorted(arrivals) == sorted(f"1.2.{n}" for n in range(25))
    assert [c["study_uids"] for c in changes if c["type"] == "study.completed"] == [["1.2.3"]]
    granted = [e for e in site.archive.journal.events(AccessGranted) if e.action == "read-changes"]
    assert {s.study_uid for e in granted for s in e.shown} >= {"1.2.3", "1.2.24"}
    known = [s for e in granted for s in e.shown if s.study_uid == "1.2.3"]
    assert known
    assert all(s.patient_key for s in known), "whose study it was, where that is known"


def test_events_are_pushed_and_taken_up_again(site: Site) -> None:
    """Each is there once, also for who lost the connection; its access event comes before it."""
    app, door = site.archive.app()

    class Reader:
        """One connection, read as ASGI gives it."""

        def __init__(self, last: str = "") -> None:
            headers = [(b"last-event-id", last.encode())] if last else []
            self.scope = {
                "type": "http", "method": "GET", "path": "/changes/events", "raw_path": b"/changes/events",
                "query_string": b"", "headers": headers, "client": ("192.0.2.7", 1), "server": ("sijil", 80),
                "scheme": "http", "http_version": "1.1", "root_path": "",
            }  # fmt: skip
            self.text, self.head = "", {}  # type: str, dict[str, Any]
            self.gone = asyncio.Event()
            self.task = asyncio.create_task(app(self.scope, self.receive, self.send))

        async def receive(self) -> dict[str, Any]:
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(self, message: Any) -> None:
            if message["type"] == "http.response.start":
                self.head = message
            self.text += bytes(message.get("body", b"")).decode()

        async def until(self, count: int) -> None:
            async with asyncio.timeout(20):
                while self.text.count("data: ") < count:  # noqa: ASYNC110 (it is pushed, there is nothing to wait on)
                    await asyncio.sleep(0.02)

        async def opened(self) -> None:
            async with asyncio.timeout(20):
                while "retry:" not in self.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

        def last(self) -> str:
            return [line for line in self.text.splitlines() if line.startswith("id: ")][-1].removeprefix("id: ")

        def studies(self) -> list[str]:
            lines = [x.removeprefix("data: ") for x in self.text.splitlines() if x.startswith("data: ")]
            return [json.loads(x)["study_uids"][0] for x in lines]

    async def run() -> list[str]:
        async with door.lifespan(app):
            async with asyncio.timeout(10):
                while door.checks["cassandra"]() is not True:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            first = Reader()
            await first.opened()
            assert dict(first.head["headers"])[b"content-type"] == b"text/event-stream"
            await asyncio.to_thread(site.publish, arrived("1.1"), completed("1.1"))
            await first.until(2)
            shown = [s.study_uid for e in site.archive.journal.events(AccessGranted) for s in e.shown]
            assert "1.1" in shown
            first.gone.set()
            await asyncio.to_thread(site.publish, arrived("1.2"), arrived("1.3"))
            second = Reader(first.last())
            await second.until(2)
            await asyncio.to_thread(site.publish, arrived("1.4"))
            await second.until(3)
            door.stopping = True
            async with asyncio.timeout(10):
                await asyncio.gather(first.task, second.task)
            return [*first.studies(), *second.studies()]

    found = asyncio.run(run())
    assert sorted(found) == ["1.1", "1.1", "1.2", "1.3", "1.4"]


def test_without_a_durable_access_event_nothing_is_pushed(site: Site) -> None:
    site.archive.journal.full = True
    assert site.archive.get("/changes").status_code == 503
