"""The counts of open windows outlive the process that counted."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.api.audit import Audit
from consumers.api.window_counts import SLOT_BYTES, WindowCounts
from infra.memory import MemoryObjects
from schemas.caller import Caller
from schemas.errors import Overloaded
from schemas.events import AccessGranted, AccessUsed
from schemas.roles import Role
from tests.unit.consumers.archive import Journal

WHO = Caller("person:7", Role.LOCAL, "TREAT", address="192.0.2.7")
KEY = "k1:" + "x" * 43


def audit_of(journal: Journal, counts: WindowCounts) -> Audit:
    return Audit(journal, MemoryObjects(), bucket="b", search_secret=bytes(32), window_s=60, counts=counts)


def killed_after(path: Path, *sizes: int, studies: int = 1) -> Journal:
    """What the journal of a process has that read so much of each study and then was killed."""
    journal = Journal()

    async def read() -> None:
        audit = audit_of(journal, WindowCounts(path, 8))
        for n in range(studies):
            for size in sizes:
                window = await audit.grant(WHO, f"1.2.{n}", KEY, "retrieve")
                window.use()
                window.count(size)

    asyncio.run(read())
    return journal


def restarted(path: Path) -> list[AccessUsed]:
    """What the next process says at once."""
    journal = Journal()

    async def begin() -> None:
        audit = audit_of(journal, WindowCounts(path, 8))
        audit.sweep()

    asyncio.run(begin())
    return journal.events(AccessUsed)


def test_the_next_process_closes_the_windows_of_a_killed_one(tmp_path: Path) -> None:
    killed = killed_after(tmp_path / "windows", 10, 20, 30, studies=3)
    assert killed.events(AccessUsed) == []
    granted = {g.access_id: g for g in killed.events(AccessGranted)}
    found = restarted(tmp_path / "windows")
    assert {u.access_id for u in found} == set(granted)
    for used in found:
        assert (used.uses, used.bytes, used.cut_short, used.recovered) == (3, 60, 0, True)
        assert (used.study_uid, used.patient_key) == (granted[used.access_id].study_uid, KEY)
        assert (used.actor, used.address, used.via) == ("person:7", "192.0.2.7", "http")
    assert restarted(tmp_path / "windows") == [], "each is closed once"


def test_a_grant_that_was_not_used_leaves_nothing_to_close(tmp_path: Path) -> None:
    killed_after(tmp_path / "windows")
    assert restarted(tmp_path / "windows") == []


def test_an_answer_that_was_under_way_counts_as_a_use(tmp_path: Path) -> None:
    async def read() -> None:
        window = await audit_of(Journal(), WindowCounts(tmp_path / "windows", 8)).grant(WHO, "1.2.3", KEY, "retrieve")
        window.use()
        window.began()
        window.bytes += 5

    asyncio.run(read())
    (used,) = restarted(tmp_path / "windows")
    assert (used.uses, used.bytes) == (1, 0)


def test_what_was_said_before_the_kill_is_not_said_again(tmp_path: Path) -> None:
    async def read() -> None:
        audit = audit_of(Journal(), WindowCounts(tmp_path / "windows", 8))
        (await audit.grant(WHO, "1.2.3", KEY, "retrieve")).use()
        await audit.stop()

    asyncio.run(read())
    assert restarted(tmp_path / "windows") == []


def test_an_event_that_is_not_kept_yet_holds_its_slot(tmp_path: Path) -> None:
    async def read() -> None:
        journal = Journal()
        audit = audit_of(journal, WindowCounts(tmp_path / "windows", 8))
        (await audit.grant(WHO, "1.2.3", KEY, "retrieve")).use()
        journal.keeps = False
        await audit.stop()

    asyncio.run(read())
    assert len(restarted(tmp_path / "windows")) == 1


def test_more_windows_than_slots_are_counted_in_memory(tmp_path: Path) -> None:
    killed_after(tmp_path / "windows", 1, studies=10)
    assert len(restarted(tmp_path / "windows")) == 8


def test_a_full_disk_takes_no_count_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    journal = killed_after(tmp_path / "windows", 1, 2)
    assert len(journal.events(AccessGranted)) == 1
    monkeypatch.undo()
    assert restarted(tmp_path / "windows") == []


@pytest.mark.parametrize("at", [0, 60, 200])
def test_a_torn_slot_is_left_out(tmp_path: Path, at: int) -> None:
    path = tmp_path / "windows"
    killed_after(path, 10, studies=2)
    file = os.open(path, os.O_RDWR)
    os.pwrite(file, bytes(64), at)
    os.close(file)
    assert [u.study_uid for u in restarted(path)] == ["1.2.1"]


def test_a_file_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "windows"
    killed_after(path, 10, studies=3)
    os.truncate(path, 2 * SLOT_BYTES + 100)
    assert [u.study_uid for u in restarted(path)] == ["1.2.0", "1.2.1"]


STEP = st.one_of(
    st.tuples(st.just("read"), st.integers(0, 3), st.integers(0, 99)),
    st.tuples(st.sampled_from(["later", "sweep", "kill", "stop", "full", "room"]), st.just(0), st.just(0)),
)


@settings(deadline=None)
@given(steps=st.lists(STEP, max_size=40))
def test_whatever_happens_each_answer_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """Reads, passing time, a full chain, ends and kills, in any order."""
    path = tmp_path_factory.mktemp("counts") / "windows"
    journal, clock = Journal(), Clock()
    made: Counter[str] = Counter()
    size: Counter[str] = Counter()

    processes: list[WindowCounts] = []

    def begun() -> Audit:
        processes.append(WindowCounts(path, 64))
        return audit_of(journal, processes[-1])

    async def run() -> None:
        audit = begun()
        for what, study, count in steps:
            if what == "read":
                try:
                    window = await audit.grant(WHO, f"1.2.{study}", KEY, "retrieve")
                except Overloaded:
                    continue
                window.use()
                window.count(count)
                made[window.access_id] += 1
                size[window.access_id] += count
            elif what == "later":
                clock.now += 45.0
            elif what == "sweep":
                audit.sweep()
            elif what in ("kill", "stop"):
                if what == "stop":
                    await audit.stop()
                audit = begun()
            else:
                journal.full = what == "full"
        journal.full = False
        await audit.stop()
        begun().sweep()

    with patch("consumers.api.audit.clock.monotonic", clock):
        asyncio.run(run())
    for counts in processes:
        os.close(counts._file)
    granted = {e.access_id for e in journal.events(AccessGranted)}
    told = {p.id: p.event for p in journal.published if isinstance(p.event, AccessUsed)}
    assert set(made) <= granted
    assert {e.access_id: e.uses for e in told.values()} == dict(made)
    assert {e.access_id: e.bytes for e in told.values()} == {id: size[id] for id in made}


class Clock:
    """Seconds that pass when they are told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now
