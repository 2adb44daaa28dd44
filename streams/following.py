"""Following topics with Faust so that nothing is lost: batches are acknowledged after they are done, and only then.

What is relied on (tried, and read in Faust's source):
- `stream.noack()` with one actor acknowledges nothing by itself; when a handler raises, the process ends.
- Batches are made here, of what came while the last one was done. `noack_take()` takes nothing meanwhile and then
  waits its whole linger: 60 events a batch at 20 ms, and 50 wake-ups a second of each agent that has nothing to do.
- A commit never goes past what the handler has done. Faust's own bookkeeping is not trusted with that: after a
  rebalance it acknowledges messages it merely skips, and it lets one message at the head of a partition be overtaken.
- aiokafka asks for all assigned partitions with each fetch, and asks again as soon as it has one record: under a steady
  trickle of events that costs broker and worker some 2 ms of CPU an event each, so its fetches are paced here.
- Static membership (`group.instance.id`): a worker that was killed comes back as itself, at once, instead of waiting
  for its own session to time out.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, cast

import faust
from aiokafka.protocol.fetch import FetchRequest
from faust.transport.drivers import aiokafka
from faust.types import TP
from mode.supervisors import CrashingSupervisor

from infra import clock, telemetry
from infra.ports import Position, Stored
from infra.settings import Settings
from schemas.errors import Transient

log = telemetry.logger(__name__)

Partition = tuple[str, int]
Handle = Callable[[Sequence[Stored]], Awaitable[Collection[Position]]]
"""Does a batch of one topic, each partition's records by offset. Returns records it must not pass: those of partitions
that have to pause there. Whatever it raises ends the process."""
Hook = Callable[[Collection[Partition]], Awaitable[None]]

_FAUST = logging.getLogger("faust")  # or mode logs what its classes do as if this module said it

SESSION_S = 15.0
WATCH_S = 0.2
GATHER_S_MAX = 2.0
"""Longest wait of a topic that leaves time to others."""
BUFFER_MESSAGES = 2048
FETCH_BYTES = 1 << 20
FETCH_EVERY_S = 0.05
"""Least time between two fetches of one broker. The first event after a calm comes at once: its fetch is out."""

PAUSED = telemetry.Gauge("sijil_paused_partitions", "Partitions paused at an event type this build does not know")
LAG = telemetry.Gauge("sijil_lag_events", "Events of a partition that are not done yet", ["topic", "partition"])


class _Consumer(aiokafka.Consumer):
    """Faust's consumer, with commits bounded by `done` and with hooks around a rebalance."""

    logger = _FAUST
    on_assigned: Hook
    on_revoked: Hook

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.done: dict[TP, int] = {}
        """Next offset after what the handler has done, for partitions of the current assignment."""
        app: Any = self.app
        self.on_assigned, self.on_revoked = app.on_assigned, app.on_revoked

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        for tp in revoked:
            self.done.pop(tp, None)
        await self.on_revoked([(tp.topic, tp.partition) for tp in revoked])
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.done.clear()
        await self.on_assigned([(tp.topic, tp.partition) for tp in assigned])
        await super().on_partitions_assigned(assigned, generation_id)

    def _new_offset(self, tp: TP) -> int | None:
        offset, limit = super()._new_offset(tp), self.done.get(tp)
        return None if offset is None or limit is None else min(offset, limit)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust takes an idle or paused partition for a fault. Liveness is ours (`Follower.stalled_s`)."""

    def next_offset(self, tp: TP) -> int:
        """The next record to be done."""
        return self.done.get(tp) or self._committed_offset[tp] or 0

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class _ConsumerThread(aiokafka.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._client.send = paced(consumer._client.send, FETCH_EVERY_S)
        return consumer


def paced(send: Callable[..., Awaitable[Any]], every_s: float) -> Callable[..., Awaitable[Any]]:
    """`send` of aiokafka's client, with `every_s` at least between two fetches of one node; others go at once."""
    allowed: dict[Any, float] = {}

    async def paced_send(node_id: Any, request: Any, **how: Any) -> Any:
        if isinstance(request, FetchRequest):
            wait = allowed.get(node_id, 0.0) - clock.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            allowed[node_id] = clock.monotonic() + every_s
        return await send(node_id, request, **how)

    return paced_send


class _Transport(aiokafka.Transport):
    Consumer = _Consumer


class _App(faust.App):
    logger = _FAUST
    on_assigned: Hook
    on_revoked: Hook

    def _new_transport(self) -> _Transport:
        return _Transport(self.conf.broker_consumer, self)


async def _nothing(partitions: Collection[Partition]) -> None:
    pass


class Follower:
    """A consumer group's member that hands batches of records to `handle`. Make and use it inside the running loop."""

    def __init__(
        self,
        settings: Settings,
        group: str,
        member: str,
        topics: Iterable[str],
        handle: Handle,
        *,
        batch: int,
        gather_s: Mapping[str, float] | None = None,
        on_assigned: Hook = _nothing,
        on_revoked: Hook = _nothing,
    ) -> None:
        """`gather_s`: how long events of a topic are waited with, so that more of them share a batch's cost; as long as
        the last batch took where that is more, so that under load this topic leaves half of the time to others.
        """
        self._handle, self._batch = handle, batch
        self._gather_s = gather_s or {}
        self._hook = on_assigned
        self._failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.paused: dict[Partition, Position] = {}
        """Partitions that stand still, and at which record."""
        self.assigned: bool = False
        """Whether a first assignment, perhaps an empty one, is there."""
        self.app = _app(settings, group, member)
        self.app.on_assigned, self.app.on_revoked = self._on_assigned, on_revoked
        for topic in topics:
            channel = self.app.topic(topic, key_serializer="raw", value_serializer="raw")
            agent = self.app.agent(channel, name=topic, concurrency=1, supervisor_strategy=CrashingSupervisor)
            agent(self._agent)

    async def _on_assigned(self, partitions: Collection[Partition]) -> None:
        # A partition that comes back is read again from its committed offset, and pauses again where it must.
        self._set_paused({})
        await self._hook(partitions)
        self.assigned = True
        log.info("partitions assigned", count=len(partitions), group=self.app.conf.id)

    async def _agent(self, stream: Any) -> None:
        events: asyncio.Queue[Any] = asyncio.Queue(self._batch)
        doing = asyncio.create_task(self._batches(events, self._gather_s.get(stream.channel.get_topic_name(), 0.0)))
        try:
            async for event in stream.noack().events():
                await events.put(event)
        finally:
            doing.cancel()

    async def _batches(self, events: asyncio.Queue[Any], gather_s: float) -> None:
        """Hand on what is there, at most a batch, as often as the last one is done."""
        took_s = 0.0
        try:
            while True:
                batch = [await events.get()]
                if gather_s:
                    await asyncio.sleep(min(max(gather_s, took_s), GATHER_S_MAX))
                while len(batch) < self._batch and not events.empty():
                    batch.append(events.get_nowait())
                started = clock.monotonic()
                await self._do([e for e in batch if self._is_current(e.message)])
                took_s = clock.monotonic() - started
        except Exception as error:  # noqa: BLE001 - the process ends by it: see run()
            if not self._failed.done():
                self._failed.set_result(error)

    def _is_current(self, message: Any) -> bool:
        """False for what was fetched before a rebalance: it comes again, here or elsewhere."""
        here: bool = message.generation_id == self.app.consumer_generation_id
        return here and (message.topic, message.partition) not in self.paused

    async def _do(self, events: list[Any]) -> None:
        if not events:
            return
        stops = {(p.topic, p.partition): p for p in await self._handle([_stored(e.message) for e in events])}
        if stops:
            self._set_paused({**self.paused, **stops})
            self._consumer.pause_partitions({TP(*partition) for partition in stops})
        for event in events:
            message = event.message
            stop = stops.get((message.topic, message.partition))
            if message.generation_id != self.app.consumer_generation_id or (stop and message.offset >= stop.offset):
                continue
            self._consumer.done[message.tp] = message.offset + 1
            event.ack()

    async def run(self) -> None:
        """Follow until cancelled. Raises what an agent has raised."""
        await self.app.start()
        while not self.app.should_stop:
            await asyncio.wait([self._failed], timeout=WATCH_S)
            if self._failed.done():
                raise self._failed.result()
        raise self.app.crash_reason or Transient("Faust has stopped by itself")

    async def stop(self) -> None:
        """Leave the log; what is done is committed."""
        await self.app.stop()

    def _set_paused(self, paused: dict[Partition, Position]) -> None:
        self.paused = paused
        PAUSED.set(len(paused))

    @property
    def _consumer(self) -> _Consumer:
        return cast(_Consumer, self.app.consumer)

    def next_offset(self, topic: str, partition: int) -> int:
        """The next record to be done; all before it are."""
        return self._consumer.next_offset(TP(topic, partition))

    async def ends(self, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        """Ends of partitions in the log, asked now."""
        wanted = [TP(*p) for p in partitions]
        found = await self._consumer.highwaters(*wanted) if wanted else {}
        return {(tp.topic, tp.partition): int(end) for tp, end in found.items()}

    async def lag(self) -> dict[Partition, int]:
        """Events not done yet, by assigned partition; also published as a metric."""
        assigned = [(tp.topic, tp.partition) for tp in self._consumer.assignment()]
        ends = await self.ends(assigned)
        found = {p: max(0, end - self.next_offset(*p)) for p, end in ends.items()}
        for (topic, partition), events in found.items():
            LAG.labels(topic, partition).set(events)
        return found


def _stored(message: Any) -> Stored:
    return Stored(
        Position(message.topic, message.partition, message.offset),
        round(message.timestamp * 1000),
        message.key,
        tuple((name, value or b"") for name, value in message.headers or ()),
        message.value,
    )


def _app(settings: Settings, group: str, member: str) -> _App:
    datadir = settings.home / "data" / "faust" / group
    datadir.mkdir(parents=True, exist_ok=True)  # Faust makes the last folder of the path only
    return _App(
        group,
        broker=";".join(f"kafka://{address}" for address in settings.kafka_bootstrap.split(",")),
        broker_credentials=_credentials(settings),
        datadir=datadir,
        autodiscover=False,
        web_enabled=False,
        store="memory://",
        processing_guarantee="at_least_once",
        broker_commit_interval=1.0,
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=SESSION_S / 5,
        broker_rebalance_timeout=SESSION_S,
        broker_request_timeout=2 * SESSION_S,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=member,
        consumer_max_fetch_size=FETCH_BYTES,
        stream_wait_empty=False,
        stream_buffer_maxsize=BUFFER_MESSAGES,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
    )


def _credentials(settings: Settings) -> Any:
    protocol = settings.kafka_security_protocol
    context = ssl.create_default_context(cafile=settings.kafka_ca_file or None) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=settings.kafka_username,
            password=settings.kafka_password,
            ssl_context=context,
            mechanism=settings.kafka_sasl_mechanism,
        )
    return faust.SSLCredentials(context) if context else None
