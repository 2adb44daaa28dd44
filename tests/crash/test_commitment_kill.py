"""A storage commitment over a SIGKILL: with S3 out of reach there is no report, and after all is back there is one.

One gateway process on the session's servers; S3 is "stopped" for it alone, by a relay on its way there.
"""

from __future__ import annotations

import hashlib
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from producers.commitment.queue import CommitmentQueue
from tests.crash.test_gateway_kill import Process, archived, free_port, sha256
from tests.local_stack import LocalStack
from tests.stack.commitment_scu import Modality
from tests.stack.raw_scu import RawScu
from tests.unit.producers.samples import dataset

pytestmark = [pytest.mark.connected, pytest.mark.slow]


class Relay:
    """Passes connections on to a port while it is `open`."""

    def __init__(self, target: int) -> None:
        self.open = True
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Cut what is open and pass nothing on any more."""
        self.open = False
        for s in self._sockets:
            with suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def close(self) -> None:
        self.stop()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                if not self.open:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for s in (source, target):
            s.close()


@pytest.mark.timeout(300)
def test_a_commitment_survives_a_kill_and_waits_for_s3(stack: LocalStack, tmp_path: Path) -> None:
    instance = f"{os.getpid()}-{time.time_ns()}"
    title = f"MOD{free_port()}"
    process = Process(stack, "gateway", tmp_path, instance)
    relay = Relay(urlsplit(process.settings.s3_endpoint).port or 0)
    process.environment["SIJIL_S3_ENDPOINT"] = f"http://127.0.0.1:{relay.port}"
    process.environment["SIJIL_HOME"] = str(stack.home)
    study = f"1.2.826.{instance.replace('-', '.')}"
    sops = [f"{study}.{n}" for n in range(3)]
    with Modality(title) as modality:
        added = stack.sijil("ae", "add", title, "127.0.0.1", str(modality.port))
        assert added.returncode == 0, added.stderr
        try:
            process.start()
            relay.stop()
            with RawScu(process.port) as scu:
                for sop in sops:
                    assert scu.store(sop, dataset(sop, study=study, pixels=sop.encode() * 100)) == 0
                scu.release()
            assert modality.ask(process.port, f"{study}.9", sops) == 0
            with pytest.raises(queue.Empty):
                modality.report(2.0)
            running = process._running
            assert running is not None
            running.send_signal(signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                running.wait(20)
            assert len(list((tmp_path / "spool" / "commitments").iterdir())) == 1
            relay.open = True
            process.start()
            report = modality.report(60.0)
        finally:
            process.end()
            relay.close()
    assert (report.transaction, report.committed, report.failed) == (f"{study}.9", sops, {})
    assert report.scp_proposed
    # What was reported is true: the bytes are in S3, and Kafka has the event.
    found = archived(stack.settings("gateway"), f"/gateway/LOCAL/{instance}")
    assert set(found) == {(study, sha256(sop, study)) for sop in sops}


@pytest.mark.timeout(200)
def test_a_result_is_reported_after_a_kill_before_it_and_again_after_one_behind_it(
    stack: LocalStack, tmp_path: Path
) -> None:
    """Outcome durable → reported → removed: reported twice is harmless, not reported is not."""
    instance = f"{os.getpid()}-{time.time_ns()}"
    process = Process(stack, "gateway", tmp_path, instance)
    process.environment["SIJIL_HOME"] = str(stack.home)
    study = f"1.2.826.{instance.replace('-', '.')}"
    with Modality(f"MOD{free_port()}") as modality:
        added = stack.sijil("ae", "add", modality.title, "127.0.0.1", str(modality.port))
        assert added.returncode == 0, added.stderr
        waiting = CommitmentQueue(tmp_path / "spool" / "commitments")
        try:
            process.start("commitment.after-outcome")
            with RawScu(process.port) as scu:
                assert scu.store(f"{study}.1", dataset(f"{study}.1", study=study)) == 0
                scu.release()
            assert modality.ask(process.port, f"{study}.9", [f"{study}.1"]) == 0
            assert process.killed(), "there was no outcome"
            assert modality.reports.empty()
            ((_, transaction),) = waiting.load()
            assert transaction.outcome is not None
            process.start("commitment.after-report")
            report = modality.report(30.0)
            assert process.killed(), "it was not reported"
            assert len(list(waiting.load())) == 1
            process.start()
            again = modality.report(30.0)
            deadline = time.monotonic() + 60
            while list(waiting.load()):
                assert time.monotonic() < deadline, "the transaction is not removed"
                time.sleep(0.05)
        finally:
            process.end()
        assert modality.reports.empty()
    for one in (report, again):
        assert (one.transaction, one.committed, one.failed) == (f"{study}.9", [f"{study}.1"], {})
    found = archived(stack.settings("gateway"), f"/gateway/LOCAL/{instance}")
    assert set(found) == {(study, hashlib.sha256(dataset(f"{study}.1", study=study)).hexdigest())}
