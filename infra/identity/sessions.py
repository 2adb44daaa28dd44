"""Sessions of browsers: a cookie that names tokens which stay here.

The cookie is 256 random bits; `sijil_state.sessions` has its SHA-256 and the tokens, sealed (Fernet: AES-128-CBC and
HMAC-SHA256), so that neither the table nor a backup of it lets anybody in. A cookie is for a host, whatever the port:
the viewer's port shares it. Access tokens are renewed shortly before they expire.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http.cookies import CookieError, SimpleCookie
from weakref import WeakValueDictionary

import msgspec
from cryptography.fernet import Fernet, InvalidToken
from starlette.types import Scope

from infra import clock
from infra.http_caller import header
from infra.identity.issuer import OAuthError
from infra.identity.provider import Provider, Tokens
from infra.identity.tokens import Verifier
from infra.ports import Select, Tables
from infra.settings import Settings
from schemas.caller import Caller
from schemas.errors import Transient, Unauthenticated
from schemas.tables import STATE_KEYSPACE, Delete, Upsert

TABLE = "sessions"
KNOWN_S = 5.0
"""A session is believed so long without a look at the table: another process's log-out is heard of within it."""
KNOWN_MAX = 10_000
EARLY_S = 30.0
"""An access token is renewed so long before it expires."""
COOKIE_MAX = 64


@dataclass(frozen=True)
class Session:
    """A log-in of a browser. Times in seconds since the epoch."""

    tokens: Tokens
    expires: float
    """Of the access token."""
    ends: float
    """Of the session, renewed or not."""


class _Lock(asyncio.Lock):
    """One that can be referred to weakly."""


class Sessions:
    """The sessions of one process; the table is shared."""

    def __init__(
        self, settings: Settings, provider: Provider, verifier: Verifier, tables: Callable[[], Tables]
    ) -> None:
        key = bytes.fromhex(settings.session_secret) if settings.session_secret else secrets.token_bytes(32)
        self.secret = hashlib.sha256(b"sijil session" + key).digest()
        self._seal = Fernet(base64.urlsafe_b64encode(self.secret))
        self._provider, self._verifier, self._tables = provider, verifier, tables
        self._hours = settings.session_hours
        self._known: OrderedDict[str, tuple[float, Session]] = OrderedDict()
        self._renewing: WeakValueDictionary[str, _Lock] = WeakValueDictionary()

    # -------------------------------------------------------------------------------------------- requests

    async def caller(self, scope: Scope) -> Caller | None:
        """See `infra.http_caller.Authenticator`: a cookie that names no session is as none."""
        cookie = cookie_of(scope)
        if not cookie:
            return None
        session_id = _id(cookie)
        session = await self._current(session_id)
        if session is None:
            return None
        try:
            found = await self._verifier.verify(session.tokens.access)
        except Unauthenticated:
            await self._forget(session_id)
            return None
        scope["state"]["session"] = session_id
        scope["state"]["name"] = found.name
        return found.caller(scope)

    async def begin(self, tokens: Tokens) -> str:
        """A new session; its cookie. Raises Transient."""
        cookie = secrets.token_urlsafe(32)
        now = clock.now().timestamp()
        session = Session(tokens, now + tokens.expires_in_s, now + self._hours * 3600)
        await self._store(_id(cookie), session)
        return cookie

    async def end(self, session_id: str) -> Tokens | None:
        """The session is over; its tokens. Raises Transient."""
        session = await self._read(session_id)
        await self._forget(session_id)
        return session.tokens if session else None

    # -------------------------------------------------------------------------------------------- state

    async def _current(self, session_id: str) -> Session | None:
        session = await self._read(session_id)
        if session is None:
            return None
        now = clock.now().timestamp()
        if session.ends <= now:
            await self._forget(session_id)
            return None
        if session.expires - EARLY_S > now:
            return session
        return await self._renewed(session_id)

    async def _renewed(self, session_id: str) -> Session | None:
        lock = self._renewing.setdefault(session_id, _Lock())
        async with lock:
            self._known.pop(session_id, None)
            session = await self._read(session_id)  # another request, or another process, may have renewed it
            now = clock.now().timestamp()
            if session is None or session.expires - EARLY_S > now:
                return session
            try:
                tokens = await self._provider.refreshed(session.tokens.refresh)
            except (Unauthenticated, OAuthError):
                await self._forget(session_id)
                return None
            except Transient:
                if session.expires > now:
                    return session
                raise
            session = Session(tokens, now + tokens.expires_in_s, session.ends)
            await self._store(session_id, session)
            return session

    async def _read(self, session_id: str) -> Session | None:
        known = self._known.get(session_id)
        if known is not None and known[0] > clock.monotonic():
            return known[1]
        rows = await self._state().select(Select(TABLE, {"session_id": session_id}, ("sealed",)))
        if not rows or not rows[0]["sealed"]:
            self._known.pop(session_id, None)
            return None
        try:
            session = msgspec.json.decode(self._seal.decrypt(rows[0]["sealed"].encode()), type=Session)
        except (InvalidToken, msgspec.MsgspecError):
            return None  # sealed with a secret that is no longer ours
        self._remember(session_id, session)
        return session

    async def _store(self, session_id: str, session: Session) -> None:
        sealed = self._seal.encrypt(msgspec.json.encode(asdict(session))).decode()
        ends = datetime.fromtimestamp(session.ends, UTC)
        columns = {"sealed": sealed, "ends": ends}
        await self._state().apply([Upsert(TABLE, {"session_id": session_id}, columns, _timestamp())])
        self._remember(session_id, session)

    async def _forget(self, session_id: str) -> None:
        self._known.pop(session_id, None)
        await self._state().apply([Delete(TABLE, {"session_id": session_id}, _timestamp())])

    def _remember(self, session_id: str, session: Session) -> None:
        self._known[session_id] = clock.monotonic() + KNOWN_S, session
        self._known.move_to_end(session_id)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    def _state(self) -> Tables:
        return self._tables().with_keyspace(STATE_KEYSPACE)

    # -------------------------------------------------------------------------------------------- sealing

    def sealed(self, value: dict[str, str]) -> str:
        """For a cookie of a few minutes."""
        return self._seal.encrypt(msgspec.json.encode(value)).decode()

    def opened(self, text: str, seconds: int) -> dict[str, str]:
        """What `sealed` made not longer ago. Raises Unauthenticated(`login-expired`)."""
        try:
            return msgspec.json.decode(self._seal.decrypt(text.encode(), ttl=seconds), type=dict[str, str])
        except (InvalidToken, msgspec.MsgspecError) as e:
            raise Unauthenticated("login-expired", "this log-in was begun too long ago, or elsewhere: /login") from e


def cookie_name(scope: Scope) -> str:
    """`__Host-` binds a cookie to this host and to TLS (RFC 6265bis §4.1.3.2)."""
    return "__Host-sijil" if scope["scheme"] == "https" else "sijil"


def cookie_of(scope: Scope, name: str = "") -> str:
    """The value of a cookie, by default the session's; empty if it is not there or too long to be one of ours."""
    found = cookie_value(header(scope, "cookie"), name or cookie_name(scope))
    return found if name or len(found) <= COOKIE_MAX else ""


def cookie_value(text: str, name: str) -> str:
    """A cookie of a header."""
    try:
        found = SimpleCookie(text).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def set_cookie(scope: Scope, value: str, *, name: str = "", path: str = "/", seconds: int | None = None) -> str:
    """A Set-Cookie header: for scripts unseen, not sent along from other sites; `seconds` 0 deletes it."""
    secure = "; Secure" if scope["scheme"] == "https" else ""
    age = "" if seconds is None else f"; Max-Age={seconds}"
    return f"{name or cookie_name(scope)}={value}; Path={path}; HttpOnly; SameSite=Lax{secure}{age}"


def _id(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "replace")).hexdigest()


def _timestamp() -> int:
    return int(clock.now().timestamp() * 1_000_000)
