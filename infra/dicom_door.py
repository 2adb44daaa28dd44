"""The DICOM door: one listener, to which the rooms add their services by entry points, and the process that runs it.

An entry point of group `sijil.dicom` is `register(door: DicomDoor) -> None`. Through the door it finds the settings
and the ports, and says what it serves: presentation contexts, storage, handlers of pynetdicom's events, who is let
in.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

import click
from pynetdicom import AE, _config, evt

from infra import clock, telemetry, tls
from infra.chain import ChainedLog
from infra.committed import CommittedInstances
from infra.dicom_association import BoundedServer, EventAssociation, handler_class
from infra.dicom_exchange import Handler
from infra.dicom_services import (
    CALLED_AE_UNKNOWN,
    CALLING_AE_UNKNOWN,
    Admit,
    Identify,
    Negotiate,
    Peer,
    Rejection,
    Services,
    StoreService,
)
from infra.dicom_tls import TlsFront
from infra.health import HealthServer
from infra.kafka import KafkaLog
from infra.objects import S3Objects
from infra.ports import Log, Objects
from infra.settings import Settings, SettingsError
from schemas.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

__all__ = ["DicomDoor", "Listener", "Register", "command"]

log = telemetry.logger(__name__)

ENTRY_POINTS = "sijil.dicom"
MAXIMUM_PDU = 128 * 1024
"""The longest that DCMTK sends; longer ones would be read as well."""
IDLE_S = 120
"""An association on which nothing comes for so long is aborted."""
ACSE_S = 30
"""From connection to A-ASSOCIATE-RQ."""
STOP_S = 8.0
"""Associations have so long to end when the process is told to."""

ASSOCIATIONS = telemetry.Counter("sijil_dicom_associations", "Associations by outcome", ["outcome"])
OPEN_ASSOCIATIONS = telemetry.Gauge("sijil_dicom_associations_open", "Associations now open")

Task = Callable[[], None]


class DicomDoor:
    """What a room needs of the process that answers DICOM."""

    def __init__(self, settings: Settings, *, log: Log, chain: ChainedLog, objects: Objects) -> None:
        self.settings, self.log, self.chain, self.objects = settings, log, chain, objects
        self.contexts: list[Negotiate] = []
        """Asked in their order which transfer syntax of a proposed context is accepted; the first answer counts."""
        self.admissions: list[Admit] = []
        """Asked in their order whether an association is rejected; the first rejection counts."""
        self.identify: Identify = lambda peer: None
        """For whom a peer speaks: the room that keeps the AE table says it."""
        self.handlers: list[tuple[Any, Callable[..., Any]]] = []
        self.store: StoreService | None = None
        """Takes C-STORE requests."""
        self.requests: dict[type[Any], Handler] = {}
        """Request primitive of pynetdicom → who answers it."""
        self.both_roles: list[Callable[[str], bool]] = []
        """Asked whether a peer may take the SCP role of an abstract syntax; one yes is enough."""
        self.committed: CommittedInstances | None = None
        """What the whole archive has; None while no room answers that."""
        self.starts: list[Task] = []
        self.stops: list[Task] = []
        self.checks: dict[str, Callable[[], bool | str]] = {}
        self.backlogs: dict[str, Callable[[], int]] = {"chain_backlog": lambda: chain.backlog}

    def handle(self, event: Any, handler: Callable[..., Any]) -> None:
        """Bind a handler to an event of pynetdicom (`evt.EVT_C_FIND`)."""
        self.handlers.append((event, handler))

    def on_start(self, task: Task) -> None:
        """Called before the door opens, in the order of registration; an error ends the process."""
        self.starts.append(task)

    def on_stop(self, task: Task) -> None:
        """Called when no association is open any more, last registered first."""
        self.stops.append(task)

    def readiness(self, name: str, check: Callable[[], bool | str]) -> None:
        """`check` returns at once: True, or False or a reason when the part is not ready."""
        self.checks[name] = check

    def backlog(self, name: str, figure: Callable[[], int]) -> None:
        """A figure of `/health/ready`, for example `spool_backlog`."""
        self.backlogs[name] = figure

    def negotiate(self, abstract_syntax: str, offered: Sequence[str]) -> str | None:
        """The transfer syntax in which a context is accepted, None to refuse it."""
        answers = (choose(abstract_syntax, offered) for choose in self.contexts)
        return next((a for a in answers if a is not None), None)

    def ready(self) -> dict[str, bool]:
        """The checks."""
        return {name: check() is True for name, check in self.checks.items()}

    def figures(self) -> dict[str, int | float]:
        """The backlogs."""
        return {name: figure() for name, figure in self.backlogs.items()}


class Listener:
    """The listening AE. Binds at once: OSError if the port is taken."""

    def __init__(self, door: DicomDoor) -> None:
        _config.LOG_HANDLER_LEVEL = "none"  # the standard handlers format every PDU, and log values
        _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
        settings = door.settings
        self._door = door
        self._ae = AE(settings.ae_title)
        self._ae.maximum_pdu_size = MAXIMUM_PDU
        self._ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self._ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._ae.network_timeout, self._ae.acse_timeout = IDLE_S, ACSE_S
        self._ae.maximum_associations = 1 << 30  # ours counts those of this listener alone
        self._ae.add_supported_context("1.2.840.10008.1.1")  # pynetdicom wants one; `contexts` decides
        services = Services(
            door.negotiate,
            self._admit,
            door.identify,
            door.store,
            door.requests,
            lambda abstract_syntax: any(yes(abstract_syntax) for yes in door.both_roles),
        )
        server = self._ae.make_server(
            (settings.dicom_host, settings.dicom_port),
            evt_handlers=[(evt.EVT_ACCEPTED, _accepted), (evt.EVT_REJECTED, _rejected), *door.handlers],
            server_class=BoundedServer,
            request_handler=handler_class(services),
        )
        assert isinstance(server, BoundedServer)  # noqa: S101  (pynetdicom's types say less)
        server.associations_max = settings.max_associations
        self._server = server
        self._front: TlsFront | None = None
        if settings.dicom_tls_certificate:
            if not settings.dicom_tls_ca:
                raise SettingsError("SIJIL_DICOM_TLS_CA must name the CA whose certificates callers have")
            context = tls.server(settings.dicom_tls_certificate, settings.dicom_tls_key, settings.dicom_tls_ca)
            self._front = TlsFront((settings.dicom_tls_host, settings.dicom_tls_port), context, server.give)
        self._ae._servers.append(self._server)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="dicom-listener", daemon=True)
        OPEN_ASSOCIATIONS.set_function(lambda: len(self.associations()))

    def start(self) -> None:
        """Accept connections."""
        self._thread.start()
        if self._front is not None:
            self._front.start()

    @property
    def tls_port(self) -> int:
        """Where it listens with TLS; 0: nowhere."""
        return self._front.port if self._front else 0

    def associations(self) -> list[EventAssociation]:
        """Those now open."""
        return [a for a in self._server.active_associations if isinstance(a, EventAssociation)]

    def close(self, timeout_s: float) -> None:
        """Accept no more; let those open end, as far as the time goes, then abort them."""
        if self._front is not None:
            self._front.close()
        self._server.shutdown()
        deadline = clock.monotonic() + timeout_s
        while self.associations() and clock.monotonic() < deadline:
            threading.Event().wait(0.05)
        for assoc in self.associations():
            assoc.abort()

    def _admit(self, peer: Peer) -> Rejection | None:
        if peer.called_ae != self._door.settings.ae_title:
            return CALLED_AE_UNKNOWN
        if peer.caller is None:
            return CALLING_AE_UNKNOWN
        return next((r for admit in self._door.admissions if (r := admit(peer)) is not None), None)


def _accepted(event: Any) -> None:
    ASSOCIATIONS.labels("accepted").inc()


def _rejected(event: Any) -> None:
    ASSOCIATIONS.labels("rejected").inc()


def serve(settings: Settings) -> None:
    """Run the door until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    kafka = KafkaLog(settings)
    objects = S3Objects(settings)
    chain = ChainedLog.open(settings, "gateway", kafka, objects)
    try:
        door = DicomDoor(settings, log=kafka, chain=chain, objects=objects)
        for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda e: e.name):
            entry.load()(door)
        run(door, stop)
    finally:
        chain.close(STOP_S)
        kafka.close()
        objects.close()


def run(door: DicomDoor, stop: threading.Event) -> None:
    """Everything registered, from start to stop."""
    settings = door.settings
    health = HealthServer(settings.health_host, settings.gateway_health_port, ready=door.ready, figures=door.figures)
    try:
        listener = Listener(door)
        for start in door.starts:
            start()
        listener.start()
        stop.wait()
        listener.close(STOP_S)
    finally:
        for task in reversed(door.stops):
            try:
                task()
            except Exception as error:  # noqa: BLE001 (logged; what is registered before must still be stopped)
                log.error("stop failed", error=error)
        health.close()


Register = Callable[[DicomDoor], None]


@click.command("gateway")
def command() -> None:
    """Run the DICOM door."""
    settings = Settings.load("gateway")
    telemetry.setup("gateway", settings.log_level)
    log.info("dicom door opens", host=settings.dicom_host, port=settings.dicom_port, ae_title=settings.ae_title)
    serve(settings)
