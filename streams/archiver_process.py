"""The process `sijil archiver`: ports, Faust and health around `streams.archiver`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from infra import clock, service, telemetry
from infra.active_views import active_keyspace
from infra.cassandra import CassandraTables
from infra.chain import ChainedLog
from infra.dead_letters import DeadLetters
from infra.health import HealthServer
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.ports import Select
from infra.settings import Settings
from schemas.errors import Transient
from streams.apply import VIEWS
from streams.archiver import RETRY_S, Archiver
from streams.emission import publisher
from streams.following import Follower, Partition
from streams.retry import retrying
from streams.traffic import Traffic
from streams.worker import ARRIVALS
from streams.worker_process import CHAIN_CLOSE_S, LOOK_S, STALLED_S

log = telemetry.logger(__name__)

GROUP = "sijil-archiver"
NICE = 10
BATCH = 16
COPY_S = 120.0
"""Longest that one request about a pack is tried."""


async def serve(settings: Settings, stop: asyncio.Event) -> int:
    """Compare and archive until told to stop, or until other read models answer."""
    os.nice(NICE)
    connected = await asyncio.to_thread(CassandraTables.connect, settings)
    keyspace = await retrying("active keyspace", lambda: active_keyspace(connected), RETRY_S)
    tables = connected.with_keyspace(keyspace)
    objects, kafka = S3Objects(settings, deadline_s=COPY_S), KafkaLog(settings)
    chain = await asyncio.to_thread(ChainedLog.open, settings, "archiver", kafka, objects)

    traffic = Traffic(settings.archive_calm_s)

    async def busy() -> bool:
        ends = await asyncio.to_thread(kafka.ends, ARRIVALS)
        rows = await tables.select(Select("projection_positions", {"projection": VIEWS, "topic": ARRIVALS}))
        return traffic.busy(ends, {r["partition"]: r["next_offset"] for r in rows}, clock.monotonic())

    archiver = Archiver(
        tables,
        objects,
        publisher(chain),
        DeadLetters.open(settings, objects).keep,
        busy,
        source=chain.source,
        bucket=settings.bucket_archive,
        documents=settings.bucket_documents,
        least_years=settings.retention_years,
    )
    follower = Follower(
        settings,
        GROUP,
        f"archiver-{settings.site}-{settings.instance}",
        [ARRIVALS],
        archiver.handle,
        batch=BATCH,
    )
    lag: dict[Partition, int] = {}
    idle_at = clock.monotonic()

    async def look() -> None:
        nonlocal lag, idle_at
        while True:
            await asyncio.sleep(LOOK_S)
            if not follower.assigned:
                continue
            try:
                lag = await follower.lag()
            except Transient as error:
                log.warning("lag unknown", reason=str(error))
            if not sum(lag.values()):
                idle_at = clock.monotonic()

    def checks() -> Mapping[str, bool]:
        return {"assigned": follower.assigned, "event_types_known": not follower.paused}

    def figures() -> Mapping[str, int | float]:
        return {
            "lag": sum(lag.values()),
            "paused_partitions": len(follower.paused),
            "chain_backlog": chain.backlog,
        }

    def live() -> bool:
        return clock.monotonic() - max(archiver.progress_at, idle_at) < STALLED_S

    health = HealthServer(settings.health_host, settings.archiver_health_port, ready=checks, figures=figures, live=live)
    log.info("archiver starts", keyspace=keyspace, group=GROUP)
    try:
        return await service.until_stopped(stop, [follower.run(), look(), service.watch_keyspace(tables)])
    finally:
        await follower.stop()
        await asyncio.to_thread(chain.close, CHAIN_CLOSE_S)
        kafka.close()
        connected.close()
        health.close()
