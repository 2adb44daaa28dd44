"""SIGKILL of each part while two senders are at work: what was acknowledged is there, once, byte for byte.

The senders behave as good devices do: what was not acknowledged is sent again. The supervisor brings the part back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.archive import Archive, dataset, sha256, wait_until
from tests.bench.corpus import Instance, make_ct

pytestmark = [pytest.mark.connected, pytest.mark.slow]

SLICES = 40
PARTS = ("kafka", "cassandra", "seaweedfs", "gateway", "api", "worker", "archiver", "delivery")


@dataclass
class Sender:
    """Sends a study slice by slice until each is acknowledged. `send` says whether one was."""

    study: list[Instance]
    send: Callable[[Instance], bool]
    acknowledged: set[str] = field(default_factory=set)
    attempts: int = 0

    def run(self) -> None:
        for instance in self.study:
            while instance.sop not in self.acknowledged and self.attempts < 2000:
                self.attempts += 1
                if self.send(instance):
                    self.acknowledged.add(instance.sop)
                else:
                    time.sleep(0.2)


def by_stow(archive: Archive) -> Callable[[Instance], bool]:
    def send(instance: Instance) -> bool:
        try:
            answer = archive.stow([instance.path.read_bytes()])
        except httpx.HTTPError:
            return False
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200

    return send


def by_storescu(archive: Archive) -> Callable[[Instance], bool]:
    return lambda instance: archive.storescu([instance.path]).returncode == 0


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", PARTS)
def test_kill_under_load(archive: Archive, tmp_path: Path, part: str) -> None:
    archive.wait_ready()
    studies = make_ct(tmp_path, studies=2, slices=SLICES, seed=time.time_ns() // 1000 % 10**9, rows=64)
    senders = (Sender(studies[0], by_stow(archive)), Sender(studies[1], by_storescu(archive)))
    threads = [threading.Thread(target=s.run) for s in senders]
    for t in threads:
        t.start()
    wait_until(lambda: all(len(s.acknowledged) > SLICES // 4 for s in senders), 60, "both senders are under way")
    killed = archive.kill(part)
    for t in threads:
        t.join(180)
        assert not t.is_alive(), "a sender could not finish"
    wait_until(lambda: archive.parts()[part].pid not in (None, killed), 60, f"{part} is back")
    archive.wait_ready()
    wait_until(archive.drained, 90, "the spools are drained")

    for sender, study in zip(senders, studies, strict=True):
        uid = study[0].study
        assert sender.acknowledged == {i.sop for i in study}
        wait_until(lambda uid=uid: archive.instance_count(uid) == SLICES, 60, "every slice is counted")  # type: ignore[misc]
        listed = archive.instance_uids(uid)
        assert sorted(listed) == sorted(i.sop for i in study), "each slice once"
        for i in study:
            kept = archive.original(i.study, i.series, i.sop)
            assert sha256(dataset(kept)) == sha256(dataset(i.path.read_bytes())), i.sop
