"""The outbox of access events: Kafka away it is enough; full, on a full disk or on a broken one nothing leaves.

The journal is the real one, on a real filesystem that is too small where this machine lets a test mount one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from consumers.api import audit
from infra.chain import ChainedLog
from infra.http_problems import ACCESS_HEADER
from infra.memory import MemoryLog
from schemas.envelope import decode
from tests.unit.consumers.archive import Journal, MemoryArchive, part10

CANARY = "Canary"
FILESYSTEM_KB = 64
READS = 120
"""More grants than fit there."""


@pytest.fixture
def archive() -> MemoryArchive:
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1", PatientName=f"{CANARY}^Name")])
    return archive


def chain_of(archive: MemoryArchive, folder: Path, **changed: Any) -> ChainedLog:
    """A real chain of this archive."""
    log = MemoryLog()
    options: dict[str, Any] = {"backlog_max": 100_000, "anchors": None, **changed}
    chain = ChainedLog(log, folder, "/api/LOCAL/1", **options)
    archive.log = log
    archive.journal = cast(Journal, chain)
    return chain


def searched(
    archive: MemoryArchive, times: int, between: Callable[[int], None] = lambda n: None
) -> list[httpx.Response]:
    """So many searches, one after the other: each is an event."""

    async def run() -> list[httpx.Response]:
        async with archive.client() as client:
            found = []
            for n in range(times):
                between(n)
                found.append(await client.get("/dicom-web/studies?PatientID=P-77"))
            return found

    return asyncio.run(run())


def refused(answer: httpx.Response) -> bool:
    """Whether it is a 503 that says when to come again, without any data."""
    assert answer.status_code in (200, 503), answer.text
    if answer.status_code == 200:
        assert CANARY in answer.text
        return False
    assert CANARY not in answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    return True


def on_log(log: MemoryLog) -> set[str]:
    """Ids of the accesses that reached it."""
    stored = log.read("sijil.accesses", {}, log.ends("sijil.accesses"))
    return {cast(Any, decode("sijil.accesses", s.key, s.headers, s.value).event).access_id for s in stored}


def test_kafka_away_the_outbox_keeps_what_left_and_drains_it(archive: MemoryArchive, tmp_path: Path) -> None:
    chain = chain_of(archive, tmp_path)
    archive.log.away = True
    answers = searched(archive, 20)
    assert not any(map(refused, answers))
    assert chain.backlog >= 20
    archive.log.away = False
    chain.close(20)
    assert {a.headers[ACCESS_HEADER] for a in answers} <= on_log(archive.log)


def test_a_full_outbox_lets_nothing_out(archive: MemoryArchive, tmp_path: Path) -> None:
    chain = chain_of(archive, tmp_path, backlog_max=5)
    archive.log.away = True
    answers = searched(archive, 9)
    assert [refused(a) for a in answers] == [False] * 5 + [True] * 4
    assert all(int(a.headers["Retry-After"]) >= 1 for a in answers[5:])
    archive.log.away = False
    chain.close(20)
    assert on_log(archive.log) == {a.headers[ACCESS_HEADER] for a in answers[:5]}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of its own, FILESYSTEM_KB large."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={FILESYSTEM_KB}k", "sijil-test", str(folder)]
    try:
        mounted = subprocess.run(["mount", *options], capture_output=True, check=False, timeout=20).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("this machine lets a test mount nothing: the full disk is tested by a fault alone")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=20)


def test_a_full_disk_lets_nothing_out_until_there_is_room(archive: MemoryArchive, small: Path) -> None:
    filler = small / "filler"
    filler.write_bytes(bytes(FILESYSTEM_KB * 512))
    chain = chain_of(archive, small / "chain")
    archive.log.away = True

    def make_room(n: int) -> None:
        if n == READS:
            filler.unlink()

    answers = searched(archive, READS + 5, make_room)
    outcome = [refused(a) for a in answers]
    full = outcome.index(True)
    assert full > 5
    assert all(outcome[full:READS]), "full is full"
    assert not any(outcome[READS:]), "there is room again"
    archive.log.away = False
    chain.close(20)
    assert on_log(archive.log) == {a.headers[ACCESS_HEADER] for a in answers if a.status_code == 200}


def test_a_disk_that_takes_nothing_lets_nothing_out(
    archive: MemoryArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = chain_of(archive, tmp_path)
    archive.log.away = True
    write = os.write

    def full(file: int, data: bytes) -> int:
        if str(tmp_path) in os.readlink(f"/proc/self/fd/{file}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    assert all(map(refused, searched(archive, 3)))
    monkeypatch.undo()
    assert not refused(searched(archive, 1)[0])
    archive.log.away = False
    chain.close(20)


def test_a_broken_disk_lets_nothing_out_and_ends_the_process(
    archive: MemoryArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[BaseException] = []
    chain = chain_of(archive, tmp_path, fatal=ended.append)
    assert not refused(searched(archive, 1)[0])

    def broken(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    assert all(map(refused, searched(archive, 3)))
    assert ended, "nothing that this process says of its disk is to be believed"
    monkeypatch.undo()
    assert len(on_log(archive.log)) == 1
    chain.close(5)


def test_a_kafka_that_comes_and_goes_loses_no_event(
    archive: MemoryArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "AWAY_S", 0.05)
    monkeypatch.setattr(audit, "ACKNOWLEDGE_WAIT_S", 0.05)
    chain = chain_of(archive, tmp_path)

    def flap(n: int) -> None:
        archive.log.away = n % 8 < 4

    answers = searched(archive, 40, flap)
    assert not any(map(refused, answers))
    archive.log.away = False
    chain.close(20)
    assert on_log(archive.log) == {a.headers[ACCESS_HEADER] for a in answers}
