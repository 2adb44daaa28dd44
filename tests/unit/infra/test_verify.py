"""verify-log on a log in memory: what is whole passes, and each way to damage it is found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from infra import anchors, verify
from infra.anchors import Anchor
from infra.memory import MemoryLog, MemoryObjects
from infra.ports import Stored
from infra.verify import Report
from schemas.envelope import GENESIS, Link, Record, encode, record_hash
from schemas.errors import Transient
from schemas.events import DeadLetter, Event, PackArchived, PackStored, ReportIssued
from tests.unit.infra.chains import SOURCE, rejected

PACK_ID = "01920000-0000-7000-8000-000000000001"
TIME = "2025-03-01T08:15:00Z"
OTHER = "/api/LOCAL/1"


class Archive:
    """A log and objects, filled by events of several kinds in two chains, then damaged by a test."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.objects = MemoryObjects()
        self.heads: dict[str, tuple[int, str]] = {}
        self.put("packs", "a.tar", b"pack")
        self.put("packs", "a.manifest", b"manifest")
        self.put("archive", "a.tar", b"pack")
        self.put("archive", "a.manifest", b"manifest")
        self.put("documents", "report.json", b"report")
        self.put("documents", "dead-letters/x", b"sealed")
        for n in range(3):
            self.publish(rejected(n), SOURCE)
        self.publish(stored(), SOURCE)
        self.publish(issued(), OTHER)
        self.publish(self.archived(), OTHER)
        self.publish(dead(), OTHER)
        for n in range(3, 6):
            self.publish(rejected(n), SOURCE)

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self.objects.put(bucket, key, body, sha256=sha(body))

    def archived(self) -> PackArchived:
        return PackArchived(
            pack_id=PACK_ID,
            study_uid="1.2.3",
            bucket="archive",
            pack_key="a.tar",
            version_id=self.objects.head("archive", "a.tar").version_id,
            size=4,
            sha256=sha(b"pack"),
            manifest_key="a.manifest",
            manifest_version_id=self.objects.head("archive", "a.manifest").version_id,
            manifest_sha256=sha(b"manifest"),
            retain_until=TIME,
            policy="five-years",
        )

    def publish(self, event: Event, source: str) -> Record:
        sequence, prevhash = self.heads.get(source, (0, GENESIS))
        link = Link(sequence + 1, prevhash)
        record = encode(event, id=f"{source}{sequence}", source=source, time=TIME, link=link)
        self.heads[source] = (sequence + 1, record_hash(record))
        self.log.append(record).result()
        return record

    def anchor(self, source: str) -> None:
        sequence, hash = self.heads[source]
        head = Anchor(source=source, sequence=sequence, hash=hash, time=TIME)
        anchors.write(self.objects, "anchors", head)

    def places(self, source: str) -> list[tuple[list[Stored], int]]:
        """(partition, index) of each record of a source, in the order of its sequence."""
        found = []
        for partitions in self.log._topics.values():
            for partition in partitions:
                for n, record in enumerate(partition):
                    headers = dict(record.headers)
                    if headers["ce_source"] == source.encode():
                        found.append((int(headers["ce_sequence"]), partition, n))
        return [(partition, n) for _, partition, n in sorted(found, key=lambda f: f[0])]

    def verify(self, *, fast: bool = False) -> Report:
        return verify.verify(self.log, self.objects, documents="documents", anchors="anchors", fast=fast)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def stored() -> PackStored:
    return PackStored(
        pack_id=PACK_ID,
        study_uid="1.2.3",
        site="LOCAL",
        gateway=SOURCE,
        door="stow",
        bucket="packs",
        pack_key="a.tar",
        pack_size=4,
        pack_sha256=sha(b"pack"),
        manifest_key="a.manifest",
        manifest_size=8,
        manifest_sha256=sha(b"manifest"),
        instances=1,
        opened=TIME,
        sealed=TIME,
    )


def issued() -> ReportIssued:
    return ReportIssued(
        report_id=PACK_ID,
        version=1,
        status="final",
        study_uids=["1.2.3"],
        site="LOCAL",
        issued=TIME,
        bucket="documents",
        document_key="report.json",
        document_size=6,
        document_sha256=sha(b"report"),
    )


def dead() -> DeadLetter:
    return DeadLetter(
        reason="schema-violation",
        origin_topic="sijil.reports",
        origin_partition=0,
        origin_offset=1,
        payload_key="dead-letters/x",
        payload_sha256=sha(b"sealed"),
        consumer="/worker/LOCAL/1",
    )


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "SETTLE_S", 0.0)


@pytest.fixture
def archive() -> Archive:
    made = Archive()
    made.anchor(SOURCE)
    made.anchor(OTHER)
    return made


@pytest.mark.parametrize("fast", [False, True])
def test_whole(archive: Archive, fast: bool) -> None:
    report = archive.verify(fast=fast)
    assert report.faults == []
    assert {s: (c.records, c.last, c.anchors, c.anchored) for s, c in report.chains.items()} == {
        SOURCE: (7, 7, 1, 7),
        OTHER: (3, 3, 1, 3),
    }
    assert {k: (o.checked, o.bytes) for k, o in report.objects.items()} == {
        "archive copy": (1, 4),
        "archived manifest": (1, 8),
        "dead letter": (1, 6),
        "manifest": (1, 8),
        "pack": (1, 4),
        "report": (1, 6),
    }
    assert sum(t.records for t in report.topics.values()) == 10


def test_identical_repetitions_are_accepted(archive: Archive) -> None:
    for partition, n in archive.places(SOURCE)[2:5]:
        record = partition[n]
        topic = record.position.topic
        archive.log.append(Record(topic, record.key or b"", record.headers, record.value or b"")).result()
    report = archive.verify()
    assert report.faults == []
    assert sum(t.repeated for t in report.topics.values()) == 3
    assert report.objects["pack"].checked == 1


def test_what_is_outside_any_chain_is_told_and_checked(archive: Archive) -> None:
    external = encode(stored(), id="x", source="urn:vendor", time=TIME)
    archive.log.append(external).result()
    archive.log.append(Record(external.topic, b"k", (), b"no CloudEvent")).result()
    archive.log.append(replace_value(external, b'{"pack_id": 5}')).result()
    report = archive.verify()
    assert report.faults == []
    assert report.unchained == {"urn:vendor": 2}
    assert report.topics["sijil.study.arrivals"].unchained == 2
    assert report.topics["sijil.study.arrivals"].unreadable == 2
    assert report.objects["pack"].checked == 2


def replace_value(record: Record, value: bytes) -> Record:
    return Record(record.topic, record.key, record.headers, value)


# ------------------------------------------------------------------------------------------------ damage to the log


def removed(archive: Archive) -> None:
    partition, n = archive.places(SOURCE)[2]
    del partition[n]


def swapped(archive: Archive) -> None:
    """Two records exchange their payloads."""
    (p1, n1), (p2, n2) = archive.places(SOURCE)[1:3]
    p1[n1], p2[n2] = replace(p1[n1], value=p2[n2].value), replace(p2[n2], value=p1[n1].value)


def renumbered(archive: Archive) -> None:
    """Two records exchange their sequences."""
    (p1, n1), (p2, n2) = archive.places(SOURCE)[1:3]
    h1, h2 = dict(p1[n1].headers), dict(p2[n2].headers)
    h1["ce_sequence"], h2["ce_sequence"] = h2["ce_sequence"], h1["ce_sequence"]
    p1[n1], p2[n2] = replace(p1[n1], headers=tuple(h1.items())), replace(p2[n2], headers=tuple(h2.items()))


def changed(archive: Archive) -> None:
    partition, n = archive.places(SOURCE)[1]
    value = partition[n].value or b""
    partition[n] = replace(partition[n], value=value.replace(b"not-dicom", b"too-large"))


def last_changed(archive: Archive) -> None:
    """Nothing is chained to it: only the anchor knows."""
    partition, n = archive.places(SOURCE)[-1]
    value = partition[n].value or b""
    partition[n] = replace(partition[n], value=value.replace(b"not-dicom", b"too-large"))


def tail_lost(archive: Archive) -> None:
    for partition, n in reversed(archive.places(SOURCE)[5:]):
        del partition[n]


def chain_lost(archive: Archive) -> None:
    for partition, n in sorted(archive.places(OTHER), key=lambda p: -p[1]):
        del partition[n]


def added(archive: Archive) -> None:
    """A second record with a sequence that has one."""
    sequence, prevhash = archive.heads[SOURCE]
    record = encode(rejected(9), id="forged", source=SOURCE, time=TIME, link=Link(sequence, prevhash))
    archive.log.append(record).result()


def begun_late(archive: Archive) -> None:
    partition, n = archive.places(SOURCE)[0]
    del partition[n]


def impossible(archive: Archive) -> None:
    record = encode(rejected(9), id="forged", source=SOURCE, time=TIME, link=Link(10**15, GENESIS))
    archive.log.append(record).result()


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (removed, f"{SOURCE}: sequence 3: missing from the log"),
        (swapped, f"{SOURCE}: sequence 2: not the record that the next one was chained to"),
        (renumbered, f"{SOURCE}: sequence 2: not the record that the next one was chained to"),
        (changed, f"{SOURCE}: sequence 2: not the record that the next one was chained to"),
        (last_changed, f"{SOURCE}: sequence 7: not the record that was anchored"),
        (tail_lost, f"{SOURCE}: sequences 6 to 7: anchored, and missing from the end of the log"),
        (chain_lost, f"{OTHER}: sequences 1 to 3: anchored, and missing from the end of the log"),
        (added, f"{SOURCE}: sequence 7: in the log with two contents"),
        (begun_late, f"{SOURCE}: sequence 1: missing from the log"),
        (impossible, f"{SOURCE}: sequence {10**15}: no chain has so many records"),
    ],
)
def test_damage_to_the_log_is_found(archive: Archive, damage: Callable[[Archive], None], fault: str) -> None:
    damage(archive)
    report = archive.verify()
    assert fault in report.faults
    assert {c for c, found in report.chains.items() if found.faults} == {fault.split(":")[0]}


def test_a_gap_that_closes_while_it_is_looked_at_is_none(archive: Archive) -> None:
    partition, n = archive.places(SOURCE)[2]
    late = partition.pop(n)

    class Late(MemoryLog):
        asked = 0

        def ends(self, topic: str) -> dict[int, int]:
            Late.asked += 1
            if Late.asked == 3 * len(archive.log._topics):
                partition.append(replace(late, position=replace(late.position, offset=len(partition))))
            return super().ends(topic)

    log = Late()
    log._topics = archive.log._topics
    archive.log = log
    assert archive.verify().faults == []


# ------------------------------------------------------------------------------------------------ damage to S3


OBJECTS = [
    ("packs", "a.tar", "pack"),
    ("packs", "a.manifest", "manifest"),
    ("archive", "a.tar", "archive copy"),
    ("documents", "report.json", "report"),
    ("documents", "dead-letters/x", "dead letter"),
]


@pytest.mark.parametrize(("bucket", "key", "kind"), OBJECTS)
def test_changed_bytes_are_found_unless_fast(archive: Archive, bucket: str, key: str, kind: str) -> None:
    size = archive.objects.head(bucket, key).size
    archive.objects.damage(bucket, key, b"?" * size)
    assert archive.verify().faults == [f"{kind} {bucket}/{key}: another SHA-256 than the event's"]
    assert archive.verify(fast=True).faults == [], "it believes the checksums that S3 keeps"


@pytest.mark.parametrize("key", ["stray", anchors.key(SOURCE, 3)])
def test_what_is_no_anchor_is_found(archive: Archive, key: str) -> None:
    archive.put("anchors", key, b"not an anchor")
    assert archive.verify().faults == [f"anchors/{key} is no anchor"]


@pytest.mark.parametrize("fast", [False, True])
def test_a_removed_pack_is_found(archive: Archive, fast: bool) -> None:
    archive.objects.delete("packs", "a.tar")
    assert archive.verify(fast=fast).faults == ["pack packs/a.tar: missing"]


def test_an_archive_copy_under_a_delete_marker_is_there(archive: Archive) -> None:
    archive.objects.delete("archive", "a.tar")
    assert archive.verify().faults == []


def test_a_shorter_pack_is_found(archive: Archive) -> None:
    archive.objects.damage("packs", "a.tar", b"pac")
    assert archive.verify().faults == ["pack packs/a.tar: 3 bytes, the event says 4"]


def test_a_pack_replaced_by_another_version_is_found(archive: Archive) -> None:
    archive.objects.delete("packs", "a.tar")
    archive.put("packs", "a.tar", b"pick")
    for fast in (False, True):
        assert archive.verify(fast=fast).faults == ["pack packs/a.tar: another SHA-256 than the event's"]


def test_a_server_away_is_no_verdict(archive: Archive) -> None:
    archive.objects.away = True
    with pytest.raises(Transient):
        archive.verify()
    archive.objects.away = False
    archive.log.away = True
    with pytest.raises(Transient):
        archive.verify()


def test_scratch_is_removed(archive: Archive, tmp_path: Path) -> None:
    verify.verify(archive.log, archive.objects, documents="documents", anchors="anchors", scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []
