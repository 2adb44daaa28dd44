"""Orders that come in (ORM, OMI) become versions of the archive's own (producers.orders)."""

from __future__ import annotations

import asyncio
from datetime import tzinfo

import msgspec

from infra import telemetry
from infra.chain import Publishes
from infra.ports import Objects
from producers.hl7.incoming import Acknowledging, Incoming
from producers.hl7.order import Asked, orders
from producers.hl7.person import patient
from producers.orders import Conflict, Orders
from schemas.errors import Invalid, Transient
from schemas.orders import resource

ATTEMPTS = 4
"""How often a version is tried anew when another writer was faster."""
REASON = "his-cancelled"

TAKEN = telemetry.Counter("sijil_hl7_orders", "Orders of HL7 v2 by what became of them", ["outcome"])


class OrdersIn:
    """Takes in orders. Runs on one event loop; the domain's blocking work runs in threads."""

    def __init__(self, objects: Objects, chain: Publishes, *, bucket: str, zone: tzinfo, zone_name: str) -> None:
        """`zone`: where the sites are, and its IANA name."""
        self._objects, self._chain, self._bucket = objects, chain, bucket
        self._zone, self._zone_name = zone, zone_name

    async def take(self, incoming: Incoming) -> None:
        """All orders of a message. See `producers.hl7.incoming.Take`."""
        person = patient(incoming.message)
        asked = orders(incoming.message, person, site=incoming.site, issuer=incoming.issuer, zone=self._zone)
        refused: Invalid | None = None
        for one in asked:
            try:
                await asyncio.to_thread(self._take, one, incoming)
            except Invalid as wrong:
                refused = refused or wrong  # the others of the message are taken all the same
        if refused is not None:
            raise refused

    def _take(self, asked: Asked, incoming: Incoming) -> None:
        chain = Acknowledging(self._chain)
        taken = Orders(self._objects, chain, bucket=self._bucket, site=incoming.site, zone=self._zone_name)
        for _ in range(ATTEMPTS):
            try:
                if asked.cancels:
                    told = taken.cancel(asked.order_id, None, actor=incoming.actor, reason=REASON)
                else:
                    document = msgspec.json.encode(resource(asked.order), order="deterministic")
                    told = taken.place(document, actor=incoming.actor, asked_id=asked.order_id, site=incoming.site)
            except Conflict as conflict:
                if conflict.status == 412:
                    continue  # another writer had the version: look again
                known = conflict.reason == "order-unknown"
                raise Invalid("hl7-order-unknown" if known else conflict.reason, str(conflict)) from conflict
            chain.wait()
            TAKEN.labels("taken" if told.new else "repeated").inc()
            return
        raise Transient("others are writing this order")
