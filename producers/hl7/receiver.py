"""Messages as they come in: who sends, whether it is for us, and what is answered.

1. the message is read, and its sender may send it
2. it is in S3 as it came
3. what it says is done, and its events are acknowledged (producers.hl7.results and its kind)
4. that is noted, so that the same message sent again changes nothing
5. AA

What always fails is answered AE or AR with its reason; what fails for now is tried for some seconds, then answered AR.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

from infra import clock, faults, telemetry
from infra.hl7_senders import FACILITY_MAX, Sender, find
from infra.mllp import Peer
from infra.ports import Objects
from producers.hl7.answer import Told, acknowledgement
from producers.hl7.answered import Answered
from producers.hl7.charset import decode
from producers.hl7.incoming import Incoming, Take, message_id, message_key
from schemas.errors import Defect, Invalid, Permanent, Transient
from schemas.hl7 import Message, parse

log = telemetry.logger(__name__)

SENDERS_S = 5.0
"""The table of senders is believed so long."""
PATIENCE_S = 8.0
"""What fails for now is tried again so long: senders that are told AR may need a person to send again."""
PAUSE_S = 0.5

MESSAGES = telemetry.Counter("sijil_hl7_messages", "HL7 v2 messages by type and answer", ["type", "code"])


class Receiver:
    """Answers messages."""

    def __init__(
        self,
        *,
        objects: Objects,
        bucket: str,
        site: str,
        processing: str,
        senders: Callable[[], Awaitable[Sequence[Sender]]],
        answered: Answered,
        takes: Mapping[str, Take],
    ) -> None:
        """`takes`: MSH-9 (`ORU^R01`) → who does what it says. `processing`: MSH-11 that is taken in."""
        self._objects, self._bucket, self._site, self._processing = objects, bucket, site, processing
        self._senders, self._answered, self._takes = senders, answered, takes
        self._known: tuple[float, Sequence[Sender]] = (-SENDERS_S, ())

    async def answer(self, data: bytes, peer: Peer) -> bytes:
        """The acknowledgement. See `infra.mllp.Answer`."""
        message, kind = None, "unread"
        try:
            text, _ = decode(data)
            message = parse(text)
            kind = self._kind(message)
            told = await self._taken(message, text, data, peer)
        except Invalid as wrong:
            told = Told(wrong.reason, str(wrong) if str(wrong) != wrong.reason else "")
        except Permanent as wrong:
            told = Told("hl7-refused", str(wrong))
        except Transient as error:
            log.warning("hl7 message not taken", reason=str(error), address=peer.address)
            told = Told("not-now", "try again later")
        MESSAGES.labels(kind, told.code).inc()
        if told.reason:
            log.info("hl7 message refused", reason=told.reason, type=kind, address=peer.address)
        now = clock.now()
        stamp = f"{now:%Y%m%d%H%M%S}.{now.microsecond // 1000:03}+0000"
        return acknowledgement(message, told, control_id=clock.uuid7().hex[:20], now=stamp)

    async def _taken(self, message: Message, text: str, data: bytes, peer: Peer) -> Told:
        # Step 1
        header = message.header
        facility = header.text(4)[:FACILITY_MAX]
        control_id = header.text(10)
        if not control_id:
            raise Invalid("hl7-control-id", "MSH-10 names the message")
        if header.text(11) not in ("", self._processing):
            raise Invalid("hl7-processing", f"MSH-11 must be {self._processing} here")
        if header.text(12) and not header.text(12).startswith("2."):
            raise Invalid("hl7-version", "versions 2.1 to 2.8 are understood")
        take = self._takes.get(self._kind(message))
        if take is None:
            raise Invalid("hl7-type", f"understood are {', '.join(sorted(self._takes))}")
        body = text[len(text.split("\r", 1)[0].split("\n", 1)[0]) :]
        until = clock.monotonic() + PATIENCE_S
        while True:
            try:
                sender = find(await self._table(), facility, peer)
                if sender is None:
                    raise Invalid("hl7-sender", "this facility may not send from this address: `sijil hl7-senders add`")
                site = sender.site or self._site
                id = message_id(facility, header.text(3), control_id, body)
                incoming = Incoming(
                    message=message,
                    message_id=id,
                    site=site,
                    issuer=sender.issuer or site,
                    actor=f"hl7:{facility[:32]}@{peer.address}",
                    key=message_key(id),
                )
                if await self._answered.has(id):
                    return Told()
                await self._do(incoming, data, take)
                return Told()
            except Transient:
                if clock.monotonic() + PAUSE_S > until:
                    raise
            await asyncio.sleep(PAUSE_S)

    async def _do(self, incoming: Incoming, data: bytes, take: Take) -> None:
        # Step 2
        await asyncio.to_thread(self._keep, incoming.key, data)
        faults.point("hl7.after-message")
        await take(incoming)  # Step 3
        faults.point("hl7.after-take")
        await self._answered.add(incoming.message_id, kind=self._kind(incoming.message), site=incoming.site)  # Step 4
        faults.point("hl7.before-answer")

    def _keep(self, key: str, data: bytes) -> None:
        try:
            self._objects.put(self._bucket, key, data, sha256=hashlib.sha256(data).hexdigest())
        except Defect:
            # The same message is there with another MSH-7: sent again, its sender's clock had gone on.
            log.info("hl7 message is there already", key=key)

    def _kind(self, message: Message) -> str:
        kind = f"{message.header.text(9)}^{message.header.text(9, 2)}"
        return kind if kind in self._takes else "other"

    async def _table(self) -> Sequence[Sender]:
        read, known = self._known
        if clock.monotonic() - read > SENDERS_S:
            known = await self._senders()
            self._known = (clock.monotonic(), known)
        return known
