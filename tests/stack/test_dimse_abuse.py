"""Peers that behave badly, on sockets: what they break is theirs alone, and the door goes on for everybody else."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.ae_table import Ae
from infra.memory import MemoryLog, MemoryObjects
from producers.commitment.queue import CommitmentQueue, key_of
from producers.commitment.transaction import Reference, Transaction
from tests.stack.commitment_scu import CT, Modality
from tests.stack.gateway_doors import Doors, open_doors
from tests.stack.raw_scu import RawScu, associate_request, command, pdata
from tests.unit.producers.samples import dataset


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with pytest.MonkeyPatch.context() as patch, open_doors(tmp_path_factory.mktemp("abuse"), patch) as both:
        yield both


def stored(doors: Doors, sop: str) -> bool:
    """Whether a good neighbour can store."""
    with RawScu(doors.dicom_port) as scu:
        done = scu.store(sop, dataset(sop)) == 0
        scu.release()
    return done


def test_dropped_inside_an_instance_costs_that_instance_alone(doors: Doors) -> None:
    with RawScu(doors.dicom_port) as neighbour:
        with RawScu(doors.dicom_port) as scu:
            assert scu.store("1.4.1", dataset("1.4.1")) == 0
            half = dataset("1.4.2", pixels=bytes(100_000))
            scu.socket.sendall(pdata(command("1.4.2")) + pdata(b"\0" + half[:60_000]))
            linger = struct.pack("ii", 1, 0)  # a reset, not an end
            scu.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert neighbour.store("1.4.3", dataset("1.4.3")) == 0
        neighbour.release()
    doors.until(lambda: {"1.4.1", "1.4.3"} <= doors.files().keys())
    doors.until(lambda: doors.listener.associations() == [])
    assert "1.4.2" not in doors.files()
    assert not any(e.sop_uid == "1.4.2" for e in doors.rejected())


def ask(port: int) -> tuple[str, socket.socket | None]:
    """One request for an association: what became of it."""
    with suppress(OSError):
        s = socket.create_connection(("127.0.0.1", port), 30)
        s.settimeout(30)
        s.sendall(associate_request("SIJIL"))
        head = s.recv(6, socket.MSG_WAITALL)
        if head[:1] == b"\x02":
            return "accepted", s
        body = s.recv(4, socket.MSG_WAITALL)
        s.close()
        if head[:1] == b"\x03":
            return ("rejected-transient" if tuple(body[1:]) == (2, 3, 2) else "rejected"), None
    return "dropped", None


def test_two_hundred_associations_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_doors(tmp_path, monkeypatch, max_associations=30) as doors:
        with ThreadPoolExecutor(200) as threads:
            found = list(threads.map(ask, [doors.dicom_port] * 200))
        assert Counter(what for what, _ in found) == {"accepted": 30, "rejected-transient": 170}
        for _, s in found:
            if s is not None:
                s.close()
        doors.until(lambda: doors.listener.associations() == [])
        assert stored(doors, "1.4.1")


def test_sixty_idle_ones_do_not_block_the_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_doors(tmp_path, monkeypatch) as doors, ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(RawScu(doors.dicom_port))
        for _ in range(200):  # nothing is ever asked for on these
            stack.enter_context(socket.create_connection(("127.0.0.1", doors.dicom_port), 10))
        started = time.monotonic()
        assert stored(doors, "1.4.1")
        assert time.monotonic() - started < 10


def test_connections_without_an_association_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_doors(tmp_path, monkeypatch, max_associations=2) as doors, ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", doors.dicom_port), 10)) for _ in range(40)]
        doors.until(lambda: len(doors.listener.associations()) >= 8)
        time.sleep(0.5)
        assert len(doors.listener.associations()) <= 16
        for s in silent:
            s.close()
        doors.until(lambda: doors.listener.associations() == [])
        assert stored(doors, "1.4.1")


def test_slow_senders_hurt_nobody(doors: Doors) -> None:
    data = dataset("1.4.9", pixels=os.urandom(300))
    stream = pdata(command("1.4.9")) + pdata(b"\2" + data)
    go_on = threading.Event()
    with ExitStack() as stack:
        slow = [stack.enter_context(RawScu(doors.dicom_port)) for _ in range(8)]

        def trickle(scu: RawScu) -> int:
            for n in range(len(stream)):
                scu.socket.sendall(stream[n : n + 1])
                if not go_on.is_set():
                    go_on.wait(0.02)
            return scu.status()

        with ThreadPoolExecutor(8) as threads:
            under_way = [threads.submit(trickle, s) for s in slow]
            assert all(stored(doors, f"1.4.10.{n}") for n in range(5))
            assert not any(f.done() for f in under_way)
            go_on.set()
            assert [f.result(30) for f in under_way] == [0] * 8


GOOD = b"".join(
    (
        associate_request("SIJIL"),
        pdata(command("1.4.7")),
        pdata(b"\0" + dataset("1.4.7")[:60]),
        pdata(b"\2" + dataset("1.4.7")[60:]),
    )
)
HEADS = st.builds(
    lambda kind, length, body: struct.pack(">BBI", kind, 0, length) + body,
    st.integers(0, 255),
    st.sampled_from([0, 1, 5, 6, 68, 1 << 16, 1 << 20, 1 << 31, 0xFFFFFFFF]),
    st.binary(max_size=80),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good conversation with some bytes changed, cut, repeated or put in between."""
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "cut", "insert", "repeat"])):
            case "change" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 40))]
            case "insert":
                data[at:at] = draw(st.one_of(st.binary(max_size=20), HEADS))
            case _:
                data[at:at] = data[at : at + draw(st.integers(1, 200))]
    return bytes(data)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mutated() | st.lists(HEADS, max_size=4).map(b"".join) | HEADS.map(lambda head: associate_request("SIJIL") + head)
)
def test_no_bytes_crash_or_hang_the_door(doors: Doors, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", doors.dicom_port), 10) as s:
        s.settimeout(10)
        with suppress(OSError):
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass
    doors.until(lambda: doors.listener.associations() == [], 60.0)


def test_after_all_that_the_door_is_as_before(doors: Doors) -> None:
    assert stored(doors, "1.4.99")
    doors.until(lambda: "1.4.99" in doors.files())
    assert doors.spool_files() == []


@pytest.mark.parametrize("requested", ["1999-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"])
def test_clocks_that_jump_by_years_lose_no_commitment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requested: str
) -> None:
    world = MemoryLog(), MemoryObjects()
    with open_doors(tmp_path, monkeypatch, world=world) as doors:
        assert stored(doors, "1.4.1")
        queue = CommitmentQueue(doors.settings.spool("gateway") / "commitments")
    waiting = Transaction(
        transaction_uid="1.9.1", references=(Reference(CT, "1.4.1"),), requested=requested, ae_title="MODALITY1"
    )
    queue.put(key_of("MODALITY1", "1.9.1"), waiting)
    with Modality() as modality:
        table = [Ae("MODALITY1", "127.0.0.1", modality.port)]
        with open_doors(tmp_path, monkeypatch, table, world):
            assert modality.report().committed == ["1.4.1"]
