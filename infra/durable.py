"""A decision said durably, for who must not go on without: kept in the chain's journal, which is also its outbox."""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeout
from typing import Final

from infra import telemetry
from infra.chain import Publishes
from schemas.errors import SijilError
from schemas.events import Event

KEPT_S: Final = 10.0
ACKNOWLEDGED_S: Final = 2.0

log = telemetry.logger(__name__)


def durable(
    chain: Publishes, event: Event, *, id: str = "", subject: str = "", acknowledged_s: float = ACKNOWLEDGED_S
) -> bool:
    """Publish it; return when it is in the fsynced journal, and Kafka has acknowledged it or was given its time to.

    True: Kafka has it. False: Kafka is away, and gets it from the journal later. Blocking. Raises Invalid for what the
    event's schema refuses, Overloaded, Transient: then nothing was said, and nothing may follow from it.
    """
    publication = chain.publish(event, id=id, subject=subject)
    publication.kept.result(KEPT_S)
    try:
        publication.acknowledged.result(acknowledged_s)
    except (SijilError, FutureTimeout):
        log.warning("said, kafka has not acknowledged it yet", event_id=publication.id, type=event.TYPE)
        return False
    return True
