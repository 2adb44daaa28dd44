"""From the spool to S3 and Kafka: in order, for ever, once; and again what was lost."""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra import packed
from infra.chain import ChainedLog
from infra.memory import MemoryLog, MemoryObjects
from infra.ports import Stored
from producers import packing, publish
from producers.body import Held
from producers.journal import Sealed, encode, scan
from producers.open_pack import journal_path, tar_path
from producers.publish import Publisher, event_id
from producers.recovery import manifest_path
from producers.spool import Kept, Spool
from schemas.blocks import Blocks
from schemas.envelope import Record, decode
from schemas.events import PackStored
from schemas.pack import IDENTITY, ZSTD, decode_manifest, manifest_key, pack_key
from schemas.topics import topic_of
from tests.packs import tar_of
from tests.unit.producers.samples import EXPLICIT_LE, STUDY, file, instance, seal, spool, store

BUCKET = "packs"
TOPIC = topic_of(PackStored)
JPEG_2000 = "1.2.840.10008.1.2.4.90"


class World:
    """One installation's S3, Kafka and disk; processes come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log, self.objects = MemoryLog(), MemoryObjects()

    @contextmanager
    def process(self, **options: Any) -> Iterator[tuple[Spool, Publisher]]:
        chain = ChainedLog(self.log, self.folder / "chain", "/gateway/LOCAL/1", backlog_max=100, anchors=None)
        it = spool(self.folder / "spool", **options)
        publisher = Publisher(it.shelf, chain, self.objects, self.log, bucket=BUCKET, threads=2)
        publisher.start()
        try:
            yield it, publisher
        finally:
            it.close()
            publisher.close(2)
            chain.close(0.2)

    def records(self) -> list[Stored]:
        return [r for r in self.log.read(TOPIC, {}, self.log.ends(TOPIC))]

    def events(self) -> list[PackStored]:
        found = [decode(TOPIC, r.key, r.headers, r.value).event for r in self.records()]
        return [e for e in found if isinstance(e, PackStored)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(publish, "DELAY_S", (0.01, 0.05))
    monkeypatch.setattr(publish, "STUCK_S", 0.1)
    return World(tmp_path)


def send(it: Spool, *sops: str, study: str = STUDY) -> list[Kept]:
    with it.feeder() as feeder:
        kept = [store(feeder, sop, study=study) for sop in sops]
    seal(it, study)
    return kept


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def committed(it: Spool) -> bool:
    return it.backlog().packs == 0


def test_a_pack_its_manifest_and_its_event(world: World) -> None:
    with world.process() as (it, _):
        (kept, _) = send(it, "1.2.1", "1.2.2")
        send(it, "1.2.9", study="1.7")
        until(lambda: committed(it))
    event = next(e for e in world.events() if e.pack_id == kept.pack_id)
    tar = world.objects.get(BUCKET, pack_key(kept.pack_id, IDENTITY))
    raw = world.objects.get(BUCKET, manifest_key(kept.pack_id))
    assert (event.pack_size, event.pack_sha256) == (len(tar), hashlib.sha256(tar).hexdigest())
    assert (event.manifest_size, event.manifest_sha256) == (len(raw), hashlib.sha256(raw).hexdigest())
    assert (event.study_uid, event.site, event.door, event.instances) == (STUDY, "LOCAL", "stow", 2)
    found = decode_manifest(raw)
    assert (found.pack.gateway, found.pack.study_uid, found.pack.sha256) == (
        "/gateway/LOCAL/1",
        STUDY,
        event.pack_sha256,
    )
    for line in found.instances:
        data = tar[line.offset : line.offset + line.length]
        assert data == file(line.sop_uid)
        assert hashlib.sha256(data[line.dataset_offset :]).hexdigest() == line.sha256
        assert b"CANARY" in bytes(line.header)
    assert all(b"CANARY" not in (r.value or b"") for r in world.records())
    assert len(world.events()) == 2


def test_bytes_first_then_the_event(world: World) -> None:
    seen: list[bool] = []
    append = world.log.append

    def check(record: Any) -> Any:
        event = decode(record.topic, record.key, record.headers, record.value).event
        assert isinstance(event, PackStored)
        seen.append(bool(world.objects.head(BUCKET, event.pack_key) and world.objects.head(BUCKET, event.manifest_key)))
        return append(record)

    world.log.append = check  # type: ignore[method-assign]
    with world.process() as (it, _):
        send(it, "1.2.1")
        until(lambda: committed(it))
    assert seen == [True]


@pytest.mark.parametrize("part", ["log", "objects"])
def test_a_server_away_and_back(world: World, part: str) -> None:
    server = getattr(world, part)
    with world.process() as (it, _):
        server.away = True
        for n in range(5):
            send(it, f"1.2.{n}", study=f"1.7.{n}")
        time.sleep(0.2)
        assert it.backlog().packs == 5
        assert it.backlog().bytes > 0
        server.away = False
        until(lambda: committed(it))
    assert len(world.events()) == 5


@pytest.mark.parametrize("part", ["log", "objects"])
def test_what_was_not_committed_is_published_by_the_next_process(world: World, part: str) -> None:
    server = getattr(world, part)
    server.away = True
    with world.process() as (it, _):
        (kept,) = send(it, "1.2.1")
        time.sleep(0.1)
    server.away = False
    with world.process() as (it, _):
        until(lambda: committed(it))
    # With Kafka away the first process had kept the event already: the second one has the same id.
    assert {e.pack_id for e in world.events()} == {kept.pack_id}
    ids = {value for r in world.records() for name, value in r.headers if name == "ce_id"}
    assert ids == {event_id(kept.pack_id).encode()}


def test_the_manifest_has_the_same_bytes_after_an_upgrade(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.objects.away = True
    with world.process() as (it, _):
        (kept,) = send(it, "1.2.1")
        until(lambda: manifest_path(it.shelf.folder, kept.pack_id).exists())
        before = manifest_path(it.shelf.folder, kept.pack_id).read_bytes()
    monkeypatch.setattr(packing, "manifest", lambda *_: b"another version's bytes")
    world.objects.away = False
    with world.process() as (it, _):
        until(lambda: committed(it))
    assert world.objects.get(BUCKET, manifest_key(kept.pack_id)) == before


def test_what_s3_has_lost_is_published_again(world: World) -> None:
    with world.process() as (it, _):
        (kept,) = send(it, "1.2.1")
        (other,) = send(it, "1.2.2", study="1.7")
        until(lambda: committed(it))
    before = world.objects.get(BUCKET, pack_key(kept.pack_id, IDENTITY))
    world.objects.delete(BUCKET, pack_key(kept.pack_id, IDENTITY))
    with world.process() as (it, _):
        until(lambda: len(world.events()) == 3)
        until(lambda: committed(it))
    assert world.objects.get(BUCKET, pack_key(kept.pack_id, IDENTITY)) == before
    assert [e.pack_id for e in world.events()].count(other.pack_id) == 1


def test_what_kafka_has_lost_is_published_again(world: World) -> None:
    with world.process() as (it, _):
        kept = [send(it, f"1.2.{n}", study=f"1.7.{n}")[0] for n in range(4)]
        until(lambda: committed(it))
    old, world.log = world.log, MemoryLog()
    first = next(r for r in old.read(TOPIC, {}, old.ends(TOPIC)))
    world.log.append(Record(TOPIC, first.key or b"", first.headers, first.value or b"")).result()
    with world.process() as (it, _):
        until(lambda: {e.pack_id for e in world.events()} == {k.pack_id for k in kept})
        until(lambda: committed(it))
    assert len(world.events()) == 4


def test_an_object_with_other_bytes_stops_its_pack_and_no_other(world: World) -> None:
    with world.process() as (it, publisher):
        with it.feeder() as feeder:
            kept = store(feeder, "1.2.1")
            world.objects.put(
                BUCKET, pack_key(kept.pack_id, IDENTITY), b"other", sha256=hashlib.sha256(b"other").hexdigest()
            )
        seal(it, STUDY)
        until(lambda: kept.pack_id in publisher.stuck)
        (other,) = send(it, "1.2.2", study="1.7")
        until(lambda: it.backlog().packs == 1)
        assert [e.pack_id for e in world.events()] == [other.pack_id]
        world.objects.delete(BUCKET, pack_key(kept.pack_id, IDENTITY))  # somebody looked
        until(lambda: committed(it))
        assert publisher.stuck == {}


def sealed_before_the_upgrade(folder: Path, pack_id: str) -> None:
    """The journal as an earlier version wrote it: a SHA-256 where now a CRC-32 is."""
    path = journal_path(folder, pack_id)
    digest = hashlib.sha256(tar_path(folder, pack_id).read_bytes()).hexdigest()
    lines = [r.line for r in scan(path.read_bytes()) if r.line is not None]
    old = [msgspec.structs.replace(x, crc=None, sha256=digest) if isinstance(x, Sealed) else x for x in lines]
    path.write_bytes(b"".join(encode(x) for x in old))


@pytest.mark.parametrize("upgraded", [False, True])
def test_a_pack_sealed_by_an_earlier_process_is_published(world: World, upgraded: bool) -> None:
    it = spool(world.folder / "spool")
    kept = send_large(it, "1.2.1", "1.2.2")
    it.close()
    if upgraded:
        sealed_before_the_upgrade(it.shelf.folder, kept.pack_id)
    with world.process() as (it, _):
        until(lambda: committed(it))
    (event,) = world.events()
    assert (event.pack_id, event.instances) == (kept.pack_id, 2)


@pytest.mark.parametrize("upgraded", [False, True])
def test_a_pack_the_disk_damaged_is_saved_as_far_as_it_goes(world: World, upgraded: bool) -> None:
    it = spool(world.folder / "spool")
    with it.feeder() as feeder:
        kept = store(feeder, "1.2.1")
        store(feeder, "1.2.2")
    it.close()
    if upgraded:
        sealed_before_the_upgrade(it.shelf.folder, kept.pack_id)
    path = tar_path(it.shelf.folder, kept.pack_id)
    data = bytearray(path.read_bytes())
    data[data.index(b"1.2.1") + 700] ^= 1  # in the first member's file
    path.write_bytes(data)
    with world.process() as (it, _):
        until(lambda: committed(it))
    (event,) = world.events()
    assert event.pack_id != kept.pack_id
    found = decode_manifest(world.objects.get(BUCKET, event.manifest_key))
    assert [i.sop_uid for i in found.instances] == ["1.2.2"]
    assert found.pack.marks == ("salvaged",)


def send_large(it: Spool, *sops: str, syntax: str = EXPLICIT_LE) -> Kept:
    """A pack of files that are worth compressing, each a block of its own."""
    with it.feeder() as feeder:
        for sop in sops:
            data = file(sop, pixels=bytes(range(256)) * 1600)
            what = replace(instance(sop, data), transfer_syntax=syntax)
            kept = feeder.append(what, Held((data,)), site="LOCAL", issuer="LOCAL").result(60)
    seal(it, STUDY)
    return kept


def test_a_compressed_pack_its_manifest_and_its_event(world: World) -> None:
    with world.process() as (it, _):
        kept = send_large(it, "1.2.1", "1.2.2")
        until(lambda: committed(it))
        tar = tar_path(it.shelf.folder, kept.pack_id).read_bytes()
    (event,) = world.events()
    data = world.objects.get(BUCKET, event.pack_key)
    assert event.pack_key == pack_key(kept.pack_id, ZSTD)
    assert (event.pack_size, event.pack_sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert len(data) < len(tar) // 2
    assert tar_of(event.pack_key, data) == tar
    found = decode_manifest(world.objects.get(BUCKET, event.manifest_key))
    blocks = Blocks(found.pack.blocks)
    assert (blocks.tar_size, blocks.size) == (len(tar), len(data))
    for line in found.instances:
        found_file = packed.read(world.objects, BUCKET, event.pack_key, blocks, line.offset, line.length)
        assert found_file == tar[line.offset : line.offset + line.length]
        assert hashlib.sha256(found_file[line.dataset_offset :]).hexdigest() == line.sha256


def test_what_is_compressed_already_is_stored_as_it_is(world: World) -> None:
    with world.process() as (it, _):
        kept = send_large(it, "1.2.1", syntax=JPEG_2000)
        until(lambda: committed(it))
    (event,) = world.events()
    assert event.pack_key == pack_key(kept.pack_id, IDENTITY)


@contextmanager
def another_compressor() -> Iterator[None]:
    """As after an upgrade of the library: the same tar gives other bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "LEVEL", 7)
        yield


def made_ready(world: World) -> Kept:
    """A compressed pack whose manifest is in the spool while S3 is away."""
    world.objects.away = True
    with world.process() as (it, _):
        kept = send_large(it, "1.2.1", "1.2.2")
        until(lambda: manifest_path(it.shelf.folder, kept.pack_id).exists())
    world.objects.away = False
    return kept


def test_another_compressor_begins_again_while_s3_has_nothing(world: World) -> None:
    made_ready(world)
    with another_compressor(), world.process() as (it, _):
        until(lambda: committed(it))
    (event,) = world.events()
    data = world.objects.get(BUCKET, event.pack_key)
    assert hashlib.sha256(data).hexdigest() == event.pack_sha256
    assert decode_manifest(world.objects.get(BUCKET, event.manifest_key)).pack.sha256 == event.pack_sha256


def test_another_compressor_keeps_what_s3_has(world: World) -> None:
    world.log.away = True
    with world.process() as (it, _):
        kept = send_large(it, "1.2.1", "1.2.2")
        until(lambda: bool(list(world.objects.list(BUCKET, manifest_key(kept.pack_id)))))
    before = world.objects.get(BUCKET, pack_key(kept.pack_id, ZSTD))
    world.log.away = False
    with another_compressor(), world.process() as (it, _):
        until(lambda: committed(it))
    assert {e.pack_sha256 for e in world.events()} == {hashlib.sha256(before).hexdigest()}
    assert world.objects.get(BUCKET, pack_key(kept.pack_id, ZSTD)) == before


def test_what_s3_has_lost_and_another_compressor_cannot_make_again_is_told(world: World) -> None:
    with world.process() as (it, _):
        kept = send_large(it, "1.2.1", "1.2.2")
        until(lambda: committed(it))
    world.objects.delete(BUCKET, pack_key(kept.pack_id, ZSTD))
    with another_compressor(), world.process() as (it, publisher):
        until(lambda: "S3 has lost" in publisher.stuck.get(kept.pack_id, ""))
        assert tar_path(it.shelf.folder, kept.pack_id).exists()


def test_a_disk_too_full_for_a_compressed_copy_sends_the_tar(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = made_ready(world)
    monkeypatch.setattr(packed, "_write", full)
    with world.process() as (it, _):
        until(lambda: committed(it))
        tar = tar_path(it.shelf.folder, kept.pack_id).read_bytes()
    (event,) = world.events()
    assert world.objects.get(BUCKET, event.pack_key) == tar
    assert event.pack_sha256 == hashlib.sha256(tar).hexdigest()


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, JPEG_2000])
def test_a_tar_that_the_disk_damages_before_it_is_packed_is_saved_as_far_as_it_goes(
    world: World, monkeypatch: pytest.MonkeyPatch, syntax: str
) -> None:
    taken = threading.Event()
    monkeypatch.setattr("infra.faults.point", lambda name: name == "publish.after-seal" and taken.wait(60))
    with world.process() as (it, _):
        kept = send_large(it, "1.2.1", "1.2.2", syntax=syntax)
        path = tar_path(it.shelf.folder, kept.pack_id)
        data = bytearray(path.read_bytes())
        data[data.index(b"1.2.1") + 700] ^= 1
        path.write_bytes(data)
        taken.set()
        until(lambda: committed(it) and bool(world.events()))
    (event,) = world.events()
    assert event.pack_id != kept.pack_id
    found = decode_manifest(world.objects.get(BUCKET, event.manifest_key))
    assert ([i.sop_uid for i in found.instances], found.pack.marks) == (["1.2.2"], ("salvaged",))


def test_senders_are_accepted_while_everything_is_away(world: World) -> None:
    world.log.away = world.objects.away = True
    with world.process() as (it, _):
        done = threading.Event()

        def sender() -> None:
            for n in range(20):
                send(it, f"1.2.{n}", study=f"1.7.{n}")
            done.set()

        threading.Thread(target=sender).start()
        assert done.wait(60)
        world.log.away = world.objects.away = False
        until(lambda: committed(it))
    assert len(world.events()) == 20
