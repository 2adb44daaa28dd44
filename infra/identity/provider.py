"""An OpenID provider as the web pages use it: where a browser logs in, and tokens for what it brings back.

`Remote` speaks with the provider of the settings (OpenID Connect Discovery 1.0); `infra.identity.issuer.Issuer` is the
one of a single machine.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote_plus, urlencode

import aiohttp

from infra.settings import Settings
from schemas.errors import Defect, Transient, Unauthenticated

TIMEOUT_S = 10.0
ANSWER_MAX = 1 << 20


@dataclass(frozen=True)
class Tokens:
    """What a token endpoint gives (RFC 6749 §5.1)."""

    access: str
    refresh: str
    id: str
    expires_in_s: int


class Provider(Protocol):
    """What the log-in of browsers needs."""

    async def authorize_url(self, parameters: Mapping[str, str]) -> str:
        """Where the browser is sent. Raises Transient."""

    async def exchange(self, code: str, verifier: str, redirect_uri: str) -> Tokens:
        """RFC 6749 §4.1.3 with RFC 7636. Raises Unauthenticated, Transient."""

    async def refreshed(self, refresh: str) -> Tokens:
        """RFC 6749 §6. Raises Unauthenticated, Transient."""

    async def end(self, tokens: Tokens) -> str:
        """The log-in ends; where the browser is sent for that, or nothing."""


class Remote:
    """The provider of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._issuer = settings.oidc_issuer.rstrip("/")
        self._client_id, self._secret = settings.oidc_client_id, settings.oidc_client_secret
        self._resource = {"resource": settings.oidc_resource} if settings.oidc_resource else {}
        self._found: dict[str, Any] = {}

    async def read(self) -> Mapping[str, Any]:
        """Its JWKS (`infra.identity.tokens.KeySource`)."""
        return await _json("GET", (await self._metadata())["jwks_uri"])

    async def authorize_url(self, parameters: Mapping[str, str]) -> str:
        """See Provider."""
        address: str = (await self._metadata())["authorization_endpoint"]
        return f"{address}{'&' if '?' in address else '?'}{urlencode({**parameters, **self._resource})}"

    async def exchange(self, code: str, verifier: str, redirect_uri: str) -> Tokens:
        """See Provider."""
        return await self._tokens(
            {
                "grant_type": "authorization_code",
                "code": code,
                "code_verifier": verifier,
                "redirect_uri": redirect_uri,
            }
        )

    async def refreshed(self, refresh: str) -> Tokens:
        """See Provider. A provider that does not rotate keeps the refresh token valid."""
        found = await self._tokens({"grant_type": "refresh_token", "refresh_token": refresh})
        return found if found.refresh else Tokens(found.access, refresh, found.id, found.expires_in_s)

    async def end(self, tokens: Tokens) -> str:
        """See Provider (OpenID Connect RP-Initiated Logout 1.0)."""
        metadata = await self._metadata()
        if tokens.refresh and (address := metadata.get("revocation_endpoint")):
            await _json("POST", address, *self._proved({"token": tokens.refresh}), wanted=False)
        address = metadata.get("end_session_endpoint")
        return f"{address}?{urlencode({'id_token_hint': tokens.id})}" if address and tokens.id else ""

    async def _tokens(self, form: dict[str, str]) -> Tokens:
        address = (await self._metadata())["token_endpoint"]
        answer = await _json("POST", address, *self._proved({**form, **self._resource}))
        try:
            return Tokens(
                access=answer["access_token"],
                refresh=answer.get("refresh_token", ""),
                id=answer.get("id_token", ""),
                expires_in_s=int(answer.get("expires_in", 300)),
            )
        except (KeyError, ValueError) as e:
            raise Unauthenticated("provider-answer", "the OIDC provider gave no token") from e

    def _proved(self, form: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """A form and headers that say who sends it: by Basic unless the provider says otherwise (RFC 6749 §2.3.1)."""
        if not self._secret:
            return {**form, "client_id": self._client_id}, {}
        methods = self._found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if "client_secret_basic" in methods:
            proof = f"{quote_plus(self._client_id)}:{quote_plus(self._secret)}"
            return form, {"Authorization": f"Basic {base64.b64encode(proof.encode()).decode()}"}
        return {**form, "client_id": self._client_id, "client_secret": self._secret}, {}

    async def _metadata(self) -> dict[str, Any]:
        if not self._found:
            found = await _json("GET", f"{self._issuer}/.well-known/openid-configuration")
            # OpenID Connect Discovery 1.0 §4.3: another issuer's document proves nothing
            if str(found.get("issuer", "")).rstrip("/") != self._issuer:
                raise Defect("the OIDC provider's configuration names another issuer than SIJIL_OIDC_ISSUER")
            self._found = dict(found)
        return self._found


async def _json(
    method: str,
    url: str,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    wanted: bool = True,
) -> dict[str, Any]:
    """Raises Unauthenticated for a grant that a provider refuses, Transient when it is away."""
    try:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.request(method, url, data=form, headers=headers, allow_redirects=False) as answer,
        ):
            # What everybody may read is refused to nobody: a proxy in front says 404 while the provider starts
            if method == "POST" and answer.status in (400, 401, 403):
                raise Unauthenticated("provider-refused", "the OIDC provider refused: log in again")
            if answer.status != 200:
                raise Transient(f"the OIDC provider answered {answer.status}")
            if not wanted:
                return {}
            found = json.loads(await _body(answer))
    except (aiohttp.ClientError, TimeoutError, ValueError) as e:
        raise Transient("the OIDC provider is away") from e
    if not isinstance(found, dict):
        raise Transient("the OIDC provider answered something else")
    return found


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    async for chunk in answer.content.iter_chunked(1 << 16):
        found += chunk
        if len(found) > ANSWER_MAX:
            raise ValueError("the answer is too large")
    return bytes(found)
