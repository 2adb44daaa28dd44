"""Who calls, at the HTTP door: bearer tokens, log-in and log-out of browsers, `/me`.

A browser logs in by OpenID Connect with an authorization code and PKCE: /login sends it to the provider, which sends it
back to /login/callback; it then has a session and goes where it wanted to.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from infra import telemetry
from infra.http_caller import Gate, caller_of, is_loopback, needs
from infra.identity import form, issuer_routes
from infra.identity.grants import Grants
from infra.identity.issuer import CALLBACK, Issuer, OAuthError
from infra.identity.keys import IssuerKeys
from infra.identity.provider import Provider, Remote
from infra.identity.sessions import Sessions, cookie_name, cookie_of, set_cookie
from infra.identity.tokens import Bearer, Claims, Keys, KeySource, Verifier
from infra.identity.users import Users
from infra.ports import Tables
from infra.settings import Settings
from schemas.errors import NotFound, Transient, Unauthenticated
from schemas.roles import DEFAULT_PURPOSE, Permission

log = telemetry.logger(__name__)

LOGIN, LOGOUT = "/login", "/logout"
BEGUN, BEGUN_S = "sijil-login", 600
"""Cookie of a log-in under way, and how long it may take."""
_LOCAL = re.compile(r"/(?![/\\])[\x21-\x7e]{0,2000}\Z")


class Identity:
    """What the door knows of who people are. `form` renders the embedded issuer's log-in form."""

    def __init__(self, settings: Settings, gate: Gate) -> None:
        self.settings = settings
        self.form: issuer_routes.Form = form.render
        self.tables: Callable[[], Tables] = _no_tables
        """Where sessions are kept: the room that has a connection sets it."""
        self.issuer: Issuer | None = None
        self.issuer_keys = IssuerKeys(settings.home / "secrets")
        self.provider: Provider | None = None
        source: KeySource | None = None
        issuer_url, ended = settings.oidc_issuer, lambda grant: False
        if settings.oidc_issuer:
            self.provider = source = Remote(settings)
        elif is_loopback(settings.http_host):
            issuer_url = embedded_url(settings)
            users = Users(settings.home / "secrets")
            self.issuer = Issuer(
                self.issuer_keys,
                users,
                url=issuer_url,
                audience=settings.oidc_audience,
                client_id=settings.oidc_client_id,
                grants=Grants(settings.home / "secrets" / "issuer-grants.json"),
            )
            self.provider, source, ended = self.issuer, self.issuer_keys, self.issuer.ended
        self.verifier: Verifier | None = None
        self.sessions: Sessions | None = None
        if self.provider is None or source is None:
            log.warning("nobody can log in: SIJIL_OIDC_ISSUER names no provider, and the door is open to others")
            return
        self.verifier = Verifier(
            Keys(source),
            issuer=issuer_url,
            audience=settings.oidc_audience,
            claims=Claims(
                settings.oidc_role_claim,
                settings.oidc_sites_claim,
                settings.oidc_person_claim,
                settings.oidc_patient_claim,
                settings.oidc_purpose_claim,
            ),
            ended=ended,
        )
        self.sessions = Sessions(settings, self.provider, self.verifier, lambda: self.tables())
        gate.authenticators += [Bearer(self.verifier), self.sessions]


def _no_tables() -> Tables:
    raise Transient("the state tables are not reachable yet")


def embedded_url(settings: Settings) -> str:
    """The issuer (`iss`) of the embedded issuer's tokens."""
    base = settings.public_url
    return f"{base}/oidc"


def local_path(text: str) -> str:
    """Where to go after a log-in: a path of this host; anything else is `/`."""
    return text if _LOCAL.match(text) else "/"


def add(app: FastAPI, identity: Identity, gate: Gate) -> None:
    """Register the doors."""

    @app.get("/me", tags=["Who"], summary="Who one is here", dependencies=[needs(Permission.SELF_READ)])
    async def me(request: Request) -> Response:
        caller = caller_of(request)
        found = {
            "actor": caller.actor,
            "role": caller.role,
            "purpose": caller.purpose,
            "default_purpose": DEFAULT_PURPOSE[caller.role],
            "sites": sorted(caller.sites),
            "person_id": caller.person_id,
            "patient_key": caller.patient_key,
            "name": request.scope["state"].get("name", ""),
        }
        return JSONResponse(found, headers={"Cache-Control": "no-store"})

    gate.open(LOGIN, CALLBACK, LOGOUT)
    _add_login(app, identity)
    if identity.issuer is not None:
        gate.open(*issuer_routes.PATHS)
        issuer_routes.add(app, identity.issuer, identity.issuer_keys, lambda: identity.form)
    if identity.sessions is not None:
        app.state.session_secret = identity.sessions.secret


def _add_login(app: FastAPI, identity: Identity) -> None:
    settings = identity.settings

    def parts() -> tuple[Provider, Sessions, Verifier]:
        if identity.provider is None or identity.sessions is None or identity.verifier is None:
            raise NotFound("nobody can log in here: the operator sets SIJIL_OIDC_ISSUER to an OIDC provider")
        return identity.provider, identity.sessions, identity.verifier

    @app.get(LOGIN, include_in_schema=False)
    async def login(request: Request) -> Response:
        provider, sessions, _ = parts()
        state, verifier, nonce = (secrets.token_urlsafe(32) for _ in range(3))
        origin = origin_of(request)
        redirect_uri = (settings.http_public_url.rstrip("/") or origin) + CALLBACK
        where = await provider.authorize_url(
            {
                "response_type": "code",
                "client_id": settings.oidc_client_id,
                "redirect_uri": redirect_uri,
                "scope": settings.oidc_scopes,
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge(verifier),
                "code_challenge_method": "S256",
            }
        )
        back = local_path(request.query_params.get("back", ""))
        begun = {"state": state, "verifier": verifier, "nonce": nonce, "redirect_uri": redirect_uri}
        sealed = sessions.sealed(begun | {"back": back, "origin": origin})
        answer = RedirectResponse(where, 302, {"Cache-Control": "no-store"})
        answer.headers.append("Set-Cookie", set_cookie(request.scope, sealed, name=BEGUN, path=LOGIN, seconds=BEGUN_S))
        return answer

    @app.get(CALLBACK, include_in_schema=False)
    async def callback(request: Request) -> Response:
        provider, sessions, verifier = parts()
        given = request.query_params
        begun = sessions.opened(cookie_of(request.scope, BEGUN), BEGUN_S)
        if not hmac.compare_digest(given.get("state", "").encode(), begun["state"].encode()):
            raise Unauthenticated("login-state", "this answer is not of your log-in: begin again at /login")
        if not given.get("code"):
            raise Unauthenticated("login-refused", "the OIDC provider did not let you in: begin again at /login")
        try:
            tokens = await provider.exchange(given["code"], begun["verifier"], begun["redirect_uri"])
        except OAuthError as error:
            raise Unauthenticated("login-code", str(error)) from error
        claims = await verifier.claims(tokens.id, settings.oidc_client_id)
        if claims.get("nonce") != begun["nonce"]:
            raise Unauthenticated("login-nonce", "this answer is not of your log-in: begin again at /login")
        await verifier.verify(tokens.access)
        # A session that was there before ends: nobody goes on in what another began (session fixation)
        if old := request.scope["state"].get("session", ""):
            await sessions.end(old)
        cookie = await sessions.begin(tokens)
        here = "" if begun["origin"] == origin_of(request) else begun["origin"]
        answer = RedirectResponse(here + begun["back"], 303, {"Cache-Control": "no-store"})
        answer.headers.append("Set-Cookie", set_cookie(request.scope, cookie))
        answer.headers.append("Set-Cookie", set_cookie(request.scope, "", name=BEGUN, path=LOGIN, seconds=0))
        return answer

    @app.post(LOGOUT, include_in_schema=False)
    async def logout(request: Request) -> Response:
        provider, sessions, _ = parts()
        where = ""
        if session := request.scope["state"].get("session", ""):
            tokens = await sessions.end(session)
            try:
                where = await provider.end(tokens) if tokens else ""
            except (Transient, Unauthenticated):
                log.warning("the OIDC provider was not told of a log-out")  # here it is over all the same
        answer = RedirectResponse(where or "/", 303, {"Cache-Control": "no-store", "Clear-Site-Data": '"cache"'})
        answer.headers.append("Set-Cookie", set_cookie(request.scope, "", name=cookie_name(request.scope), seconds=0))
        return answer


def challenge(verifier: str) -> str:
    """RFC 7636 §4.2, S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def origin_of(request: Request) -> str:
    """Scheme, host and port as the browser sees them; the door's perimeter has looked at Host."""
    return f"{request.url.scheme}://{request.headers.get('host') or request.url.netloc}"
