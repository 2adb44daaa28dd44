"""A message that came in, and what answers for it until everything that it says is on the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from infra import clock
from infra.chain import Publication, Publishes
from schemas.errors import Transient
from schemas.events import Event
from schemas.hl7 import Message
from schemas.identity import derived_id

ACKNOWLEDGED_S = 10.0
"""How long a sender waits for Kafka before it is told to come back."""


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A message of a sender that may send it."""

    message: Message
    message_id: str
    """The same for the same message sent again."""
    site: str
    issuer: str
    """Of the patients' numbers."""
    actor: str
    """Who says it, for events: `hl7:<facility>@<address>`."""
    key: str
    """Of the message as it came, in the bucket of documents."""

    @property
    def source(self) -> str:
        """URI of the message, for documents made of it."""
        return f"urn:uuid:{self.message_id}"


Take = Callable[[Incoming], Awaitable[None]]
"""Does what a message says; on return everything is acknowledged, or waits durably. Raises Permanent for what it will
always refuse, Transient for now."""


def message_id(facility: str, application: str, control_id: str, body: str) -> str:
    """Of a message: its sender, MSH-10, and what stands behind MSH, since counters of senders begin again."""
    return derived_id("hl7-message", facility, application, control_id, body)


def message_key(id: str) -> str:
    """Where the message is kept as it came, in the bucket of documents."""
    return f"hl7/{id[:2]}/{id}.hl7"


class Acknowledging(Publishes):
    """A chain whose events of one message are waited for: a sender is told AA once Kafka has all of them."""

    def __init__(self, chain: Publishes) -> None:
        self._chain = chain
        self._told: list[Publication] = []

    def publish(self, event: Event, *, id: str = "", subject: str = "", traceparent: str = "") -> Publication:
        publication = self._chain.publish(event, id=id, subject=subject, traceparent=traceparent)
        self._told.append(publication)
        return publication

    def wait(self, timeout_s: float = ACKNOWLEDGED_S) -> None:
        """Blocks until Kafka has acknowledged every event published through this. Raises Transient."""
        until = clock.monotonic() + timeout_s
        for publication in self._told:
            try:
                publication.acknowledged.result(max(0.0, until - clock.monotonic()))
            except FutureTimeout as e:
                raise Transient("Kafka has not acknowledged the event yet") from e
