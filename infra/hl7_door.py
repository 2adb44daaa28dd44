"""The HL7 door: MLLP, plain and with TLS, to which the rooms add their parts by entry points, and its process.

An entry point of group `sijil.hl7` is `register(door: Hl7Door) -> None`: one gives the answers, one what is known of
studies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.metadata import entry_points

import click

from infra import service, telemetry, tls
from infra.active_views import active_keyspace
from infra.cassandra import CassandraTables
from infra.chain import ChainedLog
from infra.health import HealthServer
from infra.kafka import KafkaLog
from infra.known_studies import KnownStudies
from infra.mllp import MB, Answer, Limits, MllpServer
from infra.objects import S3Objects
from infra.patient_secret import Holder
from infra.ports import Objects, Tables
from infra.settings import Settings, SettingsError
from schemas.errors import Defect, Transient
from schemas.patient_keys import PatientSecrets
from schemas.tables import STATE_KEYSPACE

__all__ = ["Hl7Door", "command"]

log = telemetry.logger(__name__)

ENTRY_POINTS = "sijil.hl7"
GRACE_S = 5.0
"""Messages being answered have so long to end when the process is told to."""
CHAIN_CLOSE_S = 3.0
RETRY_S = 1.0

Task = Callable[[], Awaitable[None]]


class Hl7Door:
    """What a room needs of the process that answers HL7 v2. Everything runs on one event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        chain: ChainedLog,
        objects: Objects,
        views: Tables,
        state: Tables,
        secrets: PatientSecrets | None = None,
    ) -> None:
        """`views`: the read models that answer; the process starts again on others. `state`: `sijil_state`. `secrets`:
        of patient keys; None: it makes none.
        """
        self.secrets = secrets
        self.settings, self.chain, self.objects, self.views, self.state = settings, chain, objects, views, state
        self.studies: KnownStudies | None = None
        """What is known of studies; None while no room answers that."""
        self.answer: Answer | None = None
        """Message and peer → acknowledgement."""
        self.tasks: list[Task] = []
        """Run beside the listener until the process ends."""
        self.backlogs: dict[str, Callable[[], int]] = {"chain_backlog": lambda: chain.backlog}
        """Figures of `/health/ready`."""


async def serve(settings: Settings, stop: asyncio.Event) -> int:
    """Answer until told to stop, or until other read models answer."""
    connected = await asyncio.to_thread(CassandraTables.connect, settings)
    while True:
        try:
            keyspace = await active_keyspace(connected)
            break
        except Transient as error:
            log.warning("active keyspace unknown", reason=str(error))
            await asyncio.sleep(RETRY_S)
    views, state = connected.with_keyspace(keyspace), connected.with_keyspace(STATE_KEYSPACE)
    secrets, holder = None, None
    if settings.patient_secret:
        holder = Holder.of(settings, "hl7", connected)
        secrets = await holder.admitted()
    objects, kafka = S3Objects(settings), KafkaLog(settings)
    chain = await asyncio.to_thread(ChainedLog.open, settings, "hl7", kafka, objects)
    door = Hl7Door(settings, chain=chain, objects=objects, views=views, state=state, secrets=secrets)
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda e: e.name):
        entry.load()(door)
    if door.answer is None:
        raise Defect("no room answers HL7 v2")
    servers = await listen(settings, door.answer)

    def checks() -> Mapping[str, bool]:
        return {"listening": True}

    def figures() -> Mapping[str, int | float]:
        return {name: figure() for name, figure in door.backlogs.items()}

    health = HealthServer(settings.health_host, settings.hl7_health_port, ready=checks, figures=figures)
    log.info("hl7 door opens", keyspace=keyspace)
    try:
        return await service.until_stopped(
            stop,
            [
                service.watch_keyspace(views),
                *(_forever(task) for task in door.tasks),
                *([holder.watch()] if holder is not None else ()),
            ],
        )
    finally:
        await asyncio.gather(*(server.close(GRACE_S) for server in servers))
        await asyncio.to_thread(chain.close, CHAIN_CLOSE_S)
        kafka.close()
        if holder is not None:
            await holder.released()
        connected.close()
        health.close()


async def listen(settings: Settings, answer: Answer) -> list[MllpServer]:
    """The listeners that the settings ask for. Raises SettingsError, OSError for a port that is taken."""
    limits = Limits(
        message_bytes_max=settings.hl7_message_mb * MB,
        connections_max=settings.hl7_connections_max,
        connections_max_address=settings.hl7_connections_max_address,
    )
    plain = MllpServer(answer, limits)
    await plain.start(settings.hl7_host, settings.hl7_port)
    servers = [plain]
    if settings.hl7_tls_certificate:
        if not settings.hl7_tls_ca:
            raise SettingsError("HL7 with TLS needs SIJIL_HL7_TLS_CA: who sends proves itself with a certificate of it")
        context = tls.server(settings.hl7_tls_certificate, settings.hl7_tls_key, settings.hl7_tls_ca)
        proved = MllpServer(answer, limits, context)
        await proved.start(settings.hl7_tls_host, settings.hl7_tls_port)
        servers.append(proved)
    return servers


async def _forever(task: Task) -> int | None:
    await task()
    return service.FAILED


@click.command("hl7")
def command() -> None:
    """Take in results, orders and patients by HL7 v2 over MLLP.

    Runs until it is stopped. Ends with status 75 when a rebuild has switched to other tables: start it again.
    """
    settings = Settings.load("hl7")
    service.run("hl7", partial(serve, settings), settings.log_level)
