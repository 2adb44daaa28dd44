"""The Log contract, in memory and on Kafka; what only a server can show."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from infra.kafka import KafkaLog
from infra.memory import MemoryLog
from infra.ports import Log
from infra.settings import Settings
from schemas.errors import Invalid, Overloaded, Transient
from tests.contracts.log import TOPIC, LogContract, record
from tests.local_stack import LocalStack


class TestMemoryLog(LogContract):
    @pytest.fixture
    def log(self) -> Log:
        return MemoryLog()


@pytest.mark.connected
class TestKafkaLog(LogContract):
    @pytest.fixture
    def log(self, stack: LocalStack) -> Iterator[Log]:
        log = KafkaLog(stack.settings("api"), stall_s=3.0, delivery_s=5.0)
        yield log
        log.close()

    def test_a_record_that_is_too_large_is_refused_for_good(self, log: Log) -> None:
        with pytest.raises(Invalid):
            log.append(record(value=bytes(2_000_000))).result(30)

    def test_partition_by_partition_also_where_it_is_much(self, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("infra.kafka.SHORT_READ", 50)
        self.test_partition_by_partition(log)

    def test_a_closed_log_takes_nothing(self, stack: LocalStack) -> None:
        log = KafkaLog(stack.settings("api"))
        log.append(record()).result(30)
        log.close()
        with pytest.raises(Transient):
            log.append(record())


AWAY = Settings(kafka_bootstrap="127.0.0.1:9")


def test_a_broker_that_is_away_is_transient() -> None:
    log = KafkaLog(AWAY, delivery_s=0.5, stall_s=0.5)
    future = log.append(record())
    with pytest.raises(Transient):
        future.result(10)
    with pytest.raises(Transient):
        list(log.read(TOPIC, {}, {0: 1}))
    log.close()


def test_a_full_queue_is_overload() -> None:
    log = KafkaLog(AWAY, delivery_s=1.0, queue_messages_max=3)
    futures = [log.append(record()) for _ in range(3)]
    with pytest.raises(Overloaded) as overloaded:
        log.append(record())
    assert overloaded.value.retry_after_s > 0
    for future in futures:
        with pytest.raises(Transient):
            future.result(10)
    log.close()


def test_closing_does_not_wait_for_a_broker_that_is_away_longer_than_delivery() -> None:
    log = KafkaLog(AWAY, delivery_s=0.5)
    future = log.append(record())
    began = time.monotonic()
    log.close()
    assert time.monotonic() - began < 5
    with pytest.raises(Transient):
        future.result(0)
