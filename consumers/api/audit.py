"""The access trail: no patient data leaves without a durable access event (design, rule 7).

A read of a study opens a window for who asks, from where, what for and what it does with the study; further reads
within it are counted, not said again. The steps of an answer:
1. access.granted is in the fsynced journal of this process's chain, and Kafka has acknowledged it or is away;
2. the use is counted, also on disk (`consumers.api.window_counts`);
3. the first byte of the answer leaves;
4. when the window closes, access.used says how often it was used and how many bytes left.
A crash between 2 and 4 loses neither the grant nor the count: the next process closes the window. A search is one event
of its own, with the studies it showed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import msgspec
from prometheus_client import Counter, Gauge, Histogram

from consumers.api.window_counts import WindowCounts
from infra import clock, telemetry
from infra.ports import Objects
from schemas.caller import Caller
from schemas.errors import Defect, Invalid, Overloaded, SijilError, Transient
from schemas.events import (
    AccessDenied,
    AccessEmergency,
    AccessGranted,
    AccessInvited,
    AccessUninvited,
    AccessUsed,
    Event,
    Shown,
)
from schemas.identity import check_uid, derived_id, is_patient_key

log = telemetry.logger(__name__)

ACKNOWLEDGE_WAIT_S = 0.25
"""Longest wait for Kafka before the journal alone is the promise."""
AWAY_S = 5.0
"""How long Kafka is not waited for after it missed that."""
WINDOWS_MAX = 20_000
"""Open windows; above, the oldest is closed early."""
UNSENT_MAX = 20_000
SHOWN_INLINE_MAX = 128
"""Studies that an event names itself: a page of a viewer has 101."""
SWEEP_S = 1.0

EVENTS = Counter("sijil_access_events", "Access events by type", ["type"])
SECONDS = Histogram(
    "sijil_access_event_seconds",
    "From asking for a durable access event until having it",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
WINDOWS = Gauge("sijil_access_windows", "Open access windows")
LOST = Counter("sijil_access_used_lost", "access.used that found no room in a full chain")

Pair = tuple[str, str]
"""(study_uid, patient_key)."""
Whose = Callable[[Sequence[str]], Awaitable[list[Pair]]]
"""Study UIDs → whose each is; an empty key for one that is not known. Raises Transient."""
_Key = tuple[str, ...]


async def _nobody_s(study_uids: Sequence[str]) -> list[Pair]:
    return [(uid, "") for uid in study_uids]


class Publication(Protocol):
    """What the chain promises of an event, as futures of other threads."""

    @property
    def kept(self) -> Future[None]:
        """It is in the fsynced journal."""

    @property
    def acknowledged(self) -> Future[Any]:
        """Kafka has it."""


class Chain(Protocol):
    """The chain of this process (`infra.chain.ChainedLog`)."""

    def publish(self, event: Event, *, id: str = "") -> Publication:
        """Raises Overloaded."""


@dataclass
class Window:
    """An open grant."""

    access_id: str
    who: Caller
    action: str
    study_uid: str
    patient_key: str
    closes: float
    """On the monotonic clock."""
    granted: asyncio.Future[None]
    destination: str = ""
    counts: WindowCounts | None = None
    """Where the counts outlive this process."""
    uses: int = 0
    bytes: int = 0
    cut_short: int = 0
    streams: int = 0
    """Answers under way: the window is not closed before they end."""
    last_used: datetime = field(default_factory=clock.now)
    slot: int | None = None

    def use(self) -> None:
        """Step 2: one more answer."""
        self.uses += 1
        self.last_used = clock.now()
        if self.counts is not None and self.uses == 1:
            self.slot = self.counts.begin(self.used())
        else:
            self._note()

    def count(self, size: int) -> None:
        """So many bytes of an answer that leaves in one piece."""
        self.bytes += size
        self._note()

    def began(self) -> None:
        """An answer is under way."""
        self.streams += 1

    def ended(self, whole: bool) -> None:
        """It is no longer; `whole`: it was not cut short."""
        self.streams -= 1
        self.cut_short += not whole
        self._note()

    def _note(self) -> None:
        if self.counts is not None and self.slot is not None:
            self.counts.note(self.slot, self.uses, self.bytes, self.cut_short, clock.rfc3339(self.last_used))

    def used(self) -> AccessUsed:
        """What is to be said of it when it closes."""
        return AccessUsed(
            access_id=self.access_id,
            **_who(self.who, self.action, self.destination),
            study_uid=self.study_uid,
            patient_key=self.patient_key,
            uses=self.uses,
            bytes=self.bytes,
            cut_short=self.cut_short,
            last_used=clock.rfc3339(self.last_used),
        )


class Audit:
    """The trail of one process. Everything runs on one event loop."""

    def __init__(
        self,
        chain: Chain,
        objects: Objects,
        *,
        bucket: str,
        search_secret: bytes,
        window_s: float,
        counts: WindowCounts | None = None,
    ) -> None:
        """`counts`: where those of open windows outlive the process; what the last one left is said at once."""
        if len(search_secret) < 16:
            raise Invalid("search-secret-missing", "the api needs SIJIL_SEARCH_SECRET, at least 16 bytes in hex")
        self._chain, self._objects, self._bucket = chain, objects, bucket
        self._secret, self._window_s = search_secret, window_s
        self.whose: Whose = _nobody_s
        """Looked up for a refusal that names a study alone: the room that reads studies sets it."""
        self._windows: OrderedDict[_Key, Window] = OrderedDict()
        self._closing: list[Window] = []
        self._counts = counts
        left = counts.left if counts is not None else ()
        self._unsent: deque[tuple[int | None, AccessUsed]] = deque(left, maxlen=UNSENT_MAX)
        self._away_until = 0.0
        self._sweeper: asyncio.Task[None] | None = None

    # -------------------------------------------------------------------------------------------- studies

    async def grant(
        self, who: Caller, study_uid: str, patient_key: str, action: str, *, destination: str = ""
    ) -> Window:
        """The window that an answer about a study may use. Durable on return; raises Transient, and nothing may leave.

        The caller counts each answer with `use()`, its bytes in `bytes`, and one that takes its time from `began()` to
        `ended()`.
        """
        key = (who.actor, who.role, who.purpose, who.via, who.address, study_uid, action, destination)
        window = self._windows.get(key)
        if window is None or window.closes <= clock.monotonic():
            window = await self._open(key, who, study_uid, patient_key, action, destination)
        elif not window.granted.done():
            await asyncio.shield(window.granted)
        elif error := window.granted.exception():
            raise error
        return window

    async def _open(
        self, key: _Key, who: Caller, study_uid: str, patient_key: str, action: str, destination: str
    ) -> Window:
        self._retire(key)
        if len(self._windows) >= WINDOWS_MAX:
            self._retire(next(iter(self._windows)))
        access_id = str(clock.uuid7())
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        closes = clock.monotonic() + self._window_s
        window = Window(access_id, who, action, study_uid, patient_key, closes, granted, destination, self._counts)
        self._windows[key] = window
        event = AccessGranted(
            access_id=access_id,
            **_who(who, action, destination),
            study_uid=study_uid,
            shown=[Shown(study_uid=study_uid, patient_key=patient_key)],
            shown_count=1,
            window_s=round(self._window_s),
        )
        try:
            await self._durable(event, access_id)
        except BaseException as error:
            # Whoever waits for the same window gets no data either.
            self._windows.pop(key, None)
            granted.set_exception(error if isinstance(error, SijilError) else Transient("access event was cancelled"))
            granted.exception()  # retrieved here: there may be nobody else
            raise
        granted.set_result(None)
        WINDOWS.set(len(self._windows))
        return window

    # -------------------------------------------------------------------------------------------- searches

    async def search(
        self,
        who: Caller,
        action: str,
        criteria: Mapping[str, Sequence[str]],
        shown: Sequence[Pair],
        patient_key: str = "",
    ) -> str:
        """One event for a search and what it showed; its id. `criteria` are attribute names with what was asked for,
        which leaves as HMACs only; `patient_key` is whose file it was, if of one. Durable on return; raises Transient,
        and nothing may leave.
        """
        access_id = str(clock.uuid7())
        pairs = [Shown(study_uid=s, patient_key=p) for s, p in dict.fromkeys(shown)]
        listed = digest = ""
        if len(pairs) > SHOWN_INLINE_MAX:
            listed = f"accesses/{access_id}.json"
            body = msgspec.json.encode(pairs)
            digest = hashlib.sha256(body).hexdigest()
            await asyncio.to_thread(
                self._objects.put, self._bucket, listed, body, sha256=digest, content_type="application/json"
            )
        event = AccessGranted(
            access_id=access_id,
            **_who(who, action),
            search={name: [self._hmac(name, v) for v in values] for name, values in criteria.items()},
            shown=[] if listed else pairs,
            shown_count=len(pairs),
            shown_list=listed,
            shown_list_sha256=digest,
            patient_key=patient_key,
        )
        await self._durable(event, access_id)
        return access_id

    def _hmac(self, name: str, value: str) -> str:
        digest = hmac.new(self._secret, f"{name}\x1f{value}".encode(), hashlib.sha256).digest()
        return urlsafe_b64encode(digest).rstrip(b"=").decode()

    # -------------------------------------------------------------------------------------------- refusals

    async def denied(self, who: Caller, action: str, reason: str, study_uid: str = "", patient_key: str = "") -> str:
        """Somebody was refused; the event's id. `study_uid` and `patient_key` are what was asked about, where that is
        known: it is told in that patient's trail. Durable on return; raises Transient.
        """
        access_id = str(clock.uuid7())
        study_uid, patient_key = await self._about(study_uid, patient_key)
        event = AccessDenied(
            access_id=access_id,
            **_who(who, action),
            reason=reason,
            study_uid=study_uid or None,
            patient_key=patient_key,
        )
        await self._durable(event, access_id)
        return access_id

    async def _about(self, study_uid: str, patient_key: str) -> Pair:
        """What a refused request named, if it is one, and whose it is as the read models say."""
        try:
            check_uid(study_uid)
        except Invalid:
            study_uid = ""  # anything may stand in an address, a name too
        if study_uid and not patient_key:
            with suppress(Transient):  # a refusal is told also while the read models are away
                ((_, patient_key),) = await self.whose((study_uid,))
        return study_uid, patient_key if is_patient_key(patient_key) else ""

    # -------------------------------------------------------------------------------------------- emergencies

    async def emergency(
        self, who: Caller, study_uid: str, patient_key: str, reason: str, words: str, *, until: datetime
    ) -> str:
        """Somebody without a relation is let in until then (break-glass); the event's id. `reason` is a code, `words`
        what they wrote: that goes to S3 first. Durable on return; raises Transient, and nobody is let in.
        """
        access_id = str(clock.uuid7())
        body = msgspec.json.encode({"access_id": access_id, "words": words})
        key, digest = f"emergencies/{access_id}.json", hashlib.sha256(body).hexdigest()
        await asyncio.to_thread(
            self._objects.put, self._bucket, key, body, sha256=digest, content_type="application/json"
        )
        event = AccessEmergency(
            access_id=access_id,
            **_who(who, "break-glass"),
            reason=reason,
            study_uid=study_uid or None,
            patient_key=patient_key,
            until=clock.rfc3339(until),
            bucket=self._bucket,
            document_key=key,
            document_size=len(body),
            document_sha256=digest,
        )
        await self._durable(event, access_id)
        return access_id

    # -------------------------------------------------------------------------------------------- patients' links

    async def invited(
        self, who: Caller, id: str, patient_key: str, order_id: str, factor: str, *, once: bool, until: datetime
    ) -> None:
        """A patient is given a link until then; `id` is the link's. Durable on return; raises Transient."""
        event = AccessInvited(
            access_id=id,
            **_who(who, "invite-patient"),
            patient_key=patient_key,
            order_id=order_id or None,
            factor=factor,
            once=once,
            until=clock.rfc3339(until),
        )
        await self._durable(event, id)

    async def uninvited(self, who: Caller, invitation_id: str, patient_key: str) -> None:
        """A link is taken back. Durable on return; raises Transient."""
        id = str(clock.uuid7())
        event = AccessUninvited(
            access_id=id, **_who(who, "uninvite-patient"), invitation_id=invitation_id, patient_key=patient_key
        )
        await self._durable(event, id)

    # -------------------------------------------------------------------------------------------- durable

    async def _durable(self, event: Event, id: str) -> None:
        """Step 1. Kafka's acknowledgement implies the journal's."""
        started = clock.monotonic()
        try:
            publication = self._chain.publish(event, id=id)
        except Defect as e:
            raise Transient("the access event could not be kept") from e  # the disk is gone, and this process ends
        EVENTS.labels(event.TYPE).inc()
        if started < self._away_until or not await _done(publication.acknowledged, ACKNOWLEDGE_WAIT_S):
            if started >= self._away_until:
                self._away_until = clock.monotonic() + AWAY_S
            await _done(publication.kept, None)
            try:
                publication.kept.result(0)
            except Exception as e:
                raise Transient("the access event could not be kept") from e
        SECONDS.observe(clock.monotonic() - started)

    # -------------------------------------------------------------------------------------------- windows close

    async def start(self) -> None:
        """Close windows from now on as they pass."""
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Close all windows."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for key in list(self._windows):
            self._retire(key)
        for window in self._closing:
            self._used(window)
        self._closing.clear()
        self._send()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep()

    def sweep(self) -> None:
        """Close what has passed. The oldest window stands first, and all are equally long."""
        now = clock.monotonic()
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if window.closes > now:
                break
            self._retire(key)
        ended = [w for w in self._closing if not w.streams]
        self._closing = [w for w in self._closing if w.streams]
        for window in ended:
            self._used(window)
        self._send()
        WINDOWS.set(len(self._windows))

    def _retire(self, key: _Key) -> None:
        window = self._windows.pop(key, None)
        if window is None:
            return
        if window.streams or not window.granted.done():
            self._closing.append(window)
        else:
            self._used(window)

    def _used(self, window: Window) -> None:
        if not window.uses or not window.granted.done() or window.granted.exception():
            return
        if len(self._unsent) == UNSENT_MAX:
            LOST.inc()
        self._unsent.append((window.slot, window.used()))

    def _send(self) -> None:
        """Hand the counts to the chain; what it has no room for waits for the next time."""
        while self._unsent:
            slot, event = self._unsent[0]
            try:
                publication = self._chain.publish(event, id=derived_id("access.used", event.access_id))
            except Overloaded:
                log.warning("access counts wait", count=len(self._unsent))
                return
            self._unsent.popleft()
            if self._counts is not None and slot is not None:
                publication.kept.add_done_callback(partial(_let_go, self._counts, slot))
            EVENTS.labels(event.TYPE).inc()


def _let_go(counts: WindowCounts, slot: int, kept: Future[None]) -> None:
    """What is not kept is found again by the next process."""
    if not kept.cancelled() and kept.exception() is None:
        counts.free(slot)


def _who(who: Caller, action: str, destination: str = "") -> dict[str, Any]:
    return {
        "actor": who.actor,
        "role": str(who.role),
        "purpose": who.purpose,
        "action": action,
        "occurred": clock.rfc3339(clock.now()),
        "via": who.via,
        "address": who.address,
        "destination": destination,
    }


async def _done(future: Future[Any], timeout_s: float | None) -> bool:
    """Wait for a future of another thread, without cancelling it when we are. True if it has a result in time."""
    if not future.done():
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def wake(_: Future[Any]) -> None:
            try:
                loop.call_soon_threadsafe(arrived.set)
            except RuntimeError:
                return  # the loop was closed meanwhile: nobody waits

        future.add_done_callback(wake)
        try:
            async with asyncio.timeout(timeout_s):
                await arrived.wait()
        except TimeoutError:
            return False
    return not future.cancelled() and future.exception() is None
