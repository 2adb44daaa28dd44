"""The process `sijil worker`: ports, Faust, timers and health around `streams.worker`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping

from infra import clock, service, telemetry
from infra.active_views import active_keyspace
from infra.cassandra import CassandraTables
from infra.chain import ChainedLog
from infra.dead_letters import DeadLetters
from infra.health import HealthServer
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.patient_secret import Holder
from infra.settings import Settings
from schemas.errors import Transient
from schemas.events import AccessGranted, ReportIssued
from schemas.topics import topic_of
from streams.apply import Projector
from streams.critical_timers import CriticalTimers
from streams.dispatch import TOPICS_FOLLOWED
from streams.emission import publisher
from streams.following import Follower, Partition
from streams.material import Material
from streams.retry import retrying
from streams.timers import Timers
from streams.worker import ARRIVALS, RETRY_S, Worker

log = telemetry.logger(__name__)

REPORTS = topic_of(ReportIssued)
LOOK_S = 1.0
STALLED_S = 180.0
"""Without a finished batch for so long while events wait, the process is not alive."""
CHAIN_CLOSE_S = 3.0
GATHER_S = 0.2
"""Accesses are waited with for so long: reads come one by one, and nobody waits for a trail's next line."""


def group_of(keyspace: str) -> str:
    """The consumer group that fills a keyspace."""
    return f"sijil-worker-{keyspace}"


async def serve(settings: Settings, stop: asyncio.Event) -> int:
    """Fill the active keyspace until told to stop, or until another one is active."""
    connected = await asyncio.to_thread(CassandraTables.connect, settings)
    keyspace = await retrying("active keyspace", lambda: active_keyspace(connected), RETRY_S)
    tables = connected.with_keyspace(keyspace)
    holder = Holder.of(settings, "worker", connected)
    secrets = await retrying("patient secret", holder.admitted, RETRY_S)
    objects, kafka = S3Objects(settings), KafkaLog(settings)
    chain = await asyncio.to_thread(ChainedLog.open, settings, "worker", kafka, objects)
    material = Material(
        objects,
        documents=settings.bucket_documents,
        missing_s=settings.manifest_wait_s,
        archive=settings.bucket_archive,
    )
    publish = publisher(chain)
    quiet_ms, open_ms = round(settings.quiet_s * 1000), round(settings.step_open_s * 1000)

    async def ends(partitions: Iterable[int]) -> Mapping[int, int]:
        found = await follower.ends([(ARRIVALS, p) for p in partitions])
        return {partition: end for (_, partition), end in found.items()}

    async def assigned(partitions: Collection[Partition]) -> None:
        mine = [p for topic, p in partitions if topic == ARRIVALS]
        criticals.assigned([p for topic, p in partitions if topic == REPORTS])
        await retrying("load timers", lambda: timers.assigned(mine), RETRY_S)

    async def revoked(partitions: Collection[Partition]) -> None:
        timers.revoked([p for topic, p in partitions if topic == ARRIVALS])
        criticals.revoked([p for topic, p in partitions if topic == REPORTS])

    timers = Timers(tables, ARRIVALS, quiet_ms, publish, ends, open_ms=open_ms)
    criticals = CriticalTimers(tables, publish)
    projector = Projector(tables, material, secrets)
    worker = Worker(
        tables,
        projector,
        timers,
        DeadLetters.open(settings, objects).keep,
        publish,
        source=chain.source,
        quiet_ms=quiet_ms,
        open_ms=open_ms,
    )
    follower = Follower(
        settings,
        group_of(keyspace),
        f"worker-{settings.site}-{settings.instance}",
        TOPICS_FOLLOWED,
        worker.handle,
        batch=settings.projection_batch,
        gather_s={topic_of(AccessGranted): GATHER_S},
        on_assigned=assigned,
        on_revoked=revoked,
    )
    look = Look(follower, worker, chain)
    health = HealthServer(
        settings.health_host, settings.worker_health_port, ready=look.checks, figures=look.figures, live=look.live
    )
    log.info("worker starts", keyspace=keyspace, group=group_of(keyspace))
    try:
        return await service.until_stopped(
            stop,
            [
                follower.run(),
                timers.run(),
                criticals.run(),
                look.run(),
                service.watch_keyspace(tables),
                holder.watch(),
            ],
        )
    finally:
        await follower.stop()
        await asyncio.to_thread(chain.close, CHAIN_CLOSE_S)
        material.close()
        kafka.close()
        await holder.released()
        connected.close()
        health.close()


class Look:
    """How the worker is, looked at every second; answered from other threads."""

    def __init__(self, follower: Follower, worker: Worker, chain: ChainedLog) -> None:
        self._follower, self._worker, self._chain = follower, worker, chain
        self._lag: dict[Partition, int] = {}
        self._idle_at = clock.monotonic()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._follower.assigned:
                continue
            try:
                self._lag = await self._follower.lag()
            except Transient as error:
                log.warning("lag unknown", reason=str(error))
            if not self._waiting():
                self._idle_at = clock.monotonic()

    def _waiting(self) -> bool:
        """Whether there are events that could be done."""
        return any(n for partition, n in self._lag.items() if partition not in self._follower.paused)

    def checks(self) -> Mapping[str, bool]:
        """Ready: partitions are assigned and none stands still."""
        return {"assigned": self._follower.assigned, "event_types_known": not self._follower.paused}

    def figures(self) -> Mapping[str, int | float]:
        """For `sijil status`."""
        return {
            "lag": sum(self._lag.values()),
            "paused_partitions": len(self._follower.paused),
            "chain_backlog": self._chain.backlog,
        }

    def live(self) -> bool:
        """Whether batches are finished, as long as there are events to do."""
        return clock.monotonic() - max(self._worker.progress_at, self._idle_at) < STALLED_S
