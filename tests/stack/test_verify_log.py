"""`sijil verify-log` and `sijil dead-letters` on the real servers, as an operator calls them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from infra import clock, s3
from infra.chain import ChainedLog
from infra.dead_letters import DeadLetters
from infra.kafka import KafkaLog, connection
from infra.objects import S3Objects
from infra.ports import Stored
from infra.settings import Settings
from schemas.envelope import Record, encode
from schemas.events import AccessGranted, DeadLetter, ReportIssued, Shown
from tests.local_stack import SERVERS, LocalStack, superuser

pytestmark = pytest.mark.connected

TOPIC = "sijil.reports"
NOBODY = "/nobody/TEST/1"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """Servers of this module's own: elsewhere, tests publish events whose objects never were."""
    own = LocalStack.at(tmp_path_factory.mktemp("verify") / ".sijil")
    own.start(SERVERS)
    yield own
    own.remove()


@pytest.fixture
def admin(stack: LocalStack) -> Settings:
    """The administrator of these servers."""
    return stack.settings("admin")


@pytest.fixture
def worker(stack: LocalStack) -> Settings:
    """Whoever may write documents and has the key of the dead letters."""
    return stack.settings("worker")


@pytest.fixture
def log(worker: Settings) -> Iterator[KafkaLog]:
    log = KafkaLog(superuser(worker))
    yield log
    log.close()


@pytest.fixture
def objects(worker: Settings) -> Iterator[S3Objects]:
    objects = S3Objects(worker)
    yield objects
    objects.close()


@pytest.fixture
def chain(worker: Settings, log: KafkaLog, objects: S3Objects, tmp_path: Path) -> Iterator[ChainedLog]:
    source = f"/test/VERIFY/{clock.uuid7()}"
    anchors = (objects, worker.bucket_anchors)
    chain = ChainedLog(log, tmp_path, source, backlog_max=100, anchors=anchors, anchor_interval_s=0.1)
    yield chain
    chain.close(10)


def verified(stack: LocalStack, *options: str) -> tuple[int, dict[str, Any]]:
    done = stack.sijil("verify-log", "--json", *options)
    return done.returncode, json.loads(done.stdout)


def issued(worker: Settings, objects: S3Objects) -> ReportIssued:
    """A report whose document is in S3."""
    report_id = str(clock.uuid7())
    body = report_id.encode()
    sha256 = hashlib.sha256(body).hexdigest()
    key = f"reports/{report_id}/1.json"
    objects.put(worker.bucket_documents, key, body, sha256=sha256)
    return ReportIssued(
        report_id=report_id,
        version=1,
        status="final",
        study_uids=["1.2.3"],
        site="LOCAL",
        issued=clock.rfc3339(clock.now()),
        bucket=worker.bucket_documents,
        document_key=key,
        document_size=len(body),
        document_sha256=sha256,
    )


def test_a_chain_and_a_document_lost_and_back(
    stack: LocalStack, admin: Settings, worker: Settings, chain: ChainedLog, objects: S3Objects
) -> None:
    event = issued(worker, objects)
    for _ in range(3):
        chain.publish(event).acknowledged.result(30)
    status, told = verified(stack)
    assert (status, told["faults"]) == (0, [])
    assert told["chains"][chain.source]["records"] == 3
    assert told["objects"]["report"]["checked"] >= 3

    s3.client(admin).delete_object(Bucket=event.bucket, Key=event.document_key)
    for options in ([], ["--fast"]):
        status, told = verified(stack, *options)
        assert status == 1
        assert set(told["faults"]) == {f"report {event.bucket}/{event.document_key}: missing"}

    body = event.report_id.encode()
    objects.put(event.bucket, event.document_key, body, sha256=event.document_sha256)
    assert verified(stack)[0] == 0
    done = stack.sijil("verify-log")
    assert done.returncode == 0
    assert chain.source[:20] in done.stdout
    assert "no fault: the log is whole" in done.stdout


def searched() -> AccessGranted:
    """Somebody found a study."""
    return AccessGranted(
        access_id=str(clock.uuid7()),
        actor="person:7",
        role="doctor",
        purpose="TREAT",
        action="search",
        occurred=clock.rfc3339(clock.now()),
        shown=[Shown(study_uid="1.2.3")],
        shown_count=1,
    )


def proved(stack: LocalStack, since: str) -> tuple[int, dict[str, Any]]:
    done = stack.sijil("verify-log", "--accesses", "--since", since, "--json")
    return done.returncode, json.loads(done.stdout)


def test_accesses_are_proved_and_a_forger_is_found(
    stack: LocalStack, admin: Settings, chain: ChainedLog, log: KafkaLog
) -> None:
    since = clock.rfc3339(clock.now())
    places = [chain.publish(searched()).acknowledged.result(30) for _ in range(5)]
    status, told = proved(stack, since)
    assert (status, told["faults"], told["accesses"]) == (0, [], {"access.granted.v1": 5})
    assert told["chains"][chain.source]["records"] == 5
    assert proved(stack, clock.rfc3339(clock.now() + timedelta(hours=1)))[1]["accesses"] == {}

    # One that no chain has: it is found, though nothing is missing.
    log.append(encode(searched(), id="forged", source="/forger/X/1", time=since)).result(30)
    status, told = proved(stack, since)
    (fault,) = told["faults"]
    assert (status, fault.endswith("(/forger/X/1): is in no chain: nobody vouches for it")) == (1, True)

    # Somebody whom no ACL binds removes the third and what its partition had before it.
    client = AdminClient(connection(superuser(admin)))
    gone = places[2]
    client.delete_records([TopicPartition(gone.topic, gone.partition, gone.offset + 1)])[
        TopicPartition(gone.topic, gone.partition)
    ].result(30)
    done = stack.sijil("verify-log", "--accesses", "--since", since)
    assert done.returncode == 1
    missing = rf"FAULT {re.escape(chain.source)}: sequences? ([12] to )?3: missing from the log"
    assert re.search(missing, done.stdout)
    assert "the record of accesses since" in done.stdout


def test_dead_letters(
    stack: LocalStack, worker: Settings, chain: ChainedLog, log: KafkaLog, objects: S3Objects
) -> None:
    headers = (("ce_id", b"1"), ("ce_source", NOBODY.encode()), ("ce_type", b"report.issued.v1"))
    broken = Record(TOPIC, b"k", headers, b'{"report_id": "AHMED"}')
    place = log.append(broken).result(30)
    record = next(iter(log.read(TOPIC, {place.partition: place.offset}, {place.partition: place.offset + 1})))
    key, sha256 = DeadLetters.open(worker, objects).keep(record)
    letter = DeadLetter(
        reason="schema-violation",
        origin_topic=TOPIC,
        origin_partition=place.partition,
        origin_offset=place.offset,
        origin_type="report.issued.v1",
        payload_key=key,
        payload_sha256=sha256,
        consumer=chain.source,
    )
    chain.publish(letter, id=f"dead-{place.partition}-{place.offset}-{clock.uuid7()}").acknowledged.result(30)
    id = f"{TOPIC}/{place.partition}/{place.offset}"

    listed = json.loads(stack.sijil("dead-letters", "list", "--json", "--reason", "schema-violation").stdout)
    (mine,) = [row for row in listed if row["id"] == id]
    assert (mine["type"], mine["consumer"]) == ("report.issued.v1", chain.source)
    assert id in stack.sijil("dead-letters", "list").stdout

    shown = stack.sijil("dead-letters", "show", id).stdout
    assert json.loads(shown)["reason"] == "schema-violation"
    assert "AHMED" not in shown
    opened = json.loads(stack.sijil("dead-letters", "show", id, "--payload").stdout)
    assert opened["payload"] == '{"report_id": "AHMED"}'
    assert stack.sijil("dead-letters", "show", "no/such/1").returncode == 1

    before = log.ends(TOPIC)[place.partition]
    assert stack.sijil("dead-letters", "retry", id).returncode == 0
    again = list(log.read(TOPIC, {place.partition: before}, {place.partition: before + 1}))
    assert [_bytes(r) for r in again] == [_bytes(record)]
    assert stack.sijil("dead-letters", "retry").returncode == 2


def _bytes(record: Stored) -> tuple[Any, ...]:
    return record.key, record.headers, record.value
