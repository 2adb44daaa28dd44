"""The proof of accesses: what is whole passes from any time on, and each forgery is found and named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import msgspec
import pytest

from infra import anchors, verify_accesses
from infra.anchors import Anchor
from infra.memory import MemoryLog, MemoryObjects
from infra.ports import Stored
from infra.verify_accesses import Proof, prove
from schemas.envelope import GENESIS, Link, Record, encode, record_hash
from schemas.errors import Transient
from schemas.events import AccessGranted, AccessUsed, Event, Shown
from tests.unit.infra.chains import rejected

API, GATEWAY = "/api/LOCAL/1", "/gateway/LOCAL/1"
T0 = datetime(2026, 11, 1, tzinfo=UTC)
MINUTE = 60_000


def granted(n: int, **more: object) -> AccessGranted:
    """The n-th search."""
    event = AccessGranted(
        access_id=access_id(n),
        actor="person:7",
        role="doctor",
        purpose="TREAT",
        action="search",
        occurred="2026-11-01T00:00:00Z",
        shown=[Shown(study_uid=f"1.2.{n}")],
        shown_count=1,
    )
    return msgspec.structs.replace(event, **more)


def used(n: int) -> AccessUsed:
    """The count of a window."""
    return AccessUsed(
        access_id=access_id(n),
        actor="person:7",
        role="doctor",
        purpose="TREAT",
        action="retrieve",
        occurred="2026-11-01T00:00:00Z",
        study_uid=f"1.2.{n}",
        uses=2,
        last_used="2026-11-01T00:00:00Z",
    )


def access_id(n: int) -> str:
    return f"01920000-0000-7000-8000-{n:012d}"


class Trail:
    """A log of an hour: each minute an access and two rejections, every ten minutes an anchor of each chain."""

    def __init__(self) -> None:
        self.log, self.objects = MemoryLog(), MemoryObjects()
        self.heads: dict[str, tuple[int, str]] = {}
        self.minute = 0
        for n in range(60):
            self.minute = n
            self.publish(granted(n) if n % 3 else used(n), API)
            self.publish(rejected(n), GATEWAY)
            self.publish(rejected(1000 + n), API)
            if n % 10 == 9:
                self.anchor(API)
                self.anchor(GATEWAY)

    @property
    def now_ms(self) -> int:
        return round(T0.timestamp() * 1000) + self.minute * MINUTE

    def publish(self, event: Event, source: str) -> None:
        sequence, prevhash = self.heads.get(source, (0, GENESIS))
        time = (T0 + timedelta(minutes=self.minute)).isoformat().replace("+00:00", "Z")
        record = encode(event, id=f"{source}{sequence}", source=source, time=time, link=Link(sequence + 1, prevhash))
        self.heads[source] = (sequence + 1, record_hash(record))
        self.append(record)

    def append(self, record: Record) -> None:
        with patch("infra.memory.clock.now_ms", return_value=self.now_ms):
            self.log.append(record).result()

    def anchor(self, source: str) -> None:
        sequence, hash = self.heads[source]
        time = (T0 + timedelta(minutes=self.minute, seconds=1)).isoformat().replace("+00:00", "Z")
        anchors.write(self.objects, "anchors", Anchor(source=source, sequence=sequence, hash=hash, time=time))

    def places(self, source: str) -> list[tuple[list[Stored], int]]:
        """(partition, index) of each record of a source, in the order of its sequence."""
        found = []
        for partition in (p for topic in self.log._topics.values() for p in topic):
            for n, record in enumerate(partition):
                headers = dict(record.headers)
                if headers.get("ce_source") == source.encode() and "ce_sequence" in headers:
                    found.append((int(headers["ce_sequence"]), partition, n))
        return [(partition, n) for _, partition, n in sorted(found, key=lambda f: f[0])]

    def prove(self, since_minutes: float | None = None) -> Proof:
        since = None if since_minutes is None else T0 + timedelta(minutes=since_minutes)
        return prove(self.log, self.objects, documents="documents", anchors="anchors", since=since)


@pytest.fixture
def trail(monkeypatch: pytest.MonkeyPatch) -> Trail:
    monkeypatch.setattr(verify_accesses, "SETTLE_S", 0.0)
    return Trail()


# ------------------------------------------------------------------------------------------------ whole


def test_a_whole_trail_from_the_beginning(trail: Trail) -> None:
    proof = trail.prove()
    assert proof.faults == []
    assert proof.accesses == {"access.granted.v1": 40, "access.used.v1": 20}
    chain = proof.chains[API]
    assert (chain.base, chain.records, chain.last, chain.anchored, chain.unanchored) == (0, 120, 120, 120, 0)


@pytest.mark.parametrize("minute", [0, 0.5, 9.5, 25, 30.5, 59])
def test_from_any_time_on_the_chain_is_taken_up_at_the_anchor_before(trail: Trail, minute: float) -> None:
    proof = trail.prove(minute)
    assert proof.faults == []
    assert sum(proof.accesses.values()) == sum(n >= minute for n in range(60))
    assert proof.chains[API].base == int((minute + 0.5) // 10) * 20
    assert proof.chains[API].records == 120 - proof.chains[API].base


def test_of_a_time_that_is_not_yet_there_is_nothing_to_prove(trail: Trail) -> None:
    proof = trail.prove(100)
    assert (proof.faults, sum(proof.accesses.values()), proof.chains) == ([], 0, {})


def test_what_reached_the_log_long_before_its_anchor_is_looked_for_further_back(trail: Trail) -> None:
    trail.minute = 60
    sequence, hash = trail.heads[API]
    for n in range(3):
        trail.publish(granted(100 + n), API)
    late = Anchor(source=API, sequence=sequence, hash=hash, time="2026-11-01T03:00:00Z")
    trail.objects._keys.pop(("anchors", anchors.key(API, sequence)))
    anchors.write(trail.objects, "anchors", late)
    trail.minute = 190
    trail.publish(granted(200), API)
    proof = trail.prove(185)
    assert (proof.faults, sum(proof.accesses.values()), proof.chains[API].base) == ([], 1, sequence)
    assert proof.chains[API].records == 4


def test_identical_repetitions_are_accepted(trail: Trail) -> None:
    partition, n = trail.places(API)[-2]
    stored = partition[n]
    trail.append(Record(stored.position.topic, stored.key or b"", stored.headers, stored.value or b""))
    proof = trail.prove(50)
    assert (proof.faults, proof.repeated, sum(proof.accesses.values())) == ([], 1, 10)


def test_a_tail_that_is_not_anchored_yet_is_told(trail: Trail) -> None:
    trail.publish(granted(99), API)
    proof = trail.prove(30)
    assert proof.faults == []
    assert proof.chains[API].unanchored == 1


def test_the_proof_is_told_to_scripts(trail: Trail) -> None:
    told = json.loads(json.dumps(asdict(trail.prove(30))))
    assert told["accesses"] == {"access.granted.v1": 20, "access.used.v1": 10}


# ------------------------------------------------------------------------------------------------ forged


def access(trail: Trail, minute: int) -> tuple[list[Stored], int]:
    """The access of a minute."""
    return trail.places(API)[2 * minute]


def removed(trail: Trail) -> None:
    partition, n = access(trail, 40)
    del partition[n]


def changed(trail: Trail) -> None:
    partition, n = access(trail, 40)
    partition[n] = replace(partition[n], value=(partition[n].value or b"").replace(b"person:7", b"person:8"))


def all_removed(trail: Trail) -> None:
    for minute in reversed(range(35, 60)):
        partition, n = access(trail, minute)
        del partition[n]


def tail_removed(trail: Trail) -> None:
    for partition, n in reversed(trail.places(API)[100:]):
        del partition[n]


def last_changed(trail: Trail) -> None:
    """Nothing is chained to it: only the anchor knows. The last event is no access, so one is added."""
    trail.publish(granted(77), API)
    trail.anchor(API)
    partition, n = trail.places(API)[-1]
    partition[n] = replace(partition[n], value=(partition[n].value or b"").replace(b"person:7", b"person:8"))


def slipped_in(trail: Trail) -> None:
    trail.append(encode(granted(88), id="x", source="urn:forger", time="2026-11-01T00:59:00Z"))


def slipped_into_the_chain(trail: Trail) -> None:
    sequence, prevhash = trail.heads[API]
    forged = encode(granted(88), id="x", source=API, time="2026-11-01T00:59:00Z", link=Link(sequence, prevhash))
    trail.append(forged)


def a_chain_of_the_forgers_own(trail: Trail) -> None:
    """Removed with all that came after, and a new end forged: it hangs together, and misses the anchors."""
    for partition, n in reversed(trail.places(API)[80:]):
        del partition[n]
    partition, n = trail.places(API)[-1]
    last = partition[n]
    record = Record(last.position.topic, last.key or b"", last.headers, last.value or b"")
    trail.heads[API] = (80, record_hash(record))
    for n in range(40):
        trail.publish(granted(500 + n), API)


@pytest.mark.parametrize(
    ("forge", "fault"),
    [
        (removed, f"{API}: sequence 81: missing from the log"),
        (changed, f"{API}: sequence 81: not the record that the next one was chained to"),
        (all_removed, f"{API}: sequence 71: missing from the log"),
        (tail_removed, f"{API}: sequences 101 to 120: anchored, and missing from the end of the log"),
        (last_changed, f"{API}: sequence 121: not the record that was anchored"),
        (slipped_into_the_chain, f"{API}: sequence 120: in the log with two contents"),
        (a_chain_of_the_forgers_own, f"{API}: sequence 100: not the record that was anchored"),
    ],
)
@pytest.mark.parametrize("since", [None, 0.0, 35.0])
def test_each_forgery_is_found(trail: Trail, forge: Callable[[Trail], None], fault: str, since: float | None) -> None:
    forge(trail)
    faults = trail.prove(since).faults
    assert fault in faults
    assert all(f.startswith(API) for f in faults)


def test_what_no_chain_vouches_for_is_found(trail: Trail) -> None:
    slipped_in(trail)
    (fault,) = trail.prove(30).faults
    assert fault.startswith("sijil.accesses/")
    assert fault.endswith("(urn:forger): is in no chain: nobody vouches for it")


def test_a_forgery_before_the_anchor_that_one_begins_at_is_not_asked_about(trail: Trail) -> None:
    removed(trail)
    assert trail.prove(55).faults == []


@pytest.mark.parametrize("how", ["changed", "removed"])
def test_a_list_of_what_was_shown_that_changed_is_found(trail: Trail, how: str) -> None:
    body = msgspec.json.encode([Shown(study_uid="1.2.3")])
    digest = hashlib.sha256(body).hexdigest()
    key = f"accesses/{access_id(5)}.json"
    trail.objects.put("documents", key, body, sha256=digest)
    trail.publish(granted(5, shown=[], shown_count=200, shown_list=key, shown_list_sha256=digest), API)
    assert trail.prove(30).faults == []
    if how == "changed":
        trail.objects.damage("documents", key, body.replace(b"1.2.3", b"1.2.4"))
        expected = "another SHA-256 than the event's"
    else:
        trail.objects.delete("documents", key)
        expected = "missing"
    assert trail.prove(30).faults == [f"access list documents/{key}: {expected}"]


def test_an_anchor_that_is_none_is_a_fault(trail: Trail) -> None:
    trail.objects.damage("anchors", anchors.key(API, 100), b"?")
    assert any("is no anchor" in f for f in trail.prove(30).faults)


def test_a_server_away_is_no_verdict(trail: Trail) -> None:
    trail.log.away = True
    with pytest.raises(Transient):
        trail.prove(30)
