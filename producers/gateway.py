"""What every gateway process has, whichever door it keeps: spool, publisher, quarantine, and how it refuses.

The `api` process takes in by STOW-RS, the `gateway` process by C-STORE; each is a gateway of its own, with its own
spool and its own chain of events.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from infra import allocator, clock, telemetry
from infra.chain import ChainedLog
from infra.committed import CommittedInstances
from infra.ports import Log, Objects
from infra.settings import Role, Settings
from producers.body import Body
from producers.commitment.queue import CommitmentQueue
from producers.commitment.worker import Commitments, Report, Times
from producers.identify import Refused
from producers.open_pack import Instance
from producers.publish import Publisher
from producers.quarantine import Quarantine
from producers.shelf import MB, Room
from producers.spool import Feeder, Kept, Spool
from schemas.errors import Transient
from schemas.events import InstanceRejected
from schemas.pack import Sender

log = telemetry.logger(__name__)

REJECTED = telemetry.Counter("sijil_instances_rejected", "Instances refused, by door and reason", ["door", "reason"])
BACKLOG_PACKS = telemetry.Gauge("sijil_spool_backlog_packs", "Packs accepted and not yet in S3 and Kafka")
BACKLOG_BYTES = telemetry.Gauge("sijil_spool_backlog_bytes", "Bytes accepted and not yet in S3 and Kafka")
BACKLOG_AGE = telemetry.Gauge("sijil_spool_backlog_oldest_seconds", "Age of the oldest sealed pack not yet published")
STUCK = telemetry.Gauge("sijil_packs_stuck", "Packs that no retry can publish")

REJECTION_KEPT_S = 2.0
"""How long a refusal waits for its event to be durable before the sender is answered all the same."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sends, and for whom."""

    sender: Sender
    site: str
    issuer: str
    """Of identifiers that the dataset gives without one."""


class Gateway:
    """Thread-safe. `start` publishes what an earlier process left."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        publisher: Publisher,
        quarantine: Quarantine,
        chain: ChainedLog,
    ) -> None:
        self.settings, self.spool, self.publisher = settings, spool, publisher
        self._quarantine, self._chain = quarantine, chain

    @classmethod
    def open(cls, settings: Settings, role: Role, chain: ChainedLog, objects: Objects, kafka: Log) -> Gateway:
        """The gateway of this process. Raises Permanent when another process has its spool."""
        allocator.keep_pages()
        spool = Spool.open(settings, role, chain.source)
        publisher = Publisher(
            spool.shelf, chain, objects, kafka, bucket=settings.bucket_packs, threads=settings.upload_threads
        )
        quarantine = Quarantine(settings.quarantine, settings.quarantine_max_mb * MB)
        return cls(settings, spool, publisher, quarantine, chain)

    def commitments(
        self, archive: Callable[[], CommittedInstances | None], report: Report | None = None
    ) -> Commitments:
        """The storage commitments of this gateway, with what an earlier process left of them."""
        settings = self.settings
        times = Times(settings.commitment_grace_s, settings.commitment_days)
        return Commitments(CommitmentQueue(self.spool.commitments), self.spool, archive, times, report)

    def start(self) -> None:
        """Begin to publish, and to show figures."""
        self.publisher.start()
        BACKLOG_PACKS.set_function(lambda: self.spool.backlog().packs)
        BACKLOG_BYTES.set_function(lambda: self.spool.backlog().bytes)
        BACKLOG_AGE.set_function(lambda: self.spool.backlog().oldest_s)
        STUCK.set_function(lambda: len(self.publisher.stuck))

    def close(self, timeout_s: float) -> None:
        """Seal and keep everything; publish as far as the time goes."""
        self.spool.close()
        self.publisher.close(timeout_s)

    def ready(self) -> bool | str:
        """Whether instances are taken in: True, or why not."""
        room = self.spool.room()
        return True if room is Room.ENOUGH else f"spool-{room.name.lower()}"

    def published(self) -> bool | str:
        """Whether every pack can be published: True, or how many cannot."""
        return f"{len(self.publisher.stuck)} packs are stuck" if self.publisher.stuck else True

    def backlog(self) -> int:
        """Packs accepted and not yet in S3 and Kafka."""
        return self.spool.backlog().packs

    def keep(self, feeder: Feeder, instance: Instance, body: Body, origin: Origin) -> Future[Kept]:
        """Take an instance in. Raises SpoolFull, SpoolBroken."""
        return feeder.append(instance, body, site=origin.site, issuer=origin.issuer)

    def refuse(self, refused: Refused, body: Body, origin: Origin) -> None:
        """Keep the bytes of a refused instance for a person to look at, and say so in an event."""
        rejection_id = str(clock.uuid7())
        REJECTED.labels(origin.sender.door, refused.reason).inc()
        self._quarantine.keep(rejection_id, body)
        digest = hashlib.sha256()
        for chunk in body.chunks():
            digest.update(chunk)
        event = InstanceRejected(
            rejection_id=rejection_id,
            reason=refused.reason,
            site=origin.site,
            gateway=self._chain.source,
            door=origin.sender.door,
            received=clock.rfc3339(clock.now()),
            size=body.length,
            sha256=digest.hexdigest(),
            study_uid=refused.named.study_uid or None,
            sop_uid=refused.named.sop_uid or None,
            sop_class=refused.named.sop_class or None,
            calling_ae=origin.sender.ae_title,
        )
        log.info(
            "instance refused",
            reason=refused.reason,
            event_id=rejection_id,
            sop_uid=refused.named.sop_uid,
            ae_title=origin.sender.ae_title,
        )
        try:
            self._chain.publish(event, id=rejection_id).kept.result(REJECTION_KEPT_S)
        except (Transient, FutureTimeout) as error:
            # The sender gets its refusal; nobody was promised that this event is kept.
            log.warning("instance refused, its event is late or lost", reason=type(error).__name__)
