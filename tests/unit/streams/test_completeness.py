"""What arrivals and quiet decide."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from infra.memory import MemoryObjects, MemoryTables
from schemas.events import PatientSeen, StudyCompleted, StudyReopened
from schemas.tables import Upsert
from streams.arrivals import decide, fold
from streams.completeness import completed
from streams.effects import Emit
from streams.projections import lifecycle
from tests.unit.streams.samples import KEYS, T0, Pack, dump, fact, run

QUIET_MS = 60_000


def decided(times: Sequence[int], known: Collection[int] = (), split: int = 0) -> list[Emit]:
    """Of arrivals of one study at offsets 10, 11, … In two batches when `split` is given."""
    objects = MemoryObjects()
    packs = [Pack(n, (("1", str(n), str(n)),)) for n in range(len(times))]
    facts = [fact(p.put(objects), 10 + n, at_ms=T0 + t) for n, (p, t) in enumerate(zip(packs, times, strict=True))]
    manifests = {f.offset: p.manifest for f, p in zip(facts, packs, strict=True)}
    first = fold(facts[:split], (), manifests, KEYS) if split else None
    before = first.arrivals[-1].rows if first else ()
    emits = decide(first, QUIET_MS, known) if first else []
    return emits + decide(fold(facts[split:], before, manifests, KEYS), QUIET_MS, known)


def kinds(emits: Sequence[Emit]) -> list[str]:
    return [type(e.event).__name__ for e in emits]


def test_a_first_arrival_sees_a_patient_and_nothing_else() -> None:
    assert kinds(decided([0])) == ["PatientSeen"]
    assert kinds(decided([0, 10, 59_999])) == ["PatientSeen"]


def test_an_arrival_after_the_quiet_time_completes_and_reopens() -> None:
    emits = decided([0, 10, 60_010])
    assert kinds(emits) == ["PatientSeen", "StudyCompleted", "StudyReopened"]
    _, done, again = (e.event for e in emits)
    assert isinstance(done, StudyCompleted)
    assert (done.revision, done.as_of_offset, done.instances, done.packs) == (12, 11, 2, 2)
    assert (done.first_arrival, done.last_arrival) == ("2025-03-01T08:00:00.000Z", "2025-03-01T08:00:00.010Z")
    assert isinstance(again, StudyReopened)
    assert (again.revision, again.offset) == (12, 12)


def test_a_completion_that_is_known_is_not_sent_again_but_reopened() -> None:
    assert kinds(decided([0, 60_000], known={10})) == ["PatientSeen", "StudyReopened"]
    # Completed on another basis, or by a clock ahead of the broker's: still no longer complete.
    assert kinds(decided([0, 5], known={10})) == ["PatientSeen", "StudyReopened"]


def test_any_split_decides_the_same_with_the_same_ids() -> None:
    times = [0, 10, 70_000, 70_001, 200_000]
    for split in range(len(times)):
        assert decided(times, split=split) == decided(times)
    assert len({e.id for e in decided(times)}) == len(decided(times))


def test_quiet_and_a_late_arrival_decide_the_same_completion() -> None:
    objects = MemoryObjects()
    facts = [fact(Pack(n).put(objects), 10 + n, at_ms=T0 + 60_000 * n) for n in range(2)]
    rows = fold(facts, (), {10 + n: Pack(n).manifest for n in range(2)}, KEYS).arrivals[0].rows
    (late,) = [e for e in decided([0, 60_000]) if isinstance(e.event, StudyCompleted)]
    assert completed(0, rows).id == late.id


def test_a_patient_is_seen_once_per_study() -> None:
    emits = decided([0, 1, 2], split=2)
    assert [e.event.pack_id for e in emits if isinstance(e.event, PatientSeen)] == [Pack(0).manifest.pack.pack_id]


def test_a_lower_revision_changes_nothing_and_takes_only_its_own_timer() -> None:
    objects, tables = MemoryObjects(), MemoryTables()
    facts = [fact(Pack(n, (("1", str(n), ""),)).put(objects), 10 + n, at_ms=T0 + 70_000 * n) for n in range(2)]
    manifests = {10 + n: Pack(n, (("1", str(n), ""),)).manifest for n in range(2)}
    folded = fold(facts, (), manifests, KEYS)
    first, second = (completed(0, a.rows) for a in folded.arrivals)

    async def told(*emits: Emit) -> tuple[int | None, int]:
        await tables.apply(folded.writes)
        for offset, emit in enumerate(emits):
            assert isinstance(emit.event, StudyCompleted)
            await tables.apply(lifecycle.completed(fact(emit.event, offset), emit.event))
        rows = await dump(tables)
        return rows["studies"][0]["completed_revision"], len(rows["pending_studies"])

    assert run(told()) == (None, 1)
    assert run(told(first)) == (11, 1), "the later arrival still waits"
    assert run(told(first, second)) == (12, 0)
    assert run(told(first, second, first)) == (12, 0)


def test_timers_are_upserts_of_the_last_arrival_alone() -> None:
    objects = MemoryObjects()
    facts = [fact(Pack(n).put(objects), n, at_ms=T0 + n) for n in range(3)]
    writes = fold(facts, (), {n: Pack(n).manifest for n in range(3)}, KEYS).writes
    pending = [w for w in writes if w.table == "pending_studies"]
    assert [isinstance(w, Upsert) for w in pending] == [True, False, True, False, True]
