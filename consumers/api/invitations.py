"""Links by which patients open their own file on a phone, and the second secret without which a link opens nothing.

A link is signed, so that what is no link costs no look at a table; it is of one patient, expires, can be taken back,
and is spent when it was opened if it is issued so. The second secret is the PIN of the order's slip, or a code that is
sent to the phone number which stands in the order or was given with the link; never the birth date, which a national
ID contains. Opening goes these steps:

1. the attempt is a row of its own, before anything is compared: however many come at once, no more than
   TRIES_MAX_HOUR an hour and TRIES_MAX in all are compared
2. the secret is compared; a wrong one is an `access.denied` in the patient's trail
3. the opening is an `access.granted` there, durable
4. the link is marked as opened, and the browser has a session of some minutes (`PatientSessions`)
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken

from consumers.api.audit import Audit
from infra import clock
from infra.messages import Message, Messenger
from infra.ports import Row, Select, Tables
from infra.settings import Settings
from schemas.caller import Caller
from schemas.errors import Invalid, Overloaded
from schemas.phone import masked
from schemas.pin import DIGITS, SALT_BYTES, hashed, matches
from schemas.roles import DEFAULT_PURPOSE, Role
from schemas.tables import STATE_KEYSPACE, Delete, Upsert

Factor = Literal["pin", "otp"]
TRIES_MAX_HOUR, TRIES_MAX = 5, 15
CODES_MAX_HOUR, CODES_MAX = 3, 12
CODE_MINUTES: Final = 10
HOURS_MAX: Final = 90 * 24
LISTED_MAX: Final = 50
_TRIED, _OPENED, _SENT = "tried", "opened", "sent"


class State(StrEnum):
    """What a link is good for now."""

    OPEN = "open"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"
    USED = "used"
    LOCKED = "locked"


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """A link, as it is kept."""

    id: str
    patient_key: str
    order_id: str
    factor: Factor
    once: bool
    expires: datetime
    phone: str
    code_hash: str
    code_expires: datetime | None
    opened: datetime | None
    revoked: datetime | None


@dataclass(frozen=True)
class Opened:
    """Whoever opened a link is let in."""

    cookie: str
    patient_key: str
    ends: datetime


class Refused(Exception):
    """A link was not opened: `why` is a state, or `secret` for one that was wrong."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


PinOf = Callable[[str], Awaitable[str]]
"""Order id → the hash of the PIN that stands on its newest slip; "" for none."""


class Invitations:
    """The links of one process; their state is shared."""

    def __init__(
        self, settings: Settings, tables: Callable[[], Tables], audit: Audit, messenger: Messenger, pin_of: PinOf
    ) -> None:
        key = bytes.fromhex(settings.session_secret) if settings.session_secret else secrets.token_bytes(32)
        self._secret = hashlib.sha256(b"sijil invitation" + key).digest()
        self._seal = Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"sijil invitation seal" + key).digest()))
        self._connected, self._audit, self._messenger, self._pin_of = tables, audit, messenger, pin_of
        self.sessions = PatientSessions(self._state, self.of, timedelta(minutes=settings.patient_session_minutes))

    # -------------------------------------------------------------------------------------------- staff

    async def issue(
        self, who: Caller, *, patient_key: str, order_id: str, phone: str, factor: Factor, once: bool, hours: float
    ) -> tuple[str, str, datetime]:
        """(id, the link's token, until when it holds). Raises Invalid, Transient; then there is no link."""
        if not 0 < hours <= HOURS_MAX:
            raise Invalid("invitation-hours", f"a link holds at most {HOURS_MAX} hours")
        if factor == "otp" and not phone:
            raise Invalid("invitation-phone", "a code needs a telephone number: `phone`, or one in the order")
        if factor == "pin" and not order_id:
            raise Invalid("invitation-order", "a PIN is that of an order's slip: `order_id` is needed, or factor otp")
        id, now = str(clock.uuid7()), clock.now()
        expires = (now + timedelta(hours=hours)).replace(microsecond=0)
        columns = {
            "patient_key": patient_key,
            "order_id": order_id,
            "factor": factor,
            "once": once,
            "expires": expires,
            "sealed": self._seal.encrypt(phone.encode()).decode() if phone else "",
        }
        # The event first: a link that opens something is one that the trail knows
        await self._audit.invited(who, id, patient_key, order_id, factor, once=once, until=expires)
        await self._state().apply(
            [
                Upsert("invitations", {"invitation_id": id}, columns, _timestamp()),
                Upsert("invitations_by_patient", {"patient_key": patient_key, "invitation_id": id}, {}, _timestamp()),
            ]
        )
        return id, self._token(id, expires), expires

    async def revoke(self, who: Caller, invitation: Invitation) -> None:
        """It opens nothing any more; who opened it is let in for some seconds at most. Twice changes nothing."""
        if invitation.revoked is None:
            await self._set(invitation.id, revoked=clock.now())
            await self._audit.uninvited(who, invitation.id, invitation.patient_key)
        self.sessions.forget()

    async def of(self, id: str) -> Invitation | None:
        """By its id."""
        rows = await self._state().select(Select("invitations", {"invitation_id": id}))
        return self._read(rows[0]) if rows and rows[0]["expires"] else None

    async def of_patient(self, patient_key: str) -> list[Invitation]:
        """The newest ones of a patient."""
        listed = await self._state().select(
            Select("invitations_by_patient", {"patient_key": patient_key}, limit=LISTED_MAX)
        )
        selects = [Select("invitations", {"invitation_id": r["invitation_id"]}) for r in listed]
        return [self._read(rows[0]) for rows in await self._state().select_many(selects) if rows and rows[0]["expires"]]

    async def state_of(self, invitation: Invitation) -> State:
        """What it is good for."""
        if invitation.revoked is not None:
            return State.REVOKED
        if invitation.expires <= clock.now():
            return State.EXPIRED
        if invitation.once and invitation.opened is not None:
            return State.USED
        attempts = await self._attempts(invitation.id)
        return State.LOCKED if _too_many(attempts, _TRIED, TRIES_MAX_HOUR, TRIES_MAX) else State.OPEN

    # -------------------------------------------------------------------------------------------- the patient

    async def look(self, token: str) -> tuple[State, Invitation | None]:
        """What a link is good for, before anybody has proved anything."""
        id = self._id(token)
        invitation = await self.of(id) if id else None
        return (State.UNKNOWN, None) if invitation is None else (await self.state_of(invitation), invitation)

    async def send_code(self, token: str, text: Callable[[str], str]) -> str:
        """A new code is on its way to the phone; its last digits. Raises Refused, Overloaded, Transient."""
        state, invitation = await self.look(token)
        if invitation is None or state is not State.OPEN or invitation.factor != "otp":
            raise Refused(state)
        attempts = await self._attempt(invitation.id, str(clock.uuid7()), _SENT)
        if _too_many(attempts, _SENT, CODES_MAX_HOUR + 1, CODES_MAX + 1):
            raise Overloaded("enough codes have been sent for this link: wait an hour", 3600.0)
        code = f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"
        kept = await asyncio.to_thread(hashed, code, secrets.token_bytes(SALT_BYTES))
        await self._set(invitation.id, code_hash=kept, code_expires=clock.now() + timedelta(minutes=CODE_MINUTES))
        key = f"{invitation.id}-{sum(kind == _SENT for _, kind, _ in attempts)}"
        await self._messenger.send(Message(channel="sms", to=invitation.phone, text=text(code), key=key))
        return masked(invitation.phone)

    async def open(self, token: str, typed: str, address: str) -> Opened:
        """Let in whoever has both. Raises Refused (recorded), Transient."""
        state, invitation = await self.look(token)
        if invitation is None:
            raise Refused(State.UNKNOWN)
        who = patient(invitation.patient_key, address)
        # Step 1: the attempt counts before it is judged
        attempt = str(clock.uuid7())
        if state is State.OPEN:
            attempts = await self._attempt(invitation.id, attempt, _TRIED)
            if _too_many(attempts, _TRIED, TRIES_MAX_HOUR + 1, TRIES_MAX + 1):
                state = State.LOCKED
        # Step 2: compare
        why = state.value if state is not State.OPEN else "" if await self._proved(invitation, typed) else "secret"
        if why:
            await self._audit.denied(who, "open-link", f"link-{why}", patient_key=invitation.patient_key)
            raise Refused(why)
        # Step 3: the trail
        await self._audit.search(who, "open-link", {}, (), invitation.patient_key)
        # Step 4: let in
        now = clock.now()
        await self._mark(invitation.id, attempt, _OPENED, now)
        await self._set(invitation.id, opened=invitation.opened or now, code_hash="")
        return await self.sessions.begin(invitation)

    async def _proved(self, invitation: Invitation, typed: str) -> bool:
        if invitation.factor == "pin":
            kept = await self._pin_of(invitation.order_id)
        else:
            live = invitation.code_expires is not None and invitation.code_expires > clock.now()
            kept = invitation.code_hash if live else ""
        return bool(kept) and await asyncio.to_thread(matches, typed, kept)

    # -------------------------------------------------------------------------------------------- state

    async def _attempts(self, id: str) -> list[tuple[str, str, datetime]]:
        rows = await self._state().select(Select("invitation_attempts", {"invitation_id": id}))
        return [(r["attempt_id"], r["kind"], r["at"]) for r in rows if r["at"]]

    async def _attempt(self, id: str, attempt_id: str, kind: str) -> list[tuple[str, str, datetime]]:
        """One more; all with it."""
        await self._mark(id, attempt_id, kind, clock.now())
        return await self._attempts(id)

    async def _mark(self, id: str, attempt_id: str, kind: str, at: datetime) -> None:
        key = {"invitation_id": id, "attempt_id": attempt_id}
        await self._state().apply([Upsert("invitation_attempts", key, {"kind": kind, "at": at}, _timestamp())])

    async def _set(self, id: str, **columns: object) -> None:
        await self._state().apply([Upsert("invitations", {"invitation_id": id}, columns, _timestamp())])

    def _read(self, row: Row) -> Invitation:
        try:
            phone = self._seal.decrypt((row["sealed"] or "").encode()).decode() if row["sealed"] else ""
        except InvalidToken:
            phone = ""  # sealed with a secret that is no longer ours
        return Invitation(
            id=row["invitation_id"],
            patient_key=row["patient_key"],
            order_id=row["order_id"] or "",
            factor=row["factor"],
            once=bool(row["once"]),
            expires=row["expires"],
            phone=phone,
            code_hash=row["code_hash"] or "",
            code_expires=row["code_expires"],
            opened=row["opened"],
            revoked=row["revoked"],
        )

    def _state(self) -> Tables:
        return self._connected().with_keyspace(STATE_KEYSPACE)

    # -------------------------------------------------------------------------------------------- tokens

    def _token(self, id: str, expires: datetime) -> str:
        said = UUID(id).bytes + int(expires.timestamp()).to_bytes(5, "big")
        return base64.urlsafe_b64encode(said + self._mac(said)).rstrip(b"=").decode()

    def _id(self, token: str) -> str:
        """The id of a link that is ours; "" of what is none."""
        try:
            data = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        except ValueError:
            return ""
        said, mac = data[:21], data[21:]
        return str(UUID(bytes=said[:16])) if len(said) == 21 and hmac.compare_digest(mac, self._mac(said)) else ""

    def _mac(self, said: bytes) -> bytes:
        return hmac.new(self._secret, said, hashlib.sha256).digest()[:15]


class PatientSessions:
    """Authenticates the browsers of patients who opened a link."""

    COOKIE: Final = "sijil-patient"
    KNOWN_S: Final = 5.0
    """A session is believed so long without a look at its link: one that is taken back ends it within that."""

    def __init__(
        self,
        state: Callable[[], Tables],
        invitation_of: Callable[[str], Awaitable[Invitation | None]],
        lasts: timedelta,
    ) -> None:
        self._state, self._invitation_of, self._lasts = state, invitation_of, lasts
        self._known: dict[str, tuple[float, str, datetime]] = {}

    async def begin(self, invitation: Invitation) -> Opened:
        """A new one. Raises Transient."""
        cookie, ends = secrets.token_urlsafe(32), clock.now() + self._lasts
        columns = {"patient_key": invitation.patient_key, "invitation_id": invitation.id, "ends": ends}
        key = {"session_id": session_id(cookie)}
        await self._state().apply([Upsert("patient_sessions", key, columns, _timestamp())])
        return Opened(cookie, invitation.patient_key, ends)

    async def patient_of(self, cookie: str) -> str:
        """The patient key of a session that holds; "" of none. Raises Transient."""
        id = session_id(cookie)
        known = self._known.get(id)
        if known is None or known[0] <= clock.monotonic():
            known = await self._look(id)
            self._known = {i: k for i, k in self._known.items() if k[0] > clock.monotonic()} | {id: known}
        return known[1] if known[2] > clock.now() else ""

    async def _look(self, id: str) -> tuple[float, str, datetime]:
        until = clock.monotonic() + self.KNOWN_S
        nothing = until, "", clock.now()
        rows = await self._state().select(Select("patient_sessions", {"session_id": id}))
        if not rows or not rows[0]["ends"]:
            return nothing
        invitation = await self._invitation_of(rows[0]["invitation_id"])
        if invitation is None or invitation.revoked is not None:
            return nothing
        return until, rows[0]["patient_key"], rows[0]["ends"]

    async def end(self, id: str) -> None:
        """A session is over, by its `session_id`."""
        self._known.pop(id, None)
        await self._state().apply([Delete("patient_sessions", {"session_id": id}, _timestamp())])

    def forget(self) -> None:
        """Nothing is believed without a look."""
        self._known.clear()


def session_id(cookie: str) -> str:
    """What a session is kept under."""
    return hashlib.sha256(cookie.encode("utf-8", "replace")).hexdigest()


def patient(patient_key: str, address: str) -> Caller:
    """Whoever opened, or tries to open, the link of a patient."""
    return Caller(
        f"patient:{patient_key}",
        Role.PATIENT,
        DEFAULT_PURPOSE[Role.PATIENT],
        patient_key=patient_key,
        via="page",
        address=address,
    )


def _too_many(attempts: Sequence[tuple[str, str, datetime]], kind: str, hour_max: int, all_max: int) -> bool:
    """Whether so many of a kind were made in the last hour, or in all."""
    recent = clock.now() - timedelta(hours=1)
    of_kind = [at for _, k, at in attempts if k == kind]
    return len(of_kind) >= all_max or sum(at > recent for at in of_kind) >= hour_max


def _timestamp() -> int:
    return int(clock.now().timestamp() * 1_000_000)
