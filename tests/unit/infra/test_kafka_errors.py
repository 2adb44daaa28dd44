"""librdkafka's errors and ours, one by one."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from infra.kafka import ERRORS, mapped
from schemas.errors import Defect, Invalid, Overloaded, SijilError, Transient

TRANSIENT = (
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._PURGE_INFLIGHT,
    KafkaError._PURGE_QUEUE,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.THROTTLING_QUOTA_EXCEEDED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)
CASES: list[tuple[int, type[SijilError]]] = [*ERRORS.items(), *((code, Transient) for code in TRANSIENT)]


@pytest.mark.parametrize(("code", "ours"), CASES)
def test_each_error_has_its_outcome(code: int, ours: type[SijilError]) -> None:
    assert type(mapped(KafkaError(code), "append")) is ours


def test_the_outcomes_of_the_table() -> None:
    assert ERRORS[KafkaError._QUEUE_FULL] is Overloaded
    assert ERRORS[KafkaError.MSG_SIZE_TOO_LARGE] is Invalid
    assert ERRORS[KafkaError.SASL_AUTHENTICATION_FAILED] is Defect


def test_a_fatal_error_is_transient_for_the_next_append_makes_a_new_producer() -> None:
    assert type(mapped(KafkaError(KafkaError._FATAL, "x", fatal=True), "append")) is Transient


def test_the_text_names_the_step_and_the_error() -> None:
    assert str(mapped(KafkaError(KafkaError._TRANSPORT, "AHMED"), "append sijil.reports")) == (
        "kafka: append sijil.reports: _TRANSPORT"
    )
