"""The Log port on Kafka: one idempotent producer, plain reads by partition and offset.

`acks=all`, `enable.idempotence` (off by default in librdkafka), no lingering (its default costs 5.9 ms per acknowledged
event, none 0.3-0.6 ms) and Java's partitioner (`murmur2_random`), so that every client agrees on a key's partition.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from infra import clock
from infra.ports import Position, Stored
from infra.settings import Settings
from schemas.envelope import Record
from schemas.errors import Defect, Invalid, Overloaded, SijilError, Transient

QUEUE_MESSAGES_MAX = 20_000
QUEUE_KBYTES_MAX = 64 * 1024
DELIVERY_S = 30.0
"""How long librdkafka tries to deliver a record before its future fails."""
STALL_S = 30.0
"""How long a read waits for the next record that must be there."""
REQUEST_S = 10.0
FETCH_MESSAGES = 500
SHORT_READ = 4_000
"""Records up to which the partitions of a read are asked for all at once."""
READERS_MAX = 8
"""Consumers kept for the next reads: a new one costs some 20 ms until its first record, and one that is given a topic
it does not know up to a second.
"""

_LOG = logging.getLogger("confluent_kafka")

# Everything not named here is Transient: a broker that is away, electing, starting, short of replicas or of disk.
ERRORS: dict[int, type[SijilError]] = {
    KafkaError._QUEUE_FULL: Overloaded,
    KafkaError.MSG_SIZE_TOO_LARGE: Invalid,
    KafkaError.RECORD_LIST_TOO_LARGE: Invalid,
    KafkaError.INVALID_MSG: Invalid,
    KafkaError.INVALID_RECORD: Invalid,
    KafkaError._AUTHENTICATION: Defect,
    KafkaError._SSL: Defect,
    KafkaError._INVALID_ARG: Defect,
    KafkaError._UNSUPPORTED_FEATURE: Defect,
    KafkaError.SASL_AUTHENTICATION_FAILED: Defect,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: Defect,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: Defect,
    KafkaError.GROUP_AUTHORIZATION_FAILED: Defect,
    KafkaError.UNSUPPORTED_VERSION: Defect,
    KafkaError.TOPIC_EXCEPTION: Defect,
    KafkaError.OFFSET_OUT_OF_RANGE: Defect,  # records are gone that are kept forever
    KafkaError._AUTO_OFFSET_RESET: Defect,
    KafkaError.POLICY_VIOLATION: Defect,
}


def mapped(error: KafkaError, step: str) -> SijilError:
    """Our error for one of librdkafka's. A fatal one is Transient: the next append makes a new producer."""
    kind = Transient if error.fatal() else ERRORS.get(error.code(), Transient)
    text = f"kafka: {step}: {error.name()}"
    return Invalid("record-refused", text) if kind is Invalid else kind(text)


def connection(settings: Settings) -> dict[str, Any]:
    """What every client of librdkafka needs to reach the cluster."""
    given = {
        "bootstrap.servers": settings.kafka_bootstrap,
        "security.protocol": settings.kafka_security_protocol,
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_username,
        "sasl.password": settings.kafka_password,
        "ssl.ca.location": settings.kafka_ca_file,
    }
    # Warnings and worse are logged; a broker that is away is asked for every second, not every ten.
    return {k: v for k, v in given.items() if v} | {"log_level": 4, "reconnect.backoff.max.ms": 1000}


class KafkaLog:
    """One cluster. `append` and `ends` from any thread; each `read` has a consumer of its own."""

    def __init__(
        self,
        settings: Settings,
        *,
        linger_ms: float = 0.0,
        delivery_s: float = DELIVERY_S,
        stall_s: float = STALL_S,
        queue_messages_max: int = QUEUE_MESSAGES_MAX,
    ) -> None:
        """Connects at the first call. `linger_ms` gathers batches, for who publishes much and waits for nothing."""
        self._connection = connection(settings)
        self._producing = self._connection | {
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": linger_ms,
            "compression.type": "zstd",
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": queue_messages_max,
            "queue.buffering.max.kbytes": QUEUE_KBYTES_MAX,
            "message.timeout.ms": int(delivery_s * 1000),
            "topic.metadata.propagation.max.ms": int(min(delivery_s, 10.0) * 1000),
            "allow.auto.create.topics": False,
        }
        self._stall_s = stall_s
        self._lock = threading.Lock()
        self._outbound: _Outbound | None = None
        self._admin: AdminClient | None = None
        self._partitions: dict[str, int] = {}
        self._readers: list[tuple[str, Consumer]] = []
        self._closed = False

    def append(self, record: Record) -> Future[Position]:
        return self._producer().send(record)

    def _producer(self) -> _Outbound:
        with self._lock:
            if self._closed:
                raise Transient("kafka: append: this log was closed")
            if self._outbound is None or self._outbound.broken:
                if self._outbound is not None:
                    self._outbound.close(0.0)
                self._outbound = _Outbound(self._producing)
            return self._outbound

    def read(self, topic: str, start: Mapping[int, int], end: Mapping[int, int]) -> Iterator[Stored]:
        wanted = {p: (start.get(p, 0), end[p]) for p in sorted(end) if start.get(p, 0) < end[p]}
        if not wanted:
            return
        consumer = self._reader(topic)
        try:
            if sum(last - first for first, last in wanted.values()) <= SHORT_READ:
                yield from self._read(consumer, topic, wanted)
            else:
                for partition, span in wanted.items():
                    yield from self._read(consumer, topic, {partition: span})
            consumer.unassign()
        except BaseException:  # a reader that stopped early, too: what is still on its way shall not meet the next read
            consumer.close()
            raise
        self._give_back(topic, consumer)

    def _reader(self, topic: str) -> Consumer:
        with self._lock:
            for number, (known, consumer) in enumerate(self._readers):
                if known == topic:
                    del self._readers[number]
                    return consumer
        return Consumer(
            self._connection
            | {
                "group.id": "sijil-read",  # librdkafka wants one; assign() without commits joins no group
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "isolation.level": "read_uncommitted",  # what the projectors see
                "allow.auto.create.topics": False,
                "check.crcs": True,
                "fetch.wait.max.ms": 2,  # a fetch behind the end must not hold up the next read
                "queued.max.messages.kbytes": 16 * 1024,
            },
            logger=_LOG,
        )

    def _give_back(self, topic: str, consumer: Consumer) -> None:
        with self._lock:
            self._readers.append((topic, consumer))
            _, oldest = self._readers.pop(0) if self._closed or len(self._readers) > READERS_MAX else ("", None)
        if oldest is not None:
            oldest.close()

    def _read(self, consumer: Consumer, topic: str, spans: Mapping[int, tuple[int, int]]) -> Iterator[Stored]:
        """Records of these partitions, which are asked for together: partition by partition, so all but the first
        wait in memory.
        """
        step = f"read {topic}/{','.join(map(str, spans))}"
        consumer.assign([TopicPartition(topic, partition, first) for partition, (first, _) in spans.items()])
        left = {partition: last - first for partition, (first, last) in spans.items()}
        order = list(spans)
        waiting: dict[int, list[Stored]] = {partition: [] for partition in order}
        deadline = clock.monotonic() + self._stall_s
        while left:
            # consume() waits for as many as it is asked for: no more than there must be.
            for message in consumer.consume(min(FETCH_MESSAGES, sum(left.values())), 0.2):
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    if type(mapped(error, step)) is not Transient:
                        raise mapped(error, step)
                    continue  # the client goes on by itself until the deadline
                partition, offset = _number(message.partition()), _number(message.offset())
                if partition not in left:
                    continue
                last = spans[partition][1]
                if offset < last and error is None:
                    waiting[partition].append(_stored(message))
                    left[partition] = last - offset - 1
                    deadline = clock.monotonic() + self._stall_s
                # At the end also if its last offsets are a transaction's marks, which no reader is given.
                if offset >= last or not left[partition]:
                    del left[partition]
            while order:
                yield from waiting[order[0]]
                waiting[order[0]] = []
                if order[0] in left:
                    break
                order.pop(0)
            if clock.monotonic() > deadline:
                raise Transient(f"kafka: {step}: nothing came for {self._stall_s:.0f} s")

    def ends(self, topic: str) -> dict[int, int]:
        newest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        return self._offsets(topic, newest)

    def since(self, topic: str, from_ms: int) -> dict[int, int]:
        first: Any = OffsetSpec.for_timestamp(from_ms) if from_ms else OffsetSpec.earliest()  # type: ignore[no-untyped-call]
        ends = self.ends(topic)
        return {n: ends[n] if offset < 0 else offset for n, offset in self._offsets(topic, first).items()}

    def _offsets(self, topic: str, which: Any) -> dict[int, int]:
        try:
            with self._lock:
                if self._admin is None:
                    self._admin = AdminClient(self._connection, logger=_LOG)
            count = self._partitions.get(topic) or self._count(self._admin, topic)
            wanted = {TopicPartition(topic, n): which for n in range(count)}
            answers = self._admin.list_offsets(wanted, request_timeout=REQUEST_S)
            return {place.partition: future.result(REQUEST_S).offset for place, future in answers.items()}
        except KafkaException as e:
            raise mapped(e.args[0], f"offsets of {topic}") from e
        except TimeoutError as e:
            raise Transient(f"kafka: offsets of {topic}: no answer") from e

    def _count(self, admin: AdminClient, topic: str) -> int:
        """Number of partitions, asked once: it never changes."""
        found = admin.list_topics(topic, timeout=REQUEST_S).topics[topic]
        if found.error is not None:
            raise mapped(found.error, f"ends {topic}")
        self._partitions[topic] = len(found.partitions)
        return len(found.partitions)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            readers, self._readers = self._readers, []
            if self._outbound is not None:
                self._outbound.close(DELIVERY_S)
                self._outbound = None
        for _, consumer in readers:
            consumer.close()


def commit_offsets(settings: Settings, group: str, ends: Mapping[str, Mapping[int, int]]) -> None:
    """Set where a consumer group without members begins: topic → partition → next offset. Raises Transient, Defect."""
    places = [TopicPartition(topic, n, offset) for topic, found in ends.items() for n, offset in found.items()]
    consumer = Consumer(connection(settings) | {"group.id": group, "enable.auto.commit": False}, logger=_LOG)
    try:
        for place in consumer.commit(offsets=places, asynchronous=False) or ():
            if place.error is not None:
                raise mapped(place.error, f"commit {group}")
    except KafkaException as e:
        raise mapped(e.args[0], f"commit {group}") from e
    finally:
        consumer.close()


class _Outbound:
    """One producer with the thread that hands out its acknowledgements."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.broken = False
        """After a fatal error of the idempotent producer: it takes nothing more."""
        self._producer = Producer(config, logger=_LOG)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="kafka-poll", daemon=True)
        self._thread.start()

    def send(self, record: Record) -> Future[Position]:
        future: Future[Position] = Future()
        future.set_running_or_notify_cancel()  # what is sent cannot be cancelled

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                future.set_result(_position(message))
                return
            self.broken = self.broken or error.fatal()
            future.set_exception(mapped(error, f"append {record.topic}"))

        try:
            self._producer.produce(
                record.topic, record.value, record.key, headers=list(record.headers), on_delivery=delivered
            )
        except BufferError as e:
            raise Overloaded("kafka: the queue of unacknowledged records is full", retry_after_s=1.0) from e
        except KafkaException as e:
            self.broken = self.broken or e.args[0].fatal()
            future.set_exception(mapped(e.args[0], f"append {record.topic}"))
        return future

    def _poll(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(0.2)

    def close(self, timeout_s: float) -> None:
        """Flush for so long; what is still there fails."""
        self._producer.flush(timeout_s)
        self._producer.purge()
        self._producer.flush(1.0)
        self._stop.set()
        self._thread.join()


def _position(message: Message) -> Position:
    return Position(message.topic() or "", _number(message.partition()), _number(message.offset()))


def _number(value: int | None) -> int:
    """Partition or offset of a message that the broker has: never None."""
    if value is None:
        raise Defect("kafka: a message without its place")
    return value


def _stored(message: Message) -> Stored:
    headers: Any = message.headers() or ()
    return Stored(
        _position(message),
        message.timestamp()[1],
        message.key(),
        tuple((name, value or b"") for name, value in headers),
        message.value(),
    )
