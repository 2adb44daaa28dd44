"""C-STORE and C-ECHO (PS3.4 Annexes A and B), and the gateway behind the DICOM door with its storage commitments.

The dataset bytes of the P-DATA stream are stored verbatim behind a File Meta of ours. Success is answered when they are
durable in the spool; the other statuses are those of `producers.refusals`.
"""

from __future__ import annotations

from functools import partial

from pynetdicom.dimse_primitives import N_ACTION

from infra import clock, telemetry
from infra.dicom_command import StoreRequest, StoreStatus
from infra.dicom_door import DicomDoor
from infra.dicom_services import LOCAL_LIMIT_EXCEEDED, Peer, Rejection
from infra.tls import Client
from producers.body import Body, Filed, FileWriter, Held
from producers.callers import Callers
from producers.commitment.delivery import Delivery
from producers.dicom.commitment import CommitmentScp
from producers.dicom.commitment import accept as accept_commitment
from producers.dicom.contexts import accept, is_storage
from producers.dicom.part10 import encode_file_meta
from producers.gateway import Gateway, Origin
from producers.identify import Named, Refused, identify_dataset
from producers.refusals import NOT_AUTHORIZED, OUT_OF_RESOURCES, PROCESSING_FAILURE, SUCCESS, refusal
from producers.shelf import MB, Room
from producers.spool import Feeder, SpoolFull
from schemas.errors import Invalid, Transient
from schemas.pack import Sender
from schemas.roles import Permission, Scope, scope_of

log = telemetry.logger(__name__)

STOP_S = 5.0
FIRST_BYTES = 1 * MB
"""Memory that an association has for its instances; more while it needs more."""
KEPT_BYTES_MAX = 2 * MB
"""Memory that an association keeps from one instance to the next."""

SECONDS = telemetry.Histogram(
    "sijil_c_store_seconds",
    "From the last byte of an instance to its answer",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)
STATUSES = telemetry.Counter("sijil_c_store_responses", "C-STORE responses by status", ["status"])


def register(door: DicomDoor) -> None:
    """Add storage and verification to the door."""
    gateway = Gateway.open(door.settings, "gateway", door.chain, door.objects, door.log)
    callers = Callers.open(door.settings)
    door.contexts.append(accept)
    door.identify = partial(callers.speaks_for, door.settings.site)
    door.admissions.append(partial(_admit, gateway))
    door.store = partial(_session, gateway, callers)
    delivery = Delivery(callers, door.settings.ae_title, tls=Client.of(door.settings))
    commitments = gateway.commitments(lambda: door.committed, delivery.report)
    door.contexts.append(accept_commitment)
    door.both_roles.append(is_storage)  # C-GET sends back on the contexts of storage
    door.requests[N_ACTION] = CommitmentScp(commitments, delivery).action
    door.on_start(gateway.start)
    door.on_start(callers.start)
    door.on_start(commitments.start)
    door.on_stop(callers.close)
    door.on_stop(partial(gateway.close, STOP_S))
    door.on_stop(commitments.close)
    door.readiness("spool", gateway.ready)
    door.readiness("publisher", gateway.published)
    door.backlog("spool_backlog", gateway.backlog)


def _admit(gateway: Gateway, peer: Peer) -> Rejection | None:
    return None if gateway.spool.room() is Room.ENOUGH else LOCAL_LIMIT_EXCEEDED


def _session(gateway: Gateway, callers: Callers, peer: Peer) -> StoreSession:
    sender = Sender(door="dimse", ae_title=peer.calling_ae, address=peer.address)
    site = gateway.settings.site
    caller = callers.find(peer.calling_ae, peer.address, peer.certificate)
    if caller is not None:
        site = caller.site or site
    allowed = peer.caller is not None and scope_of(peer.caller.role, Permission.STUDY_STORE) is not Scope.NONE
    return StoreSession(gateway, Origin(sender, site, (caller.issuer if caller else "") or site), allowed=allowed)


class StoreSession:
    """The instances of one association."""

    def __init__(self, gateway: Gateway, origin: Origin, *, allowed: bool) -> None:
        self.gateway, self.origin, self.allowed = gateway, origin, allowed
        self.feeder: Feeder = gateway.spool.feeder()
        self.memory = bytearray(FIRST_BYTES)
        """Used by one instance after another."""

    def begin(self, request: StoreRequest, transfer_syntax: str) -> Sink:
        """An instance begins."""
        return Sink(self, request, transfer_syntax)

    def end(self) -> None:
        """The association has ended."""
        self.feeder.close()


class Sink:
    """Takes one dataset: into memory up to the setting's bound, beyond into a file."""

    def __init__(self, session: StoreSession, request: StoreRequest, transfer_syntax: str) -> None:
        self._session, self._request, self._transfer_syntax = session, request, transfer_syntax
        self._bytes_max = session.gateway.settings.body_buffer_mb * MB
        self._length = 0
        """Bytes in memory."""
        self._file: FileWriter | None = None
        self._full = False
        try:
            self._head = self._file_meta()
        except Invalid:
            self._head = b""

    def _file_meta(self) -> bytes:
        return encode_file_meta(
            sop_class_uid=self._request.sop_class,
            sop_instance_uid=self._request.sop_uid,
            transfer_syntax=self._transfer_syntax,
            source_ae_title=self._session.origin.sender.ae_title,
        )

    def into(self, length: int) -> memoryview:
        """Memory for the next bytes."""
        memory = self._session.memory
        if self._length == len(memory):
            if len(memory) < self._bytes_max:
                larger = bytearray(min(2 * len(memory), self._bytes_max))
                larger[: len(memory)] = memory
                memory = self._session.memory = larger
            else:
                self._to_file()
        return memoryview(memory)[self._length : self._length + length]

    def took(self, length: int) -> None:
        """So many bytes have been put there."""
        self._length += length

    def finish(self) -> StoreStatus:
        """Store it; returns when it is durable, or refused."""
        started = clock.monotonic()
        body = self._body()
        try:
            told = self._store(body)
        finally:
            body.discard()
            if len(self._session.memory) > KEPT_BYTES_MAX:
                self._session.memory = bytearray(FIRST_BYTES)
        SECONDS.observe(clock.monotonic() - started)
        STATUSES.labels(f"{told.status:04X}").inc()
        return told

    def discard(self) -> None:
        """The association ended before all bytes were there."""
        if self._file is not None:
            self._file.discard()

    def _to_file(self) -> None:
        """Move what is in memory to the file; what a full disk refuses is read and forgotten."""
        part = memoryview(self._session.memory)[: self._length]
        self._length = 0
        if self._full:
            return
        try:
            if self._file is None:
                self._file = self._session.gateway.spool.writer()
                self._file.write(self._head)
            self._file.write(part)
        except OSError:
            self._full = True
            self.discard()

    def _body(self) -> Body:
        if self._file is None:
            return Held((self._head, memoryview(self._session.memory)[: self._length]))
        self._to_file()
        return self._file.finish()

    def _store(self, body: Body) -> StoreStatus:
        gateway, origin = self._session.gateway, self._session.origin
        if not self._session.allowed:
            return StoreStatus(NOT_AUTHORIZED, "this AE may not store: see its role in the AE table")
        if self._full:
            return StoreStatus(OUT_OF_RESOURCES, "out of resources")
        try:
            if not self._head:
                raise Refused("uid-missing" if not self._request.sop_uid else "uid-invalid", Named())
            instance = identify_dataset(
                body.view()[len(self._head) :] if isinstance(body, Filed) else memoryview(body.pieces[1]),
                transfer_syntax=self._transfer_syntax,
                dataset_offset=len(self._head),
                sop_class=self._request.sop_class,
                sop_uid=self._request.sop_uid,
                sender=origin.sender,
            )
            gateway.keep(self._session.feeder, instance, body, origin).result()
        except Refused as refused:
            gateway.refuse(refused, body, origin)
            return StoreStatus(*refusal(refused.reason))
        except SpoolFull:
            return StoreStatus(OUT_OF_RESOURCES, "out of resources")
        except Transient:
            return StoreStatus(PROCESSING_FAILURE, "processing failure")
        return StoreStatus(SUCCESS)
