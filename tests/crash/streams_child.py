"""A worker or an archiver of a test's own on the session's servers, and the log beside it."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from infra import clock
from infra.cassandra import CassandraTables
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.ports import Select
from infra.settings import Role, Settings
from schemas.envelope import decode, encode
from schemas.events import Event, PackStored
from schemas.topics import topic_of
from tests.local_stack import LocalStack, free_offset, superuser
from tests.unit.streams import samples

QUIET_S = 2
STARTED = clock.now_ms()
_numbers = itertools.count()


class Streams:
    """Processes of streams/ that die where they are told to."""

    def __init__(self, stack: LocalStack) -> None:
        offset = free_offset()
        self.environment = {
            **stack.environment,
            "SIJIL_QUIET_S": str(QUIET_S),
            "SIJIL_INSTANCE": "crash",
            "SIJIL_WORKER_HEALTH_PORT": str(8082 + offset),
            "SIJIL_ARCHIVER_HEALTH_PORT": str(8083 + offset),
        }
        self.settings = Settings.load("worker", self.environment)
        self.gateway = Settings.load("gateway", self.environment)
        self.objects, self.kafka = S3Objects(self.gateway), KafkaLog(superuser(self.gateway))

    def start(self, fault: str = "", role: Role = "worker") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "infra.cli", role]
        with (self.settings.home / "logs" / f"{role}-crash.log").open("ab") as log:
            return subprocess.Popen(command, env={**self.environment, "SIJIL_FAULT": fault}, stdout=log, stderr=log)

    def lives(self, role: Role = "worker") -> bool:
        """Whether the worker, or the archiver, has begun to follow the log."""
        port = self.settings.worker_health_port if role == "worker" else self.settings.archiver_health_port
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
        except httpx.HTTPError:
            return False

    @contextmanager
    def running(self, role: Role = "worker") -> Iterator[subprocess.Popen[bytes]]:
        process = self.start(role=role)
        try:
            yield process
            # What is waited for may have been done before it came: a SIGTERM to a starting interpreter kills it
            wait_for(lambda: self.lives(role))
        finally:
            process.terminate()
            assert process.wait(30) == 0, "SIGTERM ends it, cleanly and in time"

    def publish(self, *events: Event) -> None:
        now = clock.rfc3339(clock.now())
        records = [encode(e, id=str(clock.uuid7()), source="/test/CRASH/1", time=now) for e in events]
        for future in [self.kafka.append(r) for r in records]:
            future.result(30)

    def pack(self, study: str, sop: str = "") -> PackStored:
        """One more pack of a study, in S3 and on the log; `sop` names its instance, else a new one."""
        n = next(_numbers)
        instance = ("1", sop or str(n), str(n))
        pack = samples.Pack(STARTED - samples.T0 + n, (instance,), study=study, tar=os.urandom(2000))
        event = pack.put(self.objects)  # type: ignore[arg-type]
        self.publish(event)
        return event

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


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    """Until it is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.2)
