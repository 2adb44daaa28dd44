"""Bearer tokens: JWT (RFC 7519, RFC 9068) signed by keys of the issuer's JWKS (RFC 7517), and who they say one is.

RS256 and ES256 alone, and each key for its own algorithm: neither `none` nor an HMAC under a public key verifies. What
was verified is remembered by the token's SHA-256 until it expires, so that a request costs a look-up.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jwt
from starlette.types import Scope

from infra import clock
from infra.http_caller import HOW, address_of, header
from schemas.caller import Caller
from schemas.errors import Transient, Unauthenticated
from schemas.identity import derived_id
from schemas.roles import DEFAULT_PURPOSE, Role

ALGORITHMS = ("RS256", "ES256")
REQUIRED = ("exp", "iat", "iss", "aud", "sub")
LEEWAY_S = 5
TOKEN_MAX = 8192
"""Characters of a token: more is none."""
REMEMBERED_MAX = 20_000
REFETCH_S = 10.0
"""A key that is not known makes the JWKS be read again, not more often than this."""
JWKS_S = 600.0
"""A JWKS is read again after this long also when every key is known: a key that the issuer withdrew is forgotten."""

ROLE_HEADER = "Sijil-Role"
"""Of a caller with several roles: the one they act in; without it the first of the token."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_PURPOSE = re.compile(r"[A-Z]{2,16}\Z")
_PATIENT = re.compile(r"k[0-9]{1,4}:[A-Za-z0-9_-]{43}\Z")


class KeySource(Protocol):
    """Where an issuer's keys come from."""

    async def read(self) -> Mapping[str, Any]:
        """A JWK set. Raises Transient."""


@dataclass(frozen=True)
class Claims:
    """The names under which a token says what we need; an issuer of one's own may call them otherwise."""

    role: str = "sijil_role"
    sites: str = "sijil_sites"
    person: str = "sijil_person"
    patient: str = "sijil_patient"
    purpose: str = "sijil_purpose"


@dataclass(frozen=True)
class Identity:
    """What a verified token says: who, in which roles, until when."""

    actor: str
    roles: tuple[Role, ...]
    sites: frozenset[str]
    person_id: str
    patient_key: str
    purpose: str
    expires: float
    """Seconds since the epoch."""
    grant: str = ""
    """What the token came of (claim `sid`): what ends with a log-out."""
    name: str = ""
    """For the person's own eyes alone: in no log and no event."""

    def caller(self, scope: Scope) -> Caller:
        """Who asks by this request. Raises Unauthenticated(`token-role`) for a role that is not theirs."""
        role, wanted = self.roles[0], header(scope, ROLE_HEADER)
        if wanted:
            found = next((r for r in self.roles if r == wanted), None)
            if found is None:
                raise Unauthenticated("token-role", f"{ROLE_HEADER} names a role that the token does not give")
            role = found
        return Caller(
            actor=self.actor,
            role=role,
            purpose=self.purpose or DEFAULT_PURPOSE[role],
            sites=self.sites,
            person_id=self.person_id,
            patient_key=self.patient_key if role is Role.PATIENT else "",
            address=address_of(scope),
        )


def identity(claims: Mapping[str, Any], names: Claims) -> Identity:
    """Of verified claims. Raises Unauthenticated(`token-…`) where they give no role here."""
    stated = claims.get(names.role)
    listed: Sequence[Any] = stated if isinstance(stated, list) else [stated]
    # `local` is whoever calls from this machine: no issuer gives it
    roles = tuple(Role(r) for r in listed if isinstance(r, str) and r in set(Role) and r != Role.LOCAL)
    if not roles:
        raise Unauthenticated("token-role", f"the token gives none of our roles in its claim {names.role}")
    sites = claims.get(names.sites) or []
    if not (isinstance(sites, list) and all(isinstance(s, str) and (s == "*" or _NAME.match(s)) for s in sites)):
        raise Unauthenticated("token-sites", f"the claim {names.sites} is a list of sites")
    person, patient = _text(claims, names.person, _NAME), _text(claims, names.patient, _PATIENT)
    client = claims.get("client_id") or claims.get("azp")
    service = isinstance(client, str) and _NAME.match(client) is not None and claims["sub"] == client and not person
    if not service and not person:
        # A subject may be an e-mail address: what stands in events is a pseudonym
        person = derived_id("person", str(claims["iss"]), str(claims["sub"]))
    return Identity(
        actor=f"service:{client}" if service else f"person:{person}",
        roles=roles,
        sites=frozenset(sites),
        person_id="" if service else person,
        patient_key=patient,
        purpose=_text(claims, names.purpose, _PURPOSE),
        expires=float(claims["exp"]),
        grant=str(claims.get("sid") or "")[:128],
        name=str(claims.get("name") or claims.get("preferred_username") or "")[:128],
    )


def _text(claims: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
    value = claims.get(name) or ""
    if isinstance(value, str) and (not value or form.match(value)):
        return value
    raise Unauthenticated("token-claim", f"the claim {name} is not of its form")


class Keys:
    """The public keys of an issuer by their ids."""

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def key(self, kid: str) -> jwt.PyJWK:
        """Raises Unauthenticated for one that the issuer has not, Transient when it cannot be asked."""
        age = clock.monotonic() - self._read_at
        if age > JWKS_S or (kid not in self._keys and age > REFETCH_S):
            async with self._reading:
                if clock.monotonic() - self._read_at >= min(age, REFETCH_S):
                    await self._read()
        try:
            return self._keys[kid]
        except KeyError as e:
            raise Unauthenticated("token-key", "the token is signed with a key that its issuer does not show") from e

    async def _read(self) -> None:
        try:
            found = await self._source.read()
        except Transient:
            if not self._keys:
                raise
            self._read_at = clock.monotonic() - JWKS_S + REFETCH_S  # go on with what is known, ask again soon
            return
        keys: dict[str, jwt.PyJWK] = {}
        for entry in found.get("keys", ()):
            if entry.get("use", "sig") != "sig" or entry.get("kty") not in ("RSA", "EC") or not entry.get("kid"):
                continue
            try:
                key = jwt.PyJWK.from_dict(entry)
            except jwt.PyJWTError:
                continue  # of a kind that nothing of ours is signed with
            if key.algorithm_name in ALGORITHMS:
                keys[entry["kid"]] = key
        self._keys, self._read_at = keys, clock.monotonic()


class Verifier:
    """Verifies tokens of one issuer for one audience."""

    def __init__(
        self,
        keys: Keys,
        *,
        issuer: str,
        audience: str,
        claims: Claims,
        ended: Callable[[str], bool] = lambda grant: False,
    ) -> None:
        """`ended` says of a grant whether its tokens are void before they expire."""
        self._keys, self._issuer, self._audience, self._claims = keys, issuer, audience, claims
        self._ended = ended
        self._remembered: OrderedDict[bytes, Identity] = OrderedDict()

    async def verify(self, token: str) -> Identity:
        """Who a token says one is. Raises Unauthenticated(`token-…`), Transient."""
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        found = self._remembered.get(digest)
        if found is None:
            found = identity(await self.claims(token, self._audience), self._claims)
            self._remembered[digest] = found
            if len(self._remembered) > REMEMBERED_MAX:
                self._remembered.popitem(last=False)
        elif found.expires + LEEWAY_S <= clock.now().timestamp():
            del self._remembered[digest]
            raise Unauthenticated("token-expired", f"the token has expired. {HOW}")
        if found.grant and self._ended(found.grant):
            raise Unauthenticated("token-revoked", f"the log-in that the token came of has ended. {HOW}")
        return found

    async def claims(self, token: str, audience: str) -> dict[str, Any]:
        """The claims of a token for an audience. Raises Unauthenticated(`token-…`), Transient."""
        if len(token) > TOKEN_MAX:
            raise Unauthenticated("token-size", f"a token has at most {TOKEN_MAX} characters")
        try:
            head = jwt.get_unverified_header(token)
            if head.get("alg") not in ALGORITHMS:
                raise Unauthenticated("token-algorithm", f"a token is signed with {' or '.join(ALGORITHMS)}")
            key = await self._keys.key(str(head.get("kid", "")))
            if key.algorithm_name != head["alg"]:
                raise Unauthenticated("token-algorithm", "the token names another algorithm than its key has")
            found: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": list(REQUIRED)},
            )
        except jwt.ExpiredSignatureError as e:
            raise Unauthenticated("token-expired", f"the token has expired. {HOW}") from e
        except jwt.InvalidAudienceError as e:
            raise Unauthenticated("token-audience", f"the token is not for {audience}") from e
        except jwt.InvalidIssuerError as e:
            raise Unauthenticated("token-issuer", f"the token is not from {self._issuer}") from e
        except jwt.PyJWTError as e:
            raise Unauthenticated("token-invalid", "the token proves nothing") from e
        return found


class Bearer:
    """Authenticates requests with `Authorization: Bearer` (RFC 6750); a token in a URL is none."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def caller(self, scope: Scope) -> Caller | None:
        """See `infra.http_caller.Authenticator`."""
        scheme, _, token = header(scope, "authorization").partition(" ")
        if scheme.lower() != "bearer":
            return None
        return (await self._verifier.verify(token.strip())).caller(scope)
