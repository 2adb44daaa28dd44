"""SIGKILL of the worker in each gap between its steps: after a restart rows and events are those of a clean run."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from infra import clock
from infra.ports import Select
from schemas.events import AccessDenied, PatientSeen, StudyCompleted, StudyReopened
from tests.crash.streams_child import QUIET_S, STARTED, Streams, wait_for
from tests.local_stack import LocalStack

pytestmark = [pytest.mark.connected, pytest.mark.slow]


@pytest.fixture(scope="module")
def worker(stack: LocalStack) -> Iterator[Streams]:
    made = Streams(stack)
    yield made
    made.kafka.close()


POINTS = ("worker.written", "worker.published", "worker.before-ack", "completeness.due", "completeness.published")


@pytest.mark.parametrize("point", POINTS)
def test_killed_between_two_steps(worker: Streams, point: str) -> None:
    uid = f"1.2.77.{STARTED}.{POINTS.index(point)}"
    worker.pack(uid)
    worker.pack(uid)
    doomed = worker.start(point)
    assert doomed.wait(90) == -9, f"it has to reach {point}"
    with worker.running():
        wait_for(lambda: worker.complete(uid, 2))
    assert len(set(worker.emitted(PatientSeen, uid))) == 1
    assert len(set(worker.emitted(StudyCompleted, uid))) == 1
    assert worker.emitted(StudyReopened, uid) == []


def test_killed_between_the_last_arrival_and_the_quiet_time(worker: Streams) -> None:
    uid = f"1.2.78.{STARTED}"
    worker.pack(uid)
    process = worker.start()
    wait_for(lambda: worker.study(uid).get("pack_count") == 1)
    process.kill()
    process.wait()
    time.sleep(QUIET_S)
    with worker.running():
        wait_for(lambda: worker.complete(uid, 1))
        worker.pack(uid)
        wait_for(lambda: worker.complete(uid, 2))
    assert len(set(worker.emitted(StudyReopened, uid))) == 1
    assert len(set(worker.emitted(StudyCompleted, uid))) == 2


def test_stop_under_load_is_quick_and_loses_nothing(worker: Streams) -> None:
    uid, count = f"1.2.79.{STARTED}", 3000
    refused = [
        AccessDenied(
            access_id=str(clock.uuid7()),
            actor="http:127.0.0.1",
            role="local",
            purpose="TREAT",
            action="retrieve",
            occurred="2025-03-01T08:00:00Z",
            reason="no-purpose",
            study_uid=uid,
        )
        for _ in range(count)
    ]
    worker.publish(*refused)
    query = Select("accesses_by_study", {"study_uid": uid}, ("access_id",))
    for _ in range(2):
        process = worker.start()
        wait_for(worker.lives)
        started = time.monotonic()
        process.terminate()
        assert process.wait(30) == 0
        assert time.monotonic() - started < 15
    with worker.running():
        wait_for(lambda: len(worker.select(query)) == count)
