"""Acknowledged means kept: what the spool promises, when it seals, what it does when the disk does not."""

from __future__ import annotations

import errno
import os
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from producers import spool as spool_module
from producers.body import Held
from producers.committer import SpoolBroken
from producers.journal import Committed
from producers.open_pack import tar_path
from producers.recovery import StoredPack
from producers.shelf import Limits, Room
from producers.spool import OPEN_PACKS_MAX, Kept, Rules, Spool, SpoolFull
from producers.tar import PAX_HEADER_LENGTH
from schemas.errors import Permanent
from tests.unit.producers.samples import LIMITS, STUDY, file, instance, seal, spool, store

QUICK = Rules(seal_bytes=1 << 20, own_bytes=1 << 30, idle_s=0.3, release_s=0.1)


def members(folder: Path, pack_id: str) -> dict[str, bytes]:
    with tarfile.open(tar_path(folder / "packs", pack_id)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive.getmembers()}  # type: ignore[union-attr]


def sealed(it: Spool) -> StoredPack:
    pack = it.shelf.take(5)
    assert pack is not None
    return pack


def test_files_are_kept_verbatim_in_one_pack_across_requests(tmp_path: Path) -> None:
    it = spool(tmp_path)
    files = {f"1.2.{n}": file(f"1.2.{n}", pixels=b"p" * n * 100) for n in range(1, 9)}
    packs = set()
    for sop, data in files.items():
        with it.feeder() as feeder:
            packs.add(store(feeder, sop, data).pack_id)
    assert len(packs) == 1
    seal(it, STUDY)
    pack = sealed(it)
    assert (pack.sealed.instances, pack.sealed.repeats, pack.recovered) == (8, 0, False)
    assert members(tmp_path, pack.pack_id) == {f"{sop}.dcm": data for sop, data in files.items()}
    assert pack.sealed.size == tar_path(tmp_path / "packs", pack.pack_id).stat().st_size
    it.close()


def test_studies_and_sites_have_packs_of_their_own(tmp_path: Path) -> None:
    it = spool(tmp_path)
    with it.feeder() as feeder:
        data = file("1.2")
        kept = [
            store(feeder, "1.2").pack_id,
            store(feeder, "1.3", study="1.9.9").pack_id,
            feeder.append(instance("1.2", data), Held((data,)), site="S2", issuer="S2").result(60).pack_id,
        ]
    assert len(set(kept)) == 3
    it.close()


def test_the_same_again_is_a_recorded_no_op_and_other_content_is_kept_beside(tmp_path: Path) -> None:
    it = spool(tmp_path)
    with it.feeder() as feeder:
        first = store(feeder, "1.2")
        assert not first.repeated
        assert store(feeder, "1.2").repeated
        other = store(feeder, "1.2", file("1.2", pixels=b"other"))
        assert not other.repeated
        assert store(feeder, "1.2", file("1.2", pixels=b"other")).repeated
    it.close()
    pack = spool(tmp_path).shelf.take(1)
    assert pack is not None
    assert (pack.sealed.instances, pack.sealed.repeats) == (2, 2)
    assert set(members(tmp_path, pack.pack_id)) == {"1.2.dcm", f"1.2.{other.sha256[:8]}.dcm"}


def test_a_body_in_pieces(tmp_path: Path) -> None:
    it = spool(tmp_path)
    data = file("1.2", pixels=os.urandom(5000))
    head = data[: instance("1.2", data).dataset_offset]
    rest = data[len(head) :]
    body = Held((head, *(rest[i : i + 3] for i in range(0, len(rest), 3))))
    assert body.length == len(data)
    with it.feeder() as feeder:
        kept = feeder.append(instance("1.2", data), body, site="L", issuer="L").result(60)
    it.close()
    assert members(tmp_path, kept.pack_id) == {"1.2.dcm": data}


def filed(it: Spool, data: bytes) -> Any:
    writer = it.writer()
    for i in range(0, len(data), 4096):
        writer.write(data[i : i + 4096])
    return writer.finish()


def test_a_body_in_a_file_goes_into_the_studys_pack(tmp_path: Path) -> None:
    it = spool(tmp_path)
    data = file("1.2", pixels=os.urandom(100_000))
    with it.feeder() as feeder:
        kept = store(feeder, "1.1")
        body = filed(it, data)
        assert (
            feeder.append(instance("1.2", data), body, site="LOCAL", issuer="LOCAL").result(60).pack_id == kept.pack_id
        )
        body.discard()
    it.close()
    assert members(tmp_path, kept.pack_id)["1.2.dcm"] == data
    assert list(it.incoming.iterdir()) == []


def test_a_long_one_becomes_a_pack_of_its_own_without_a_copy(tmp_path: Path) -> None:
    it = spool(tmp_path, rules=Rules(seal_bytes=1 << 20, own_bytes=50_000, idle_s=60, release_s=60))
    data = file("1.2", pixels=os.urandom(100_001))
    with it.feeder() as feeder:
        body = filed(it, data)
        inode = body.path.stat().st_ino
        kept = feeder.append(instance("1.2", data), body, site="LOCAL", issuer="LOCAL").result(60)
        body.discard()
    pack = sealed(it)
    assert pack.pack_id == kept.pack_id
    path = tar_path(tmp_path / "packs", kept.pack_id)
    assert path.stat().st_ino == inode
    assert path.read_bytes()[PAX_HEADER_LENGTH:][: len(data)] == data
    assert members(tmp_path, kept.pack_id) == {"1.2.dcm": data}
    it.close()


# ------------------------------------------------------------------------------------------------ sealing


def test_sealed_at_its_size(tmp_path: Path) -> None:
    it = spool(tmp_path, rules=Rules(seal_bytes=20_000, own_bytes=1 << 30, idle_s=60, release_s=60))
    with it.feeder() as feeder:
        kept = [store(feeder, f"1.2.{n}", file(f"1.2.{n}", pixels=b"x" * 6000)) for n in range(8)]
    assert sealed(it).pack_id == kept[0].pack_id
    assert len({k.pack_id for k in kept}) >= 2
    it.close()


def test_sealed_at_its_number_of_instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "PACK_INSTANCES_MAX", 3)
    it = spool(tmp_path)
    with it.feeder() as feeder:
        kept = [store(feeder, f"1.2.{n}") for n in range(4)]
    assert sealed(it).sealed.instances == 3
    assert kept[3].pack_id != kept[0].pack_id
    it.close()


def test_sealed_soon_after_its_last_feeder_has_ended(tmp_path: Path) -> None:
    it = spool(tmp_path, rules=Rules(seal_bytes=1 << 20, own_bytes=1 << 30, idle_s=60, release_s=0.2))
    one, two = it.feeder(), it.feeder()
    store(one, "1.2.1")
    store(two, "1.2.2")
    one.close()
    assert it.shelf.take(0.6) is None
    started = time.monotonic()
    two.close()
    assert sealed(it).sealed.instances == 2
    assert 0.15 < time.monotonic() - started < 1.5
    it.close()


def test_a_new_feeder_in_time_goes_on_with_the_pack(tmp_path: Path) -> None:
    it = spool(tmp_path, rules=Rules(seal_bytes=1 << 20, own_bytes=1 << 30, idle_s=60, release_s=0.5))
    kept = []
    for n in range(4):
        with it.feeder() as feeder:
            kept.append(store(feeder, f"1.2.{n}").pack_id)
        time.sleep(0.2)
    assert len(set(kept)) == 1
    it.close()


def test_sealed_when_nothing_comes_though_its_feeder_stays(tmp_path: Path) -> None:
    it = spool(tmp_path, rules=Rules(seal_bytes=1 << 20, own_bytes=1 << 30, idle_s=0.3, release_s=60))
    with it.feeder() as feeder:
        first = store(feeder, "1.2.1")
        assert sealed(it).pack_id == first.pack_id
        assert store(feeder, "1.2.1").pack_id != first.pack_id
    it.close()


def test_open_packs_are_bounded(tmp_path: Path) -> None:
    it = spool(tmp_path)
    with it.feeder() as feeder:
        first = store(feeder, "1.2", study="1.7.0")
        for n in range(1, OPEN_PACKS_MAX + 1):
            store(feeder, "1.2", study=f"1.7.{n}")
        assert sealed(it).pack_id == first.pack_id
        assert it.backlog().packs == OPEN_PACKS_MAX + 1
    it.close()


# ------------------------------------------------------------------------------------------------ restart


def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    it = spool(tmp_path)
    with it.feeder() as feeder:
        kept = store(feeder, "1.2")
    it.close()
    again = spool(tmp_path)
    pack = sealed(again)
    assert pack.pack_id == kept.pack_id
    again.shelf.commit(pack, Committed(event_id="e", partition=0, offset=1, committed="2999-01-01T00:00:00Z"))
    assert again.backlog().packs == 0
    again.close()
    third = spool(tmp_path, limits=LIMITS)
    assert third.shelf.take(0.1) is None
    assert [p.pack_id for p in third.shelf.cached()] == [kept.pack_id]
    third.close()


def test_half_received_bodies_go_at_start(tmp_path: Path) -> None:
    it = spool(tmp_path)
    it.writer().write(b"half")
    it.close()
    again = spool(tmp_path)
    assert list(again.incoming.iterdir()) == []
    again.close()


def test_one_process_a_spool(tmp_path: Path) -> None:
    it = spool(tmp_path)
    with pytest.raises(Permanent, match="in use"):
        spool(tmp_path)
    it.close()
    spool(tmp_path).close()


# ------------------------------------------------------------------------------------------------ the disk fails


def failing(real: Callable[..., Any], error: int, when: Callable[[], bool]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        if when():
            raise OSError(error, os.strerror(error))
        return real(*args)

    return call


def test_a_refused_write_leaves_the_pack_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = spool(tmp_path)
    full = [False]
    monkeypatch.setattr(os, "pwrite", failing(os.pwrite, errno.ENOSPC, lambda: full[0]))
    with it.feeder() as feeder:
        store(feeder, "1.2.1")
        full[0] = True  # the tar has the bytes, the journal refuses its line
        with pytest.raises(SpoolFull):
            store(feeder, "1.2.2")
        full[0] = False
        kept = store(feeder, "1.2.3")
    it.close()
    assert set(members(tmp_path, kept.pack_id)) == {"1.2.1.dcm", "1.2.3.dcm"}


def test_an_fsync_error_fails_the_waiters_and_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[BaseException] = []
    it = spool(tmp_path, fatal=ended.append)
    calls = [0]

    def fdatasync(fd: int) -> None:
        calls[0] += 1
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    feeder = it.feeder()
    with pytest.raises(SpoolBroken):
        store(feeder, "1.2.1")
    assert len(ended) == 1
    assert calls[0] == 1
    with pytest.raises(SpoolBroken):
        store(feeder, "1.2.2")
    assert calls[0] == 1  # never retried, never asked again
    assert len(ended) == 1


# ------------------------------------------------------------------------------------------------ room


def limits(**changes: Any) -> Limits:
    return Limits(**{"low_free": 0, "full_free": 0, "spool_max": 1 << 40, "cache_hours": 24.0, **changes})


def test_watermarks(tmp_path: Path) -> None:
    it = spool(tmp_path, limits=limits(low_free=1 << 60))
    assert it.room() is Room.LOW
    with it.feeder() as feeder:
        store(feeder, "1.2")  # what has begun goes on from the reserve
    it.close()
    full = spool(tmp_path, limits=limits(low_free=1 << 60, full_free=1 << 60))
    assert full.room() is Room.FULL
    with full.feeder() as feeder, pytest.raises(SpoolFull):
        store(feeder, "1.3")
    full.close()


def test_the_spools_own_limit_counts_what_is_not_committed(tmp_path: Path) -> None:
    it = spool(tmp_path, limits=limits(low_free=20_000, full_free=5_000, spool_max=60_000))
    rooms = []
    with it.feeder() as feeder:
        for n in range(12):
            try:
                store(feeder, f"1.2.{n}", file(f"1.2.{n}", pixels=b"x" * 6000))
            except SpoolFull:
                break
            rooms.append(it.room())
    assert rooms == sorted(rooms)
    assert set(rooms) == {Room.ENOUGH, Room.LOW, Room.FULL}
    it.close()


def commit(it: Spool, when: str) -> StoredPack:
    pack = sealed(it)
    it.shelf.commit(pack, Committed(event_id="e", partition=0, offset=1, committed=when))
    return pack


def test_the_cache_is_evicted_by_age_and_when_room_is_short(tmp_path: Path) -> None:
    it = spool(tmp_path, limits=limits(cache_hours=24.0))
    kept: list[Kept] = []
    with it.feeder() as feeder:
        for n in range(3):
            kept.append(store(feeder, "1.2", study=f"1.7.{n}"))
            seal(it, f"1.7.{n}")
            commit(it, "2020-01-01T00:00:00.000000Z" if n == 0 else "2999-01-01T00:00:00.000000Z")
    it.shelf.evict(0)
    assert [p.pack_id for p in it.shelf.cached()] == [k.pack_id for k in kept[1:]]
    assert not tar_path(tmp_path / "packs", kept[0].pack_id).exists()
    it.close()
    small = spool(tmp_path, limits=limits(spool_max=kept_bytes(tmp_path) - 1))
    small.shelf.evict(0)
    assert [p.pack_id for p in small.shelf.cached()] == [kept[2].pack_id]
    small.close()


def kept_bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in (folder / "packs").glob("*.tar"))


def test_what_is_not_committed_is_never_evicted(tmp_path: Path) -> None:
    it = spool(tmp_path, limits=limits(low_free=1 << 60, cache_hours=0.0))
    with it.feeder() as feeder:
        kept = store(feeder, "1.2")
    seal(it, STUDY)
    assert sealed(it).pack_id == kept.pack_id
    assert it.shelf.evict(0) == 0
    assert tar_path(tmp_path / "packs", kept.pack_id).exists()
    it.close()


# ------------------------------------------------------------------------------------------------ many at once


def test_many_threads_many_studies(tmp_path: Path) -> None:
    it = spool(tmp_path, rules=QUICK)
    stored: dict[tuple[str, str], bytes] = {}
    lock = threading.Lock()

    def send(worker: int) -> None:
        for n in range(25):
            study, sop = f"1.7.{n % 3}", f"1.2.{worker}.{n}"
            data = file(sop, study=study, pixels=os.urandom(500 + n))
            with it.feeder() as feeder:
                kept = store(feeder, sop, data, study)
            with lock:
                stored[kept.pack_id, f"{sop}.dcm"] = data

    threads = [threading.Thread(target=send, args=(w,)) for w in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    it.close()
    found = {}
    for path in (tmp_path / "packs").glob("*.tar"):
        found.update({(path.stem, name): data for name, data in members(tmp_path, path.stem).items()})
    assert found == stored
