"""Each role at the real Kafka: what it may, what it may not, and that nobody deletes."""

from __future__ import annotations

import socket
import struct
import subprocess
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

from infra.kafka import connection
from infra.kafka_grants import NOT_FOR_ANALYSTS, READS, WRITES, grants
from infra.settings import ROLES, Role, Settings
from infra.stack import kafka_users
from schemas.topics import PREFIX, TOPICS
from tests.local_stack import LocalStack

pytestmark = pytest.mark.connected

WRITTEN = "sijil.sites"
"""A topic in which a record that is no event bothers nobody."""
KEPT = "sijil.reading"
"""A topic that every role may see."""


def may_write(settings: Settings, topic: str) -> bool:
    """Whether a record is taken."""
    seen: list[KafkaError | None] = []
    producer = Producer(connection(settings) | {"acks": "all", "message.timeout.ms": 10_000})
    producer.produce(topic, b"{}", b"grant", on_delivery=lambda error, _: seen.append(error))
    producer.flush(15)
    assert seen, "no answer"
    if seen[0] is not None:
        assert seen[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED, seen[0]
    return seen[0] is None


def may_read(settings: Settings, topic: str, group: str = "sijil-read") -> bool:
    """Whether its records can be fetched."""
    consumer = Consumer(
        connection(settings) | {"group.id": group, "enable.partition.eof": True, "auto.offset.reset": "earliest"}
    )
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        for _ in range(30):
            for message in consumer.consume(1, 0.5):
                error = message.error()
                if error is None or error.code() == KafkaError._PARTITION_EOF:
                    return True
                denied = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
                if error.code() in denied:
                    return False
        raise AssertionError("no answer")
    finally:
        consumer.close()


def refused(futures: dict[Any, Any]) -> bool:
    """Whether all of them fail for want of a right, or because the cluster allows it to nobody."""
    codes = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
    codes |= {KafkaError.TOPIC_DELETION_DISABLED, KafkaError.GROUP_AUTHORIZATION_FAILED}
    for future in futures.values():
        try:
            future.result(20)
        except KafkaException as error:
            if error.args[0].code() not in codes:
                raise
        else:
            return False
    return True


def test_a_role_writes_and_reads_its_topics_and_no_others(stack: LocalStack) -> None:
    denied_write = {"gateway": "reports", "api": "study.lifecycle", "worker": "orders", "archiver": "patients"}
    for role, topic in denied_write.items():
        assert not may_write(stack.settings(role), PREFIX + topic), role  # type: ignore[arg-type]
    for role in ("operator", "analytics"):
        assert not may_write(stack.settings(role), WRITTEN), role  # type: ignore[arg-type]
    for role in ("api", "admin"):  # admin: dead letters go back
        assert may_write(stack.settings(role), WRITTEN), role  # type: ignore[arg-type]
    assert not may_read(stack.settings("gateway"), "sijil.accesses")
    assert not may_read(stack.settings("admin"), "sijil.accesses")
    seen = AdminClient(connection(stack.settings("analytics"))).list_topics(timeout=20).topics
    assert {PREFIX + name for name in READS["analytics"]} <= set(seen)
    assert not {PREFIX + name for name in NOT_FOR_ANALYSTS} & set(seen), "analysts do not even see them"
    for role in ("api", "worker", "archiver", "delivery", "operator"):
        assert may_read(stack.settings(role), WRITTEN), role  # type: ignore[arg-type]
    assert may_read(stack.settings("analytics"), "sijil.reading")
    other = Consumer(connection(stack.settings("api")) | {"group.id": "sijil-worker-sijil_views"})
    with pytest.raises(KafkaException):  # where a projection goes on is nobody else's to say
        other.commit(offsets=[TopicPartition(WRITTEN, 0, 1)], asynchronous=False)
    other.close()


@pytest.mark.parametrize("role", ROLES)
def test_nobody_deletes_or_changes_what_is_kept(stack: LocalStack, role: Role) -> None:
    admin = AdminClient(connection(stack.settings(role)))
    assert refused(admin.delete_records([TopicPartition(KEPT, 0, 1)], request_timeout=10.0))
    assert refused(admin.delete_topics([KEPT], request_timeout=10.0))
    forget = ConfigEntry("retention.ms", "1", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, KEPT, incremental_configs=[forget])
    assert refused(admin.incremental_alter_configs([resource], request_timeout=10.0))
    assert refused(admin.create_partitions([NewPartitions(KEPT, 12)], request_timeout=10.0))
    assert refused(admin.create_topics([NewTopic("mine", 1, 1)], request_timeout=10.0))
    assert refused(admin.delete_consumer_groups(["sijil-worker-sijil_views"], request_timeout=10.0))


def test_who_has_no_login_gets_nothing(stack: LocalStack) -> None:
    api = stack.settings("api")
    others = (
        replace(api, kafka_security_protocol="PLAINTEXT"),
        replace(api, kafka_password=api.kafka_password + "x"),
        replace(api, kafka_username="sijil_nobody"),
        replace(api, kafka_username=stack.settings("gateway").kafka_username),
    )
    for settings in others:
        admin = AdminClient(connection(settings))
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=3)


def test_neither_does_who_comes_by_the_controllers_port(stack: LocalStack) -> None:
    port = stack.settings("admin").stack_kafka_controller_port
    with socket.create_connection(("127.0.0.1", port), 10) as c:
        body = struct.pack(">hhih", 3, 4, 1, 1) + b"x" + struct.pack(">ib", 0, 0)
        c.sendall(struct.pack(">i", len(body)) + body)
        assert c.recv(100) == b"", "closed: nothing is answered before a login"


def test_no_password_is_on_a_command_line(stack: LocalStack) -> None:
    shown = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    for role in ROLES:
        assert stack.settings(role).kafka_password not in shown


def test_users_are_made_once_and_a_new_password_counts(stack: LocalStack) -> None:
    admin = stack.settings("admin")
    assert not kafka_users.ensure(admin)
    file = stack.home / "secrets" / "analytics.env"
    before = file.read_text(encoding="utf-8")
    old = stack.settings("analytics")
    try:
        file.write_text(before.replace(old.kafka_password, "another-password"), encoding="utf-8")
        assert kafka_users.ensure(admin)
        assert AdminClient(connection(stack.settings("analytics"))).list_topics(timeout=10).topics
        with pytest.raises(KafkaException):
            AdminClient(connection(old)).list_topics(timeout=3)
    finally:
        file.write_text(before, encoding="utf-8")
        kafka_users.ensure(admin)


def test_the_table_names_what_there_is() -> None:
    names = {t.name.removeprefix(PREFIX) for t in TOPICS}
    assert {t for topics in (*WRITES.values(), *READS.values()) for t in topics} <= names
    assert {e.TOPIC for t in TOPICS for e in t.events} <= {t for topics in WRITES.values() for t in topics}
    assert not any(g.allowed and g.operation in ("delete", "alter", "alter_configs", "all") for g in grants())
