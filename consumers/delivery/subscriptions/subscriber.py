"""A subscription as a destination: handshake, then every event by its number, one after the other; heartbeats between.

The steps of a notification:
1. the event has a number, and the row says which delivery that is
2. the endpoint is called
3. the row says that it was taken

A crash after 1 or 2 calls again with the same number and the same id.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from consumers.delivery.entry import REPORT, SUBSCRIPTION, Away, Delivered, Entry, Outcome, Waiting
from consumers.delivery.queue import back_off
from consumers.delivery.subscriptions.endpoint import approved
from consumers.delivery.subscriptions.receiver import Receiver
from consumers.delivery.subscriptions.seal import Seal
from consumers.delivery.subscriptions.store import NOT_APPROVED, Progress, Store, Subscription
from consumers.fhir.codes import Resource
from consumers.fhir.notification import HANDSHAKE, HEARTBEAT, NOTIFICATION, About, Happened, bundle
from consumers.fhir.subscription import REPORT_ISSUED, STUDY_COMPLETE
from infra import clock
from schemas.errors import Invalid
from schemas.events import Event, ReportIssued, StudyCompleted
from schemas.identity import derived_id
from schemas.topics import topic_of

EVENTS: Final[Mapping[str, type[Event]]] = {REPORT_ISSUED: ReportIssued, STUDY_COMPLETE: StudyCompleted}
"""Topic of subscriptions → the event that it tells of."""
RETRY_FIRST_S, RETRY_MOST_S = 1.0, 300.0
"""Between handshakes, or heartbeats, that were not answered."""


class Subscriber:
    """One subscription, as long as it lives. `now_is` tells it how it was changed."""

    def __init__(
        self, of: Subscription, prefixes: Sequence[str], store: Store, receiver: Receiver, seal: Seal, base: str
    ) -> None:
        """`base`: URL of the FHIR door."""
        self.of, self._prefixes = of, prefixes
        self.name = of.destination
        self.topics: Sequence[str] = (topic_of(EVENTS[of.topic]),)
        self._store, self._receiver, self._seal, self._base = store, receiver, seal, base
        self._progress: Progress | None = None
        self._turn = asyncio.Lock()
        self._tries, self._due = 0, 0.0

    def now_is(self, of: Subscription, prefixes: Sequence[str]) -> bool:
        """As it stands in the store; whether that is another than it was. Then everything is tried at once."""
        changed = of.version != self.of.version or list(prefixes) != list(self._prefixes)
        if changed:
            self._tries, self._due = 0, 0.0
        self.of, self._prefixes = of, prefixes
        return changed

    def subjects(self, event: Event) -> Sequence[str]:
        """See Destination: one subject, so that numbers are in the order of the deliveries."""
        return (SUBSCRIPTION + self.of.id,) if isinstance(event, EVENTS[self.of.topic]) else ()

    async def deliver(self, entry: Entry) -> Outcome:
        """See Destination."""
        async with self._turn:
            known, of = await self._known(), self.of
            if not approved(of.endpoint, self._prefixes):
                return Waiting(NOT_APPROVED)
            if known.version != of.version:
                return Waiting("handshake-not-answered")
            if known.delivery_id != entry.id:  # Step 1
                known = await self._note(replace(known, number=known.number + 1, delivery_id=entry.id))
            event = _happened(entry, known.number)
            told = bundle(
                self._about("active", known.number),
                NOTIFICATION,
                id=derived_id("notification", of.id, known.number),
                moment=clock.rfc3339(clock.now()),
                event=event,
            )
            await self._send(of, told, entry.id)  # Steps 2 and 3
        return Delivered()

    async def beat(self) -> bool:
        """What is due beside events: the handshake, else a heartbeat. Whether hands were shaken just now.

        Raises Transient for a fault of this side; what the endpoint says is kept.
        """
        async with self._turn:
            known, of, now = await self._known(), self.of, clock.now()
            if not approved(of.endpoint, self._prefixes) or clock.monotonic() < self._due:
                return False
            kind = HANDSHAKE if known.version != of.version else ""
            silent_s = (now - (known.sent or of.since)).total_seconds()
            if not kind and of.heartbeat_s and silent_s >= of.heartbeat_s:
                kind = HEARTBEAT
            if not kind:
                return False
            status = "requested" if kind == HANDSHAKE else "error" if known.error else "active"
            id = derived_id("notification", of.id, kind, of.version, clock.rfc3339(now))
            told = bundle(self._about(status, known.number), kind, id=id, moment=clock.rfc3339(now))
            try:
                await self._send(of, told, id, version=of.version)
            except Away as away:
                self._tries += 1
                after_s = back_off(RETRY_FIRST_S, RETRY_MOST_S, self._tries, random.SystemRandom().random)
                self._due = clock.monotonic() + max(after_s, away.retry_after_s)
                return False
            self._tries, self._due = 0, 0.0
            return kind == HANDSHAKE

    async def close(self) -> None:
        """See Destination."""
        await self._receiver.close()

    # ---------------------------------------------------------------------------------------------- the calls

    async def _send(self, of: Subscription, told: Resource, key: str, version: int = 0) -> None:
        """Send to it as it was when that was decided, and note how that went; with a `version` its handshake is done.

        Raises Away.
        """
        try:
            try:
                headers = self._seal.opened(of.sealed)
            except Invalid as e:
                raise Away(e.reason) from e
            await self._receiver.send(of.endpoint, headers, told, key, of.timeout_s)
        except Away as away:
            known = await self._known()
            if (known.tried, known.error) != (of.version, away.reason):
                await self._note(replace(known, tried=of.version, error=away.reason))
            raise
        known = await self._known()
        version = version or known.version
        await self._note(replace(known, version=version, tried=of.version, error="", sent=clock.now()))

    async def _known(self) -> Progress:
        if self._progress is None:
            (self._progress,) = await self._store.progress([self.of.id])
        return self._progress

    async def _note(self, progress: Progress) -> Progress:
        await self._store.note(self.of.id, progress)
        self._progress = progress
        return progress

    def _about(self, status: str, events: int) -> About:
        return About(self._base, self.of.id, self.of.topic, status, events)


def _happened(entry: Entry, number: int) -> Happened:
    """The event that a subscriber is told of."""
    kind, _, id = entry.about.partition("/")
    report = kind + "/" == REPORT
    new = getattr(entry.event, "version", 1) == 1
    focus = f"{'DiagnosticReport' if report else 'ImagingStudy'}/{id}"
    return Happened(number, clock.rfc3339(entry.recorded), focus, new)
