"""Completeness by what devices say: at once when all they list has come, later while they are at work."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schemas.events import StepEnded, StepStarted, StudyCompleted
from schemas.steps import StepDocument, document_key, encode_step
from schemas.tables import Upsert, Write
from streams.completeness import MPPS, ORDER, QUIET
from streams.expected import Step, waits_ms
from streams.timers import HELD_MS
from tests.unit.streams.samples import DOCUMENTS, T0, dump, run, stored
from tests.unit.streams.test_worker import QUIET_MS, Archive, arrival

OPEN_MS = 10 * QUIET_MS
STUDY = "1.2.3"


@dataclass
class Site(Archive):
    """A worker, and a device that speaks MPPS. Its steps' records have offsets of their own topic."""

    open_ms: int = OPEN_MS
    said: int = 0

    def step(self, status: str, sops: Sequence[str] = (), uid: str = "1.9.1") -> None:
        """What the device says is handled like any record."""
        images = [{"00081155": {"vr": "UI", "Value": [sop]}} for sop in sops]
        series = {"0020000E": {"vr": "UI", "Value": [f"{STUDY}.1"]}, "00081140": {"vr": "SQ", "Value": images}}
        scheduled = {"0020000D": {"vr": "UI", "Value": [STUDY]}, "00080050": {"vr": "SH", "Value": ["A-1"]}}
        self.said += 1
        document = StepDocument(
            step_uid=uid,
            version=self.said,
            site="CAIRO-1",
            calling_ae="CT1",
            recorded="2025-03-01T08:00:00Z",
            dataset={
                "00400270": {"vr": "SQ", "Value": [scheduled]},
                "00400340": {"vr": "SQ", "Value": [series]},
                "00400252": {"vr": "CS", "Value": [status]},
            },
        )
        data = encode_step(document)
        digest, key = hashlib.sha256(data).hexdigest(), document_key(uid, self.said)
        self.objects.put(DOCUMENTS, key, data, sha256=digest)
        common: dict[str, Any] = {
            "step_uid": uid,
            "version": self.said,
            "study_uids": [STUDY],
            "site": "CAIRO-1",
            "station_ae": "CT1",
            "modality": "CT",
            "recorded": document.recorded,
            "bucket": DOCUMENTS,
            "document_key": key,
            "document_size": len(data),
            "document_sha256": digest,
        }
        event = (
            StepStarted(**common)
            if status == "IN PROGRESS"
            else StepEnded(**common, outcome=status.lower(), series=1, instances=len(sops))
        )
        assert run(self.worker.handle([stored(event, self.said, at_ms=T0)])) == []

    def bases(self) -> list[str]:
        """Of the completions told since the last call."""
        found = [e.event.basis for e in self.emitted if isinstance(e.event, StudyCompleted)]
        self.emitted.clear()
        return found


def sops(*numbers: int) -> list[str]:
    """SOP Instance UIDs of arrivals by their number."""
    return [f"{STUDY}.{n}" for n in numbers]


def test_a_study_is_complete_as_soon_as_all_that_is_listed_is_there() -> None:
    site = Site()
    first, second = arrival(site, 0, 5), arrival(site, 1, 6)
    listed = sops(0, 1)
    site.handle(first)
    site.step("IN PROGRESS")
    site.step("COMPLETED", listed)
    run(site.timers.tick(T0 + 10))
    assert site.bases() == [], "one of two is there"
    site.handle(second)
    run(site.timers.tick(T0 + 1100))
    assert site.bases() == [MPPS], "long before the quiet time"
    run(site.timers.tick(T0 + 9 * QUIET_MS))
    assert site.bases() == [], "once"


def test_what_is_heard_is_looked_at_in_the_same_moment() -> None:
    site = Site()
    site.handle(arrival(site, 0, 5))
    site.step("IN PROGRESS")
    run(site.timers.tick(T0 + 1))
    site.step("DISCONTINUED", sops(0))
    run(site.timers.tick(T0 + 2))
    assert site.bases() == [MPPS]


def test_an_open_step_holds_the_quiet_time_and_not_for_ever() -> None:
    site = Site()
    site.handle(arrival(site, 0, 5))
    site.step("IN PROGRESS")
    run(site.timers.tick(T0 + 2 * QUIET_MS))
    assert site.bases() == []
    # More comes after a pause in which the study was not called complete: nothing is reopened either.
    site.handle(arrival(site, 1, 6, at=3 * QUIET_MS))
    assert site.kinds() == []
    run(site.timers.tick(T0 + 3 * QUIET_MS + OPEN_MS - 1))
    assert site.bases() == []
    run(site.timers.tick(T0 + 3 * QUIET_MS + OPEN_MS + HELD_MS))
    assert site.bases() == [QUIET]


def test_a_step_that_ends_without_a_list_leaves_the_study_to_its_quiet_time() -> None:
    site = Site()
    site.handle(arrival(site, 0, 5))
    site.step("IN PROGRESS")
    run(site.timers.tick(T0 + 2 * QUIET_MS))
    site.step("COMPLETED")
    run(site.timers.tick(T0 + 2 * QUIET_MS + 1))
    assert site.bases() == [QUIET], "it was held, and is looked at at once"


def test_an_order_that_is_called_completed_is_the_basis() -> None:
    site = Site()
    site.handle(arrival(site, 0, 5), arrival(site, 1, 6, study="1.2.4"))
    writes: list[Write] = []
    for study, order, statuses in (("1.2.3", "o1", ("active", "completed")), ("1.2.4", "o2", ("completed",))):
        writes.append(Upsert("orders_by_study", {"study_uid": study, "order_id": order}, {"site": "S"}, 1))
        writes += [
            Upsert("orders", {"order_id": order, "version": n}, {"status": status}, n)
            for n, status in enumerate(statuses, 1)
        ]
    writes.append(Upsert("orders_by_study", {"study_uid": "1.2.4", "order_id": "o3"}, {"site": "S"}, 1))
    writes.append(Upsert("orders", {"order_id": "o3", "version": 1}, {"status": "active"}, 1))
    run(site.tables.apply(writes))
    run(site.timers.tick(T0 + QUIET_MS - 1))
    assert site.bases() == [], "it waits for its quiet time all the same"
    run(site.timers.tick(T0 + QUIET_MS))
    told = {e.event.study_uid: e.event.basis for e in site.emitted if isinstance(e.event, StudyCompleted)}
    assert told == {"1.2.3": ORDER, "1.2.4": QUIET}, "of two orders one is not done"


def test_of_two_steps_both_must_have_ended() -> None:
    site = Site()
    site.handle(arrival(site, 0, 5))
    site.step("IN PROGRESS")
    site.step("IN PROGRESS", uid="1.9.2")
    site.step("COMPLETED", sops(0))
    run(site.timers.tick(T0 + 5))
    assert site.bases() == []
    site.step("DISCONTINUED", uid="1.9.2")
    run(site.timers.tick(T0 + 6))
    assert site.bases() == [MPPS]


def test_a_worker_that_did_not_hear_looks_now_and_then() -> None:
    site = Site()
    site.handle(arrival(site, 0, 5))
    listed = sops(0)
    other = Site(site.tables, site.objects)
    other.step("COMPLETED", listed)
    run(site.timers.tick(T0 + 500))
    assert site.bases() == []
    run(site.timers.tick(T0 + 1000))
    assert site.bases() == [MPPS]


def test_instances_of_another_study_are_not_missed_for_ever() -> None:
    site = Site()
    site.handle(arrival(site, 0, 5))
    site.step("COMPLETED", [*sops(0), "1.2.77.1"])
    run(site.timers.tick(T0 + QUIET_MS - 1))
    assert site.bases() == []
    run(site.timers.tick(T0 + QUIET_MS))
    assert site.bases() == [QUIET]


def test_rows_of_steps_say_what_was_listed_and_by_whom() -> None:
    site = Site()
    site.step("IN PROGRESS")
    site.step("COMPLETED", ["1.1", "1.2", "1.2"])
    rows = run(dump(site.tables))
    (of_study,) = rows["steps_by_study"]
    assert (of_study["status"], of_study["instances"], of_study["started"]) == ("completed", 2, "2025-03-01T08:00:00Z")
    assert len(Step.read(of_study).sops) == 2
    (by_accession,) = rows["steps_by_accession"]
    assert (by_accession["site"], by_accession["accession"], by_accession["status"]) == ("CAIRO-1", "A-1", "completed")


def test_a_hold_shorter_than_the_quiet_time_is_none() -> None:
    assert waits_ms([Step(ended=False, sops=frozenset())], 60, 10) == 60
    assert waits_ms([Step(ended=True, sops=frozenset())], 60, 100) == 60
    assert waits_ms([], 60, 100) == 60
