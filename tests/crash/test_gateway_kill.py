"""SIGKILL of a gateway in each gap between its steps: what was acknowledged is in S3 and named in Kafka, byte for byte.

One gateway process of its own on the session's servers. The sender is a good one: what was not acknowledged it sends
again. At the end the set of acknowledged instances equals the set that the events and packs give.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.settings import Role, Settings
from schemas.envelope import decode
from schemas.events import PackStored
from schemas.pack import decode_manifest
from tests.local_stack import LocalStack, superuser
from tests.packs import tar_of
from tests.stack.raw_scu import RawScu
from tests.unit.producers.samples import dataset, dataset_offset, file

pytestmark = [pytest.mark.connected, pytest.mark.slow]

TOPIC = "sijil.study.arrivals"
STUDIES, SLICES = 3, 6
START_S = 90.0

POINTS = (
    "spool.after-fsync:4",  # fsync → answer
    "publish.after-seal:2",  # fsync → upload
    "publish.after-manifest:1",  # object and manifest made → upload
    "publish.after-upload:1",  # upload → event
    "chain.after-fsync:1",  # event kept → event sent
    "publish.after-event:1",  # event → acknowledgement
    "chain.after-ack:1",  # acknowledgement → known to the chain
    "publish.after-acknowledgement:2",  # acknowledgement → commit
)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Process:
    """A door as a process that is killed and started again, over one spool and one chain."""

    def __init__(self, stack: LocalStack, role: Role, folder: Path, instance: str) -> None:
        self.role, self.folder = role, folder
        self.program: tuple[str, ...] = ("-m", "infra.cli")
        self.port, self.health = free_port(), free_port()
        named = {"SIJIL_DICOM_PORT": self.port, "SIJIL_GATEWAY_HEALTH_PORT": self.health}
        if role == "api":
            named = {"SIJIL_HTTP_PORT": self.port}
            self.health = self.port
        if role == "hl7":
            named = {"SIJIL_HL7_PORT": self.port, "SIJIL_HL7_HEALTH_PORT": self.health}
        self.environment = {
            **stack.environment,
            **{k: str(v) for k, v in named.items()},
            "SIJIL_INSTANCE": instance,
            "SIJIL_SPOOL_DIR": str(folder / "spool"),
            "SIJIL_PACK_IDLE_S": "0.5",
            "SIJIL_PACK_RELEASE_S": "0.2",
        }
        self.settings = Settings.load(role, self.environment)
        self._running: subprocess.Popen[bytes] | None = None

    def start(self, fault: str = "") -> None:
        with (self.folder / "log").open("ab") as log:
            self._running = subprocess.Popen(
                [sys.executable, *self.program, self.role],
                env={**self.environment, "SIJIL_FAULT": fault},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._running.poll() is None, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        raise AssertionError("the door did not open")

    def alive(self) -> bool:
        return self._running is not None and self._running.poll() is None

    def killed(self, within_s: float = 30.0) -> bool:
        """Whether it has died of SIGKILL."""
        assert self._running is not None
        with suppress(subprocess.TimeoutExpired):
            return self._running.wait(within_s) == -signal.SIGKILL
        return False

    def drained(self) -> bool:
        answer = httpx.get(f"http://127.0.0.1:{self.health}/health/ready", timeout=10).json()
        return bool(answer["spool_backlog"] == 0 and answer["chain_backlog"] == 0)

    def end(self) -> None:
        if self._running is not None:
            self._running.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._running.wait(30)
            self._running.kill()
            self._running.wait()


class Sender(Protocol):
    def __call__(self, process: Process, study: str, sop: str) -> bool:
        """Whether the instance was acknowledged."""


def by_c_store(process: Process, study: str, sop: str) -> bool:
    try:
        with RawScu(process.port) as scu:
            status = scu.store(sop, dataset(sop, study=study, pixels=sop.encode() * 100))
            scu.release()
    except OSError:
        return False
    return status == 0


def by_stow(process: Process, study: str, sop: str) -> bool:
    data = file(sop, study=study, pixels=sop.encode() * 100)
    try:
        answer = httpx.post(
            f"http://127.0.0.1:{process.port}/dicom-web/studies/{study}",
            content=data,
            headers={"Content-Type": "application/dicom"},
            timeout=20,
        )
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def sha256(sop: str, study: str) -> str:
    data = file(sop, study=study, pixels=sop.encode() * 100)
    return hashlib.sha256(data[dataset_offset(data) :]).hexdigest()


def archived(settings: Settings, source: str) -> list[tuple[str, str]]:
    """(study, dataset's SHA-256) of each instance of each pack that this source has published; every byte is read."""
    log, objects = KafkaLog(superuser(settings)), S3Objects(settings)
    try:
        packs: dict[str, PackStored] = {}
        ids: dict[str, str] = {}
        for record in log.read(TOPIC, {}, log.ends(TOPIC)):
            envelope = decode(TOPIC, record.key, record.headers, record.value)
            if envelope.source == source and isinstance(envelope.event, PackStored):
                # A second event of one pack has the same id and says the same.
                assert packs.setdefault(envelope.event.pack_id, envelope.event) == envelope.event
                assert ids.setdefault(envelope.event.pack_id, envelope.id) == envelope.id
        found = []
        for event in packs.values():
            data = objects.get(event.bucket, event.pack_key)
            assert hashlib.sha256(data).hexdigest() == event.pack_sha256
            tar = tar_of(event.pack_key, data)
            for i in decode_manifest(objects.get(event.bucket, event.manifest_key)).instances:
                digest = hashlib.sha256(tar[i.offset + i.dataset_offset : i.offset + i.length]).hexdigest()
                assert digest == i.sha256
                found.append((event.study_uid, digest))
        return found
    finally:
        log.close()


def send_all(process: Process, send: Sender, work: list[tuple[str, str]], *, give_up: bool) -> list[tuple[str, str]]:
    """What was acknowledged; with `give_up` the sender stops when the door is gone."""
    acknowledged: list[tuple[str, str]] = []
    for study, sop in work:
        while not (done := send(process, study, sop)):
            if not process.alive():
                assert give_up
                return acknowledged
            time.sleep(0.1)
        if done:
            acknowledged.append((study, sop))
    return acknowledged


def run(stack: LocalStack, tmp_path: Path, role: Role, send: Sender, fault: str) -> None:
    instance = f"{os.getpid()}-{time.time_ns()}"
    process = Process(stack, role, tmp_path, instance)
    work = [
        (f"1.2.826.{n}.{instance.replace('-', '.')}", f"1.2.{n}.{k}") for n in range(STUDIES) for k in range(SLICES)
    ]
    try:
        process.start(fault)
        acknowledged = send_all(process, send, work, give_up=True)
        assert process.killed(), f"{fault} was never passed"
        process.start()
        rest = [w for w in work if w not in acknowledged]
        acknowledged += send_all(process, send, rest, give_up=False)
        assert sorted(acknowledged) == sorted(work)
        deadline = time.monotonic() + 60
        while not process.drained():
            assert time.monotonic() < deadline, "the spool is not drained"
            time.sleep(0.2)
    finally:
        process.end()
    found = archived(process.settings, f"/{role}/LOCAL/{instance}")
    # Every acknowledged instance once, or twice where its first acknowledgement was lost: never another content.
    assert set(found) == {(study, sha256(sop, study)) for study, sop in work}
    assert len(found) <= len(work) + 1
    assert list((tmp_path / "spool" / "incoming").iterdir()) == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize("fault", POINTS)
def test_the_dicom_door_killed(stack: LocalStack, tmp_path: Path, fault: str) -> None:
    run(stack, tmp_path, "gateway", by_c_store, fault)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("fault", POINTS[:3])
def test_the_http_door_killed(stack: LocalStack, tmp_path: Path, fault: str) -> None:
    run(stack, tmp_path, "api", by_stow, fault)
