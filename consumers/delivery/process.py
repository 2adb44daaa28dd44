"""The process `sijil delivery`: ports, destinations and health around `consumers.delivery.deliverer`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import entry_points

import click

from consumers.api.decoders import Decoders
from consumers.delivery.deliverer import Deliverer, new_queue
from consumers.delivery.destination import Around, Destination, Make
from consumers.delivery.feed import Ends, Feed
from consumers.delivery.outbox import Outbox
from consumers.delivery.positions import Positions
from consumers.delivery.press import Press
from consumers.delivery.subscriptions.keeper import Keeper
from consumers.delivery.subscriptions.receiver import RestHook
from consumers.delivery.subscriptions.seal import Seal
from infra import service, telemetry
from infra.active_views import active_keyspace
from infra.cassandra import CassandraTables
from infra.chain import ChainedLog
from infra.health import HealthServer
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.settings import Settings, SettingsError
from schemas.errors import Defect, Transient
from schemas.tables import STATE_KEYSPACE

log = telemetry.logger(__name__)

ENTRY_POINTS = "sijil.destinations"
CHAIN_CLOSE_S = 3.0
RETRY_S = 1.0


def installed(around: Around) -> list[Destination]:
    """The destinations that the settings name. Raises Defect when two have one name."""
    makers: list[Make] = [e.load() for e in sorted(entry_points(group=ENTRY_POINTS), key=lambda e: e.name)]
    found = [destination for make in makers for destination in make(around)]
    if len({d.name for d in found}) != len(found):
        raise Defect("two destinations have the same name")
    return found


async def serve(settings: Settings, stop: asyncio.Event) -> int:
    """Deliver until told to stop, or until other read models answer."""
    connected = await asyncio.to_thread(CassandraTables.connect, settings)
    while True:
        try:
            keyspace = await active_keyspace(connected)
            break
        except Transient as error:
            log.warning("active keyspace unknown", reason=str(error))
            await asyncio.sleep(RETRY_S)
    views, state = connected.with_keyspace(keyspace), connected.with_keyspace(STATE_KEYSPACE)
    objects, kafka = S3Objects(settings), KafkaLog(settings)
    chain = await asyncio.to_thread(ChainedLog.open, settings, "delivery", kafka, objects)
    positions, ends = Positions(lambda: views), Ends(kafka)

    def begin(destination: Destination, first_ms: int) -> Deliverer:
        outbox, queue = Outbox(state, destination.name), new_queue()
        feed = Feed(kafka, ends, destination, outbox, queue, since_ms=first_ms)
        return Deliverer(destination, outbox, queue, feed, positions, chain)

    decoders = Decoders()
    around = Around(settings, lambda: views, lambda: state, objects, Press(decoders.printed).printed)
    deliverers = [begin(destination, since_ms(settings)) for destination in installed(around)]
    ca_file, fhir = settings.subscription_ca_file, f"{settings.public_url}/fhir"
    keeper = Keeper(state, Seal(settings), lambda: RestHook(ca_file), begin, fhir)
    health = HealthServer(
        settings.health_host,
        settings.delivery_health_port,
        ready=lambda: checks([*deliverers, *keeper]),
        figures=lambda: figures([*deliverers, *keeper]) | {"chain_backlog": chain.backlog},
    )
    log.info("delivery starts", keyspace=keyspace, count=len(deliverers))
    try:
        running = [service.watch_keyspace(views), keeper.run(), *(d.run() for d in deliverers)]
        return await service.until_stopped(stop, running)
    finally:
        await asyncio.to_thread(chain.close, CHAIN_CLOSE_S)
        decoders.close()
        kafka.close()
        connected.close()
        health.close()


def since_ms(settings: Settings) -> int:
    """Where a destination begins that was never told anything: milliseconds since the epoch; 0: at the first event.

    Raises SettingsError.
    """
    if not settings.delivery_since:
        return 0
    try:
        moment = datetime.fromisoformat(settings.delivery_since)
    except ValueError as e:
        raise SettingsError("SIJIL_DELIVERY_SINCE must be a time by RFC 3339") from e
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def checks(deliverers: Sequence[Deliverer]) -> Mapping[str, bool]:
    """Ready: every outbox is read, and no partition stands still. A destination that is away is no fault of ours."""
    return {
        "outboxes_loaded": all(d.loaded for d in deliverers),
        "event_types_known": not any(d.feed.paused for d in deliverers),
    }


def figures(deliverers: Sequence[Deliverer]) -> dict[str, int | float]:
    """For `sijil status`."""
    return {
        "deliveries_open": sum(len(d.queue) for d in deliverers),
        "destinations_away": sum(d.queue.circuit.open for d in deliverers),
    }


@click.command("delivery")
def command() -> None:
    """Deliver reports and studies to health records, doctors and whoever else must have them.

    Runs until it is stopped. Ends with status 75 when a rebuild has switched to other tables: start it again.
    """
    settings = Settings.load("delivery")
    service.run("delivery", partial(serve, settings), settings.log_level)
