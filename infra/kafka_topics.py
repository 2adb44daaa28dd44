"""The topics on the cluster: made once, compared ever after. Partitions and configs are never changed by us."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from infra.kafka import connection
from infra.settings import Settings
from schemas.errors import Defect, Transient
from schemas.topics import TOPIC_CONFIGS, TOPICS

TIMEOUT_S = 30.0


def configs(settings: Settings) -> dict[str, str]:
    """What every topic is made with on this cluster."""
    wanted = dict(TOPIC_CONFIGS)
    wanted["min.insync.replicas"] = str(max(1, settings.kafka_replication - 1))
    if settings.kafka_flush_messages:
        wanted["flush.messages"] = str(settings.kafka_flush_messages)
    return wanted


def ensure(settings: Settings, announce: Callable[[str], None] = lambda line: None) -> None:
    """Create what is missing. Raises Defect for a topic that is not as it should be, Transient without Kafka."""
    admin = AdminClient(connection(settings))
    wanted = configs(settings)
    try:
        there = admin.list_topics(timeout=TIMEOUT_S).topics
        missing = [t.name for t in TOPICS if t.name not in there]
        if missing:
            new = [NewTopic(n, settings.kafka_partitions, settings.kafka_replication, config=wanted) for n in missing]
            for future in admin.create_topics(new, operation_timeout=TIMEOUT_S).values():
                future.result(TIMEOUT_S)
            announce(f"topics created: {', '.join(missing)}")
        old = [t.name for t in TOPICS if t.name in there]
        for name in old:
            _same_partitions(name, there[name], settings)
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in old]
        for resource, future in (admin.describe_configs(resources) if resources else {}).items():
            _same_configs(resource.name, {k: e.value for k, e in future.result(TIMEOUT_S).items()}, wanted)
    except KafkaException as e:
        raise Transient(f"Kafka at {settings.kafka_bootstrap}: {e.args[0].str()}") from e


def _same_partitions(name: str, there: Any, settings: Settings) -> None:
    if len(there.partitions) != settings.kafka_partitions:
        raise Defect(
            f"topic {name} has {len(there.partitions)} partitions, SIJIL_KAFKA_PARTITIONS says"
            f" {settings.kafka_partitions}: they never change, because keys would move; set it back"
        )
    copies = min(len(p.replicas) for p in there.partitions.values())
    if copies != settings.kafka_replication:
        raise Defect(f"topic {name} has {copies} replicas, SIJIL_KAFKA_REPLICATION says {settings.kafka_replication}")


def _same_configs(name: str, there: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for key, value in wanted.items():
        if there.get(key) != value:
            raise Defect(f"topic {name} has {key}={there.get(key)}, it must be {value}: somebody changed it")
