"""The embedded OpenID issuer of one machine: what it grants. Its doors are `infra.identity.issuer_routes`.

Authorization codes are for one use within a minute, bound to client, redirect URI and PKCE challenge (RFC 7636, S256
alone). Refresh tokens rotate: each is for one use. A code or a refresh token that comes a second time ends everything
that came of it (RFC 9700 §4.14). What was granted is kept (`infra.identity.grants`).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from infra import clock
from infra.http_caller import is_loopback
from infra.identity.grants import Grant, Grants, keep
from infra.identity.keys import IssuerKeys
from infra.identity.provider import Tokens
from infra.identity.users import User, Users
from schemas.errors import Overloaded, Permanent

CODE_S = 60.0
ACCESS_S = 600
REFRESH_S = 12 * 3600.0
TRIES, TRIES_S = 5, 30.0
"""Wrong passwords for a name, and how long it then waits."""
CALLBACK = "/login/callback"


class OAuthError(Permanent):
    """RFC 6749 §5.2. `code` is the error's."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


@dataclass(frozen=True)
class Asked:
    """A valid authorization request (RFC 6749 §4.1.1, OpenID Connect Core §3.1.2.1)."""

    client_id: str
    redirect_uri: str
    state: str
    nonce: str
    challenge: str


@dataclass(frozen=True)
class _Code:
    asked: Asked
    user: User
    until: float


class Issuer:
    """What the issuer knows. One process, one event loop."""

    def __init__(
        self,
        keys: IssuerKeys,
        users: Users,
        *,
        url: str,
        audience: str,
        client_id: str,
        grants: Grants | None = None,
    ) -> None:
        self._keys, self._users, self._grants = keys, users, grants or Grants()
        self.url, self._audience, self._client_id = url, audience, client_id
        self._codes: OrderedDict[str, _Code] = OrderedDict()
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    # -------------------------------------------------------------------------------------------- logging in

    def asked(self, given: Mapping[str, str]) -> Asked:
        """An authorization request. Raises OAuthError; nobody is sent anywhere by a wrong one."""
        redirect = urlsplit(given.get("redirect_uri", ""))
        if given.get("client_id") != self._client_id:
            raise OAuthError("unauthorized_client", "there is no such client")
        if redirect.scheme not in ("http", "https") or redirect.path != CALLBACK or redirect.query or redirect.fragment:
            raise OAuthError("invalid_request", f"redirect_uri is {CALLBACK} of this archive")
        if not is_loopback(redirect.hostname or ""):
            raise OAuthError("invalid_request", "this issuer logs people in on this machine alone")
        if given.get("response_type") != "code":
            raise OAuthError("unsupported_response_type", "response_type is code")
        challenge = given.get("code_challenge", "")
        if given.get("code_challenge_method") != "S256" or len(challenge) != 43:
            raise OAuthError("invalid_request", "PKCE with S256 is needed (RFC 7636)")
        return Asked(self._client_id, given["redirect_uri"], given.get("state", ""), given.get("nonce", ""), challenge)

    async def proved(self, username: str, password: str) -> User | None:
        """Who this is; None if the password is wrong. Raises Overloaded after too many wrong ones."""
        tries, since = self._wrong.get(username, (0, 0.0))
        now = clock.monotonic()
        if tries >= TRIES and now < since + TRIES_S:
            raise Overloaded("too many wrong passwords for this name", since + TRIES_S - now)
        user = await asyncio.to_thread(self._users.proved, username, password)
        if user is None:
            keep(self._wrong, username, (tries + 1, now))
        else:
            self._wrong.pop(username, None)
        return user

    def code(self, asked: Asked, user: User) -> str:
        """Where a browser is sent with its authorization code (RFC 6749 §4.1.2, RFC 9207)."""
        code = secrets.token_urlsafe(32)
        keep(self._codes, _digest(code), _Code(asked, user, clock.monotonic() + CODE_S))
        query = urlencode({"code": code, "state": asked.state, "iss": self.url})
        return f"{asked.redirect_uri}?{query}"

    # -------------------------------------------------------------------------------------------- tokens

    def redeemed(self, code: str, verifier: str, redirect_uri: str, client_id: str) -> Tokens:
        """Tokens for a code. Raises OAuthError; a code that was used already ends what it gave."""
        digest = _digest(code)
        if grant_id := self._grants.used(digest):
            self.end_grant(grant_id)
            raise OAuthError("invalid_grant", "the code was used before: log in again")
        found = self._codes.pop(digest, None)
        if found is None or found.until < clock.monotonic():
            raise OAuthError("invalid_grant", "the code is unknown or too old: log in again")
        user, until = found.user, clock.now().timestamp() + REFRESH_S
        grant = Grant(str(clock.uuid7()), user.username, user.digest, client_id, found.asked.nonce, until)
        self._grants.use(digest, grant.id)
        same = (client_id, redirect_uri) == (found.asked.client_id, found.asked.redirect_uri)
        if not same or not hmac.compare_digest(_challenge(verifier), found.asked.challenge):
            raise OAuthError("invalid_grant", "the code was given to another client, address or verifier")
        return self._tokens(grant, user)

    def renewed(self, refresh: str, client_id: str) -> Tokens:
        """Tokens for a refresh token, and the next one. Raises OAuthError; a used one ends the log-in."""
        digest = _digest(refresh)
        if grant_id := self._grants.used(digest):
            self.end_grant(grant_id)
            raise OAuthError("invalid_grant", "the refresh token was used before: log in again")
        grant = self._grants.of_refresh(digest)
        if grant is None or grant.client_id != client_id:
            raise OAuthError("invalid_grant", "the refresh token is unknown or too old: log in again")
        self._grants.use(digest, grant.id)
        user = self._users.get(grant.username)
        if user is None or user.digest != grant.password:
            self.end_grant(grant.id)
            raise OAuthError("invalid_grant", "the password was changed: log in again")
        return self._tokens(grant, user)

    async def service(self, client_id: str, secret: str) -> Tokens:
        """Tokens for a service by its own credentials (RFC 6749 §4.4). Raises OAuthError, Overloaded."""
        user = await self.proved(client_id, secret)
        if user is None or not user.service:
            raise OAuthError("invalid_client", "client id or secret is not right", 401)
        return Tokens(self.access_token(user), "", "", ACCESS_S)

    def access_token(self, user: User, *, grant_id: str = "", seconds: int = ACCESS_S) -> str:
        """RFC 9068."""
        now = int(clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": self.url,
            "sub": user.username if user.service else user.person_id,
            "aud": self._audience,
            "client_id": user.username if user.service else self._client_id,
            "iat": now,
            "exp": now + seconds,
            "jti": str(clock.uuid7()),
            "sijil_role": user.role,
            "sijil_sites": user.sites,
            "name": user.username,
        }
        more = {"sijil_person": user.person_id, "sijil_patient": user.patient_key, "sid": grant_id}
        return self._keys.sign(claims | {n: v for n, v in more.items() if v}, kind="at+jwt")

    def _tokens(self, grant: Grant, user: User) -> Tokens:
        refresh = secrets.token_urlsafe(32)
        self._grants.put(msgspec.structs.replace(grant, refresh=_digest(refresh)))
        now = int(clock.now().timestamp())
        claims = {
            "iss": self.url,
            "sub": user.person_id,
            "aud": grant.client_id,
            "iat": now,
            "exp": now + ACCESS_S,
            "nonce": grant.nonce,
            "sid": grant.id,
            "name": user.username,
        }
        access = self.access_token(user, grant_id=grant.id)
        return Tokens(access, refresh, self._keys.sign(claims, kind="JWT"), ACCESS_S)

    # -------------------------------------------------------------------------------------------- ending

    def end_grant(self, grant_id: str) -> None:
        """Nothing that came of it is good any more."""
        self._grants.end(grant_id)

    def revoke(self, refresh: str) -> None:
        """RFC 7009: one that is unknown is no error."""
        if (grant := self._grants.of_refresh(_digest(refresh))) is not None:
            self.end_grant(grant.id)

    def ended(self, grant_id: str) -> bool:
        """Whether a grant was ended before its time (`infra.identity.tokens.Verifier`)."""
        return self._grants.ended(grant_id)

    # -------------------------------------------------------------------------------------------- for our own pages

    async def authorize_url(self, parameters: Mapping[str, str]) -> str:
        """See `infra.identity.provider.Provider`."""
        return f"/oidc/authorize?{urlencode(parameters)}"

    async def exchange(self, code: str, verifier: str, redirect_uri: str) -> Tokens:
        """See Provider. Raises OAuthError."""
        return self.redeemed(code, verifier, redirect_uri, self._client_id)

    async def refreshed(self, refresh: str) -> Tokens:
        """See Provider. Raises OAuthError."""
        return self.renewed(refresh, self._client_id)

    async def end(self, tokens: Tokens) -> str:
        """See Provider."""
        self.revoke(tokens.refresh)
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
