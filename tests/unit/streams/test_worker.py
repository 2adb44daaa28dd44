"""The worker's batch on the ports in memory: what it writes, emits, buries, and where it stands still."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from infra.dead_letters import DeadLetters
from infra.memory import MemoryLog, MemoryObjects, MemoryTables
from infra.ports import Position, Select, Stored
from schemas.envelope import encode
from schemas.events import (
    DeadLetter,
    Event,
    PackStored,
    ReportDeliveryFailed,
    StudyCompleted,
    StudyDeliveryFailed,
)
from streams.apply import Projector
from streams.completeness import QUIET
from streams.effects import Emit
from streams.material import Material
from streams.replay import Replay, settle
from streams.timers import Timers
from streams.worker import ARRIVALS, Worker
from tests.unit.streams.samples import DOCUMENTS, SECRETS, T0, Pack, dump, run, stored

QUIET_MS = 60_000
NOW = "2025-03-01T08:00:00Z"


@dataclass
class Archive:
    """A worker with everything around it, and a log of one partition."""

    tables: MemoryTables = field(default_factory=MemoryTables)
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    emitted: list[Emit] = field(default_factory=list)
    end: int = 0
    """Of the arrivals' partition."""
    open_ms: int = 0

    def __post_init__(self) -> None:
        self.material = Material(self.objects, documents=DOCUMENTS, missing_s=0)
        self.restart()

    def restart(self) -> None:
        self.timers = Timers(self.tables, ARRIVALS, QUIET_MS, self.publish, self.ends, open_ms=self.open_ms)
        self.worker = Worker(
            self.tables,
            Projector(self.tables, self.material, SECRETS),
            self.timers,
            DeadLetters(self.objects, DOCUMENTS, b"k" * 32).keep,
            self.publish,
            source="/worker/TEST/1",
            quiet_ms=QUIET_MS,
            open_ms=self.open_ms,
        )

    async def publish(self, emits: Sequence[Emit]) -> None:
        self.emitted += emits

    async def ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        return dict.fromkeys(partitions, self.end)

    def handle(self, *records: Stored) -> list[Position]:
        self.end = max([self.end, *(r.position.offset + 1 for r in records)])
        return list(run(self.worker.handle(records)))

    def kinds(self) -> list[str]:
        found = [type(e.event).__name__ for e in self.emitted]
        self.emitted.clear()
        return found

    def position(self, projection: str = "views") -> int:
        where = {"projection": projection, "topic": ARRIVALS, "partition": 0}
        found: int = run(self.tables.select(Select("projection_positions", where)))[0]["next_offset"]
        return found


def arrival(archive: Archive, n: int, offset: int, at: int = 0, study: str = "1.2.3") -> Stored:
    return stored(Pack(n, (("1", str(n), str(n)),), study=study).put(archive.objects), offset, at_ms=T0 + at)


def test_a_batch_is_projected_decided_and_positioned() -> None:
    archive = Archive()
    assert archive.handle(arrival(archive, 0, 5), arrival(archive, 1, 6)) == []
    assert archive.kinds() == ["PatientSeen"]
    assert archive.position() == 7
    assert archive.position("completeness") == 5


FAILED = {
    "delivery_id": "01953fcb-9c00-7000-8000-000000000001",
    "destination": "ehr",
    "attempt": 1,
    "occurred": NOW,
    "reason": "not-reachable",
    "will_retry": True,
}


@pytest.mark.parametrize(
    "event",
    [
        msgspec.convert({**FAILED, "report_id": FAILED["delivery_id"], "version": 1}, ReportDeliveryFailed),
        msgspec.convert({**FAILED, "study_uid": "1.2.3"}, StudyDeliveryFailed),
    ],
    ids=lambda e: e.TYPE,
)
def test_what_is_not_projected_is_passed(event: Event) -> None:
    """A health record that is away makes many of these."""
    archive = Archive()
    assert archive.handle(stored(event, 5), stored(event, 6)) == []
    assert archive.kinds() == [], "nothing is emitted, nothing is a dead letter"
    rows = {table: found for table, found in run(dump(archive.tables)).items() if found}
    assert list(rows) == ["projection_positions"]
    assert [r["next_offset"] for r in rows["projection_positions"] if r["projection"] == "views"] == [7]


def test_quiet_completes_once_and_a_late_arrival_reopens() -> None:
    archive = Archive()
    archive.handle(arrival(archive, 0, 5))
    archive.kinds()
    assert run(archive.timers.tick(T0 + QUIET_MS - 1)) == 0
    assert run(archive.timers.tick(T0 + QUIET_MS)) == 1
    (done,) = archive.emitted
    assert isinstance(done.event, StudyCompleted)
    assert (done.event.basis, done.event.revision) == (QUIET, 6)
    assert run(archive.timers.tick(T0 + 9 * QUIET_MS)) == 0
    archive.kinds()
    # Early by the log's time, but it was told complete: it is reopened all the same.
    archive.handle(arrival(archive, 1, 6, at=QUIET_MS - 5))
    assert archive.kinds() == ["StudyReopened"]


def test_the_clock_counts_only_at_the_end_of_the_log() -> None:
    archive = Archive()
    archive.handle(arrival(archive, 0, 5))
    archive.end = 9  # more is in the log, perhaps of this study
    archive.kinds()
    assert run(archive.timers.tick(T0 + 9 * QUIET_MS)) == 0
    archive.handle(arrival(archive, 1, 6, at=QUIET_MS, study="1.2.4"))
    assert run(archive.timers.tick(T0 + 9 * QUIET_MS)) == 1, "the log's own time has passed"


def test_a_restart_between_last_arrival_and_quiet_time_forgets_nothing() -> None:
    archive = Archive()
    for n in range(3):
        archive.handle(arrival(archive, n, n, at=n * 200_000, study=f"1.2.{n}"))
    run(archive.timers.tick(T0 + 400_000))
    run(archive.timers.settle())
    assert archive.position("completeness") == 2
    archive.kinds()
    archive.restart()
    run(archive.timers.assigned([0]))
    assert run(archive.timers.tick(T0 + 400_000 + QUIET_MS)) >= 1
    assert "1.2.2" in {e.event.key() for e in archive.emitted}


def test_a_partition_that_was_let_go_is_not_told() -> None:
    archive = Archive()
    archive.handle(arrival(archive, 0, 5))
    archive.timers.revoked([0])
    assert run(archive.timers.tick(T0 + 9 * QUIET_MS)) == 0


def test_what_cannot_be_processed_is_buried_and_the_rest_goes_on() -> None:
    archive = Archive()
    bad = arrival(archive, 0, 0)
    bad = Stored(bad.position, bad.timestamp_ms, bad.key, bad.headers, b'{"pack_id":"x"}')
    lost = stored(msgspec.structs.replace(Pack(1).put(archive.objects), manifest_key="gone"), 1, at_ms=T0)
    assert archive.handle(bad, lost, arrival(archive, 2, 2)) == []
    letters = [e.event for e in archive.emitted if isinstance(e.event, DeadLetter)]
    assert [(x.origin_offset, x.reason) for x in letters] == [(0, "schema-violation"), (1, "manifest-missing")]
    for letter in letters:
        sealed = archive.objects.get(DOCUMENTS, letter.payload_key)
        assert b"pack_id" not in sealed, "the payload is encrypted"
    assert archive.position() == 3
    again = [e.id for e in archive.emitted]
    archive.handle(bad, lost)
    assert {e.id for e in archive.emitted if isinstance(e.event, DeadLetter)} <= set(again)


class Newer(Event, frozen=True, kw_only=True):
    """A fact of a later build."""

    TYPE = "study.unheard-of.v9"
    TOPIC = "study.arrivals"

    def key(self) -> str:
        return "1.2.3"


def test_an_unknown_type_stops_its_partition_and_no_other() -> None:
    archive = Archive()
    record = encode(Newer(), id="x", source="/t/1", time="2025-03-01T08:00:00Z")
    unknown = Stored(Position(ARRIVALS, 0, 1), T0, record.key, record.headers, record.value)
    other = stored(Pack(7, study="1.2.9").put(archive.objects), 0, partition=3)
    before, behind = arrival(archive, 0, 0), arrival(archive, 1, 2)
    assert archive.handle(before, unknown, behind, other) == [Position(ARRIVALS, 0, 1)]
    assert archive.position() == 1, "what is behind is not applied"
    studies = run(dump(archive.tables))["studies"]
    assert [(s["study_uid"], s["pack_count"]) for s in studies] == [("1.2.3", 1), ("1.2.9", 1)]


def test_a_rebuild_gives_the_same_tables_and_passes_over_the_buried() -> None:
    archive, log = Archive(), MemoryLog(partitions=1)
    events: list[Event] = [Pack(n, (("1", str(n), str(n)),)).put(archive.objects) for n in range(3)]
    assert isinstance(events[1], PackStored)
    events[1] = msgspec.structs.replace(events[1], manifest_key="gone")
    for n, event in enumerate(events):
        log.append(encode(event, id=f"id-{n}", source="/t/1", time="2025-03-01T08:00:00Z")).result()

    def work() -> None:
        """The worker, over everything that is on the log by now; what it emits goes there."""
        for topic in ("sijil.study.arrivals", "sijil.patients"):
            records = list(log.read(topic, {}, log.ends(topic)))
            if records:
                archive.handle(*records)
            for emit in archive.emitted:
                log.append(
                    encode(emit.event, id=emit.id, source="/worker/TEST/1", time="2025-03-01T08:00:00Z")
                ).result()
            archive.emitted.clear()

    work()
    run(archive.timers.settle())
    other = archive.tables.with_keyspace("sijil_views_2")

    async def rebuild() -> int:
        done = await Replay(log, Projector(other, archive.material, SECRETS)).run()
        await settle(other)
        assert not done.lost
        return done.passed_over

    assert run(rebuild()) == 1
    assert run(dump(other)) == run(dump(archive.tables))
    archive.objects.delete("sijil-packs", events[2].manifest_key)  # type: ignore[attr-defined]
    third = archive.tables.with_keyspace("sijil_views_3")
    lost = run(Replay(log, Projector(third, archive.material, SECRETS)).run()).lost
    assert [p.offset for p in lost] == [2]
