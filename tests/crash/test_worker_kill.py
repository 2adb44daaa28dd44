"""SIGKILL of the worker in each gap between its steps: after a restart rows and events are those of a clean run."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from infra import clock
from infra.cassandra import CassandraTables
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.ports import Select
from infra.settings import Settings
from schemas.envelope import decode, encode
from schemas.events import AccessDenied, Event, PatientSeen, StudyCompleted, StudyReopened
from schemas.topics import topic_of
from tests.local_stack import LocalStack, free_offset
from tests.unit.streams import samples

pytestmark = [pytest.mark.connected, pytest.mark.slow]

QUIET_S = 2
STARTED = clock.now_ms()
_numbers = itertools.count()


class Worker:
    """A worker of its own on the session's servers, and the log beside it."""

    def __init__(self, stack: LocalStack) -> None:
        self.environment = {
            **stack.environment,
            "SIJIL_QUIET_S": str(QUIET_S),
            "SIJIL_INSTANCE": "crash",
            "SIJIL_WORKER_HEALTH_PORT": str(8082 + free_offset()),
        }
        self.settings = Settings.load("worker", self.environment)
        self.gateway = Settings.load("gateway", self.environment)
        self.objects, self.kafka = S3Objects(self.gateway), KafkaLog(self.gateway)

    def start(self, fault: str = "") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "infra.cli", "worker"]
        with (self.settings.home / "logs" / "worker-crash.log").open("ab") as log:
            return subprocess.Popen(command, env={**self.environment, "SIJIL_FAULT": fault}, stdout=log, stderr=log)

    def lives(self) -> bool:
        """Whether it has begun to follow the log."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.settings.worker_health_port}/health/ready").status_code == 200
        except httpx.HTTPError:
            return False

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        process = self.start()
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(30) == 0, "SIGTERM ends it, cleanly and in time"

    def publish(self, *events: Event) -> None:
        now = clock.rfc3339(clock.now())
        records = [encode(e, id=str(clock.uuid7()), source="/test/CRASH/1", time=now) for e in events]
        for future in [self.kafka.append(r) for r in records]:
            future.result(30)

    def pack(self, study: str) -> None:
        """One more pack of a study, in S3 and on the log."""
        n = next(_numbers)
        pack = samples.Pack(STARTED - samples.T0 + n, (("1", str(n), str(n)),), study=study)
        self.publish(pack.put(self.objects))  # type: ignore[arg-type]

    def select(self, query: Select) -> list[dict[str, Any]]:
        tables = CassandraTables.connect(self.settings)
        try:
            return asyncio.run(tables.select(query))
        finally:
            tables.close()

    def study(self, uid: str) -> dict[str, Any]:
        found = self.select(Select("studies", {"study_uid": uid}))
        return found[0] if found else {}

    def complete(self, uid: str, packs: int) -> bool:
        row = self.study(uid)
        whole = row.get("pack_count") == packs and row["instance_count"] == packs
        return whole and row["completed_revision"] == row["last_offset"] + 1

    def emitted(self, kind: type[Event], uid: str) -> list[str]:
        """Ids of events of a type about a study, as often as they are on the log."""
        topic = topic_of(kind)
        found = []
        for record in self.kafka.read(topic, {}, self.kafka.ends(topic)):
            envelope = decode(topic, record.key, record.headers, record.value)
            if isinstance(envelope.event, kind) and getattr(envelope.event, "study_uid", "") == uid:
                found.append(envelope.id)
        return found


@pytest.fixture(scope="module")
def worker(stack: LocalStack) -> Iterator[Worker]:
    made = Worker(stack)
    yield made
    made.kafka.close()


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.2)


POINTS = ("worker.written", "worker.published", "worker.before-ack", "completeness.due", "completeness.published")


@pytest.mark.parametrize("point", POINTS)
def test_killed_between_two_steps(worker: Worker, point: str) -> None:
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


def test_killed_between_the_last_arrival_and_the_quiet_time(worker: Worker) -> None:
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


def test_stop_under_load_is_quick_and_loses_nothing(worker: Worker) -> None:
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
