"""Taking in orders: `Orders`, which the doors of FHIR, HL7 v2 and the clerk's page share.

A version of an order goes these steps:

1. the versions that are there are read from S3 (no read model: a producer never asks one), and the change is judged
2. an order without an accession number gets one that nobody at its site has: `accessions/<site>/<number>` is claimed
3. the document is in S3 under its version's key (`If-None-Match: *`: of two writers of one version one is refused)
4. the events `order.*` and, for a study that was not expected before, `study.expected` are in the chain's journal, and
   Kafka has acknowledged them or is given a little time to
5. the sender is told id, version and accession number

A crash between 3 and 4 leaves a document without an event; the sender, who was told nothing, sends again, finds its own
content and the events are published: their ids are derived from order and version.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from infra import clock, faults, telemetry
from infra.chain import Publishes
from infra.ports import Objects
from producers.order_document import (
    Sent,
    Start,
    accession_of,
    completed,
    order_id,
    parse,
    recorded,
    same_content,
    start_of,
    study_uid_of,
    with_status,
)
from schemas.errors import Defect, Invalid, Permanent, SijilError
from schemas.events import Event, Named, OrderCancelled, OrderChanged, OrderPlaced, StudyExpected
from schemas.identity import derived_id
from schemas.lifecycle import ORDER_CANCELLED, ORDER_TRANSITIONS
from schemas.orders import Order

log = telemetry.logger(__name__)

VERSIONS_MAX = 1000
ATTEMPTS_MAX = 100
"""Accession numbers that are tried: a site with 100,000 orders on one day needs more than ten once in 10^10."""
KEPT_S = 10.0
ACKNOWLEDGED_S = 2.0
"""How long an answer waits for Kafka; the events are on this machine's disk before that."""
FHIR_JSON = "application/fhir+json"

STATED = telemetry.Counter("sijil_orders_stated", "Versions of orders taken in, by event", ["event"])


class Conflict(Permanent):
    """The change cannot be made on what is there. `status` is HTTP's."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Kept:
    """A version in S3."""

    order_id: str
    version: int
    sent: Sent
    data: bytes

    @property
    def order(self) -> Order:
        """What it says."""
        return self.sent.order


@dataclass(frozen=True)
class Told:
    """What the sender is told. `new`: this made the version."""

    order_id: str
    version: int
    status: str
    site: str
    accession: str
    study_uid: str
    new: bool


class Orders:
    """Takes in versions of orders. Blocking; thread-safe."""

    def __init__(self, objects: Objects, chain: Publishes, *, bucket: str, site: str, zone: str) -> None:
        """`site`: of orders that name none. `zone`: IANA name, where the sites are."""
        self._objects, self._chain, self._bucket, self._site = objects, chain, bucket, site
        self._zone = ZoneInfo(zone)

    def place(self, document: bytes, *, actor: str, asked_id: str = "", site: str = "") -> Told:
        """The first version, or the next of the order with the same id or placer's number. What was said before, in any
        version, is no new one. `site`: where it is done, if the document does not say. Raises Invalid, Conflict.
        """
        sent = parse(document)
        site = sent.order.site or site or self._site
        id = order_id(sent, asked_id, site) or str(clock.uuid7())
        versions = self._versions(id)
        for version in reversed(versions):
            kept = self._read(id, version)
            if self._says(sent, kept):
                return self._publish(kept, "ordered", actor, new=False)
        before = self._read(id, versions[-1]) if versions else None
        return self._store(id, sent, before, "ordered", actor, site)

    def change(
        self, id: str, document: bytes, expected: int | None, *, actor: str, reason: str = "changed", site: str = ""
    ) -> Told:
        """The version behind `expected`; None: behind whatever is the last, or the first. Raises Conflict(412)."""
        sent = parse(document)
        versions = self._versions(id)
        before = self._read(id, versions[-1]) if versions else None
        if expected is not None and expected != (before.version if before else 0):
            # The sender may not have got our answer: what it sends again is there as the version it asked for
            if expected + 1 in versions and self._says(sent, again := self._read(id, expected + 1)):
                return self._publish(again, reason, actor, new=False)
            raise Conflict(412, "order-version", f"the current version is {before.version if before else 'none'}")
        if before is not None and self._says(sent, before):
            return self._publish(before, reason, actor, new=False)
        return self._store(id, sent, before, reason, actor, sent.order.site or site or self._site)

    def cancel(self, id: str, expected: int | None, *, actor: str, reason: str, status: str = "revoked") -> Told:
        """Take an order back (`revoked`), or say that it should never have been (`entered-in-error`). Raises
        Conflict(404, 409, 412).
        """
        before = self.current(id)
        if before is None:
            raise Conflict(404, "order-unknown", "there is no such order")
        if before.order.status == status and expected in (None, before.version - 1, before.version):
            return self._publish(before, reason, actor, new=False)
        if expected not in (None, before.version):
            raise Conflict(412, "order-version", f"the current version is {before.version}")
        return self._store(id, with_status(before.sent, status), before, reason, actor, before.order.site)

    def current(self, id: str) -> Kept | None:
        """The last version; None: there is none."""
        versions = self._versions(id)
        return self._read(id, versions[-1]) if versions else None

    # ------------------------------------------------------------------------------------------------ steps

    def _store(self, id: str, sent: Sent, before: Kept | None, reason: str, actor: str, site: str) -> Told:
        status, was = sent.order.status, before.order.status if before else ""
        if status not in ORDER_TRANSITIONS.get(was, frozenset()):
            raise Conflict(409, "order-transition", f"{status} may not follow {was or 'nothing'}")
        if before is not None and before.order.site != site:
            raise Conflict(409, "order-site", "an order stays at its site: cancel it and place another")
        if before is not None and before.version >= VERSIONS_MAX:
            raise Conflict(409, "order-versions", f"an order has at most {VERSIONS_MAX} versions")
        version = before.version + 1 if before else 1
        now = clock.now()
        # Step 2: the accession number
        accession = sent.order.accession or (before.order.accession if before else "")
        accession = self._claimed(id, site, accession, now.astimezone(self._zone).strftime("%Y%m%d"))
        faults.point("orders.after-accession")
        # Step 3: the document
        data = completed(
            sent,
            order_id=id,
            version=version,
            site=site,
            accession=accession,
            study_uid=before.order.study_uid if before else study_uid_of(id),
            authored=before.order.authored if before else clock.rfc3339(now),
            recorded=clock.rfc3339(now),
        )
        digest = hashlib.sha256(data).hexdigest()
        try:
            self._objects.put(self._bucket, _key(id, version), data, sha256=digest, content_type=FHIR_JSON)
        except Defect as taken:
            raise Conflict(412, "order-version", f"another writer made version {version}") from taken
        faults.point("orders.after-document")
        return self._publish(Kept(id, version, parse(data), data), reason, actor, new=True, before=before)

    def _claimed(self, id: str, site: str, accession: str, day: str) -> str:
        """`accession`, or one that is this order's alone."""
        for attempt in range(ATTEMPTS_MAX):
            number = accession or accession_of(id, day, attempt)
            try:
                body = id.encode()
                key = f"accessions/{site}/{hashlib.sha256(number.encode()).hexdigest()}"
                self._objects.put(self._bucket, key, body, sha256=hashlib.sha256(body).hexdigest())
            except Defect:
                if not accession:
                    continue
            return number
        raise Defect(f"no accession number is free at site {site}")

    def _publish(self, kept: Kept, reason: str, actor: str, *, new: bool, before: Kept | None = None) -> Told:
        """Step 4: the events."""
        if before is None and kept.version > 1:
            before = self._read(kept.order_id, kept.version - 1)
        event = self._event(kept, before, reason, actor)
        facts: list[tuple[Event, str]] = [(event, event_id(kept.order_id, kept.version))]
        if before is None or before.order.study_uid != kept.order.study_uid:
            facts.append(_expected(kept))
        pending = [self._chain.publish(fact, id=id, subject=fact.key()) for fact, id in facts]
        for publication in pending:
            publication.kept.result(KEPT_S)
        try:
            for publication in pending:
                publication.acknowledged.result(ACKNOWLEDGED_S)
        except (SijilError, FutureTimeout):
            log.warning("order taken in, kafka has not acknowledged it yet", order_id=kept.order_id)
        if new:
            STATED.labels(event.TYPE).inc()
        order = kept.order
        return Told(kept.order_id, kept.version, order.status, order.site, order.accession, order.study_uid, new)

    def _event(
        self, kept: Kept, before: Kept | None, reason: str, actor: str
    ) -> OrderPlaced | OrderChanged | OrderCancelled:
        order, start = kept.order, self._start(kept)
        said: dict[str, Any] = {
            "order_id": kept.order_id,
            "version": kept.version,
            "status": order.status,
            "priority": order.priority,
            "site": order.site,
            "study_uid": order.study_uid,
            "modality": order.modality,
            "day": start.day,
            "day_before": self._start(before).day if before else "",
            "scheduled": start.moment,
            "people": [Named(person_id=order.requester, relation="referring")] if order.requester else [],
            "actor": actor,
            "recorded": recorded(kept.sent),
            "bucket": self._bucket,
            "document_key": _key(kept.order_id, kept.version),
            "document_size": len(kept.data),
            "document_sha256": hashlib.sha256(kept.data).hexdigest(),
            "previous_key": _key(kept.order_id, before.version) if before else "",
        }
        if order.status in ORDER_CANCELLED:
            return OrderCancelled(reason=reason, **said)
        return OrderChanged(**said) if before else OrderPlaced(**said)

    def _start(self, kept: Kept) -> Start:
        """When it is to be done; without an appointment on the day of the order."""
        found = start_of(kept.order.scheduled, self._zone)
        if found is None and (written := start_of(kept.order.authored, self._zone)):
            found = Start(written.day, "")
        if found is None:
            raise Defect(f"order {kept.order_id} has no time")
        return found

    def _says(self, sent: Sent, kept: Kept) -> bool:
        """Whether what was sent is what a version says, with what the archive added to it."""
        order = kept.order
        as_kept = completed(
            sent,
            order_id=kept.order_id,
            version=kept.version,
            site=order.site,
            accession=order.accession,
            study_uid=order.study_uid,
            authored=order.authored,
            recorded=recorded(kept.sent),
        )
        return same_content(as_kept, kept.data)

    def _versions(self, id: str) -> list[int]:
        """Step 1: numbers of the versions in S3, ascending."""
        names = (key.rpartition("/")[2].removesuffix(".json") for key in self._objects.list(self._bucket, _prefix(id)))
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def _read(self, id: str, version: int) -> Kept:
        data = self._objects.get(self._bucket, _key(id, version))
        try:
            return Kept(id, version, parse(data), data)
        except Invalid as broken:
            raise Defect(f"the document of order {id}, version {version}, is damaged") from broken


def event_id(order_id: str, version: int) -> str:
    """Id of the event of a version."""
    return derived_id("order", order_id, version)


def _expected(kept: Kept) -> tuple[Event, str]:
    event = StudyExpected(
        study_uid=kept.order.study_uid,
        basis="order",
        site=kept.order.site,
        order_id=kept.order_id,
        recorded=recorded(kept.sent),
    )
    return event, derived_id(StudyExpected.TYPE, kept.order_id, kept.order.study_uid)


def _prefix(id: str) -> str:
    return f"orders/{id}/"


def _key(id: str, version: int) -> str:
    return f"{_prefix(id)}{version}.json"
