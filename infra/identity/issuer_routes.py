"""The doors of the embedded issuer: `/oidc/…` (OpenID Connect Discovery 1.0, RFC 6749, RFC 7009)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, unquote

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from infra.http_problems import problem
from infra.identity.form import LoginForm
from infra.identity.issuer import Issuer, OAuthError
from infra.identity.keys import ALGORITHM, IssuerKeys
from infra.identity.provider import Tokens
from infra.identity.tokens import Claims
from schemas.errors import Overloaded

AUTHORIZE, TOKEN, REVOKE, JWKS = "/oidc/authorize", "/oidc/token", "/oidc/revoke", "/oidc/jwks"
DISCOVERY = "/oidc/.well-known/openid-configuration"
PATHS = (AUTHORIZE, TOKEN, REVOKE, JWKS, DISCOVERY)
NO_STORE = {"Cache-Control": "no-store"}
PASSED_ON = ("response_type", "client_id", "redirect_uri", "state", "nonce", "scope")
HIDDEN = (*PASSED_ON, "code_challenge", "code_challenge_method")
FIELDS_MAX = 32

Form = Callable[[Request, LoginForm, int], Response]
"""The log-in page for a request, with what its form holds, as a response of that status."""


def add(app: FastAPI, issuer: Issuer, keys: IssuerKeys, form: Callable[[], Form]) -> None:
    """Register them."""

    def page(status: int, given: Mapping[str, str], error: str, request: Request) -> Response:
        hidden = {n: given[n] for n in HIDDEN if n in given}
        lang = "ar" if request.headers.get("accept-language", "").lower().startswith("ar") else "en"
        return form()(request, LoginForm(AUTHORIZE, hidden, given.get("username", "")[:64], error, lang), status)

    @app.get(DISCOVERY, include_in_schema=False)
    async def discovery() -> Response:
        return JSONResponse(
            {
                "issuer": issuer.url,
                "authorization_endpoint": f"{issuer.url}/authorize",
                "token_endpoint": f"{issuer.url}/token",
                "revocation_endpoint": f"{issuer.url}/revoke",
                "jwks_uri": f"{issuer.url}/jwks",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [ALGORITHM],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
                "authorization_response_iss_parameter_supported": True,
                "scopes_supported": ["openid", "profile", "offline_access"],
                "claims_supported": ["sub", "name", *vars(Claims()).values()],
            }
        )

    @app.get(JWKS, include_in_schema=False)
    async def jwks() -> Response:
        return JSONResponse(keys.public(), headers={"Cache-Control": "max-age=60"})

    @app.get(AUTHORIZE, include_in_schema=False)
    async def authorize(request: Request) -> Response:
        given = _fields(request.scope["query_string"])
        issuer.asked(given)
        return page(200, given, "", request)

    @app.post(AUTHORIZE, include_in_schema=False)
    async def login(request: Request) -> Response:
        given = _fields(await request.body())
        asked = issuer.asked(given)
        try:
            user = await issuer.proved(given.get("username", ""), given.get("password", ""))
        except Overloaded:
            return page(429, given, "wait", request)
        if user is None or user.service:
            return page(401, given, "wrong", request)
        return RedirectResponse(issuer.code(asked, user), 303, NO_STORE)

    @app.post(TOKEN, include_in_schema=False)
    async def token(request: Request) -> Response:
        given = _fields(await request.body())
        client_id, secret = _client(request, given)
        match given.get("grant_type"):
            case "authorization_code":
                redirect_uri, verifier = given.get("redirect_uri", ""), given.get("code_verifier", "")
                found = issuer.redeemed(given.get("code", ""), verifier, redirect_uri, client_id)
            case "refresh_token":
                found = issuer.renewed(given.get("refresh_token", ""), client_id)
            case "client_credentials":
                found = await issuer.service(client_id, secret)
            case _:
                raise OAuthError("unsupported_grant_type", "authorization_code, refresh_token or client_credentials")
        return JSONResponse(_told(found), headers=NO_STORE)

    @app.post(REVOKE, include_in_schema=False)
    async def revoke(request: Request) -> Response:
        issuer.revoke(_fields(await request.body()).get("token", ""))
        return Response(status_code=200, headers=NO_STORE)

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, OAuthError) else 400
        code = error.code if isinstance(error, OAuthError) else "invalid_request"
        if request.url.path == AUTHORIZE:
            return problem(status, "This log-in cannot go on: begin again at /login", str(error), reason=code)
        body = {"error": code, "error_description": str(error)}
        return JSONResponse(body, status, NO_STORE | ({"WWW-Authenticate": "Basic"} if status == 401 else {}))

    app.add_exception_handler(OAuthError, refused)


def _told(tokens: Tokens) -> dict[str, object]:
    found: dict[str, object] = {
        "access_token": tokens.access,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in_s,
    }
    more = {"refresh_token": tokens.refresh, "id_token": tokens.id}
    return found | {n: v for n, v in more.items() if v}


def _client(request: Request, given: Mapping[str, str]) -> tuple[str, str]:
    """Client id and secret (RFC 6749 §2.3.1)."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return given.get("client_id", ""), given.get("client_secret", "")
    try:
        name, _, secret = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as e:
        raise OAuthError("invalid_client", "this is no Basic authentication", 401) from e
    return unquote(name), unquote(secret)


def _fields(data: bytes) -> dict[str, str]:
    """A form or a query; of a name that comes twice nothing (RFC 6749 §3.1)."""
    try:
        pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError as e:
        raise OAuthError("invalid_request", "this is no form") from e
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise OAuthError("invalid_request", "a parameter comes twice")
        found[name] = value
    return found
