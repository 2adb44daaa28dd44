"""Who asks by HTTP: the middleware that finds it out, and what a route says about who may.

The middleware puts `scope["state"]["caller"]: Caller | None`. A route names its permission: `Guard.get(permission=)`
for reads of patient data, `dependencies=[needs(Permission.X)]` elsewhere; `check_routes` ends the process when one
names none and is not in OPEN. Without a caller a route answers 401, to one who may not 403, and the refusal is
recorded.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Asgi

from infra.settings import Settings, SettingsError
from schemas.caller import Caller
from schemas.errors import Defect, Forbidden, Invalid, SijilError, Unauthenticated
from schemas.roles import DEFAULT_PURPOSE, Permission, Role, Scope, may_break_glass, scope_of

PURPOSE_HEADER = "Sijil-Purpose-Of-Use"
HOW = (
    "Log in at /login, or send `Authorization: Bearer <token>`; on the local stack `sijil token ROLE` prints one,"
    " elsewhere your OIDC provider issues it"
)
_CODE = re.compile(r"[A-Z]{2,16}\Z")

STANDINGS = {
    "person-left": "You are known to have left: the PACS administrator can register you again",
    "role-not-held": "This role is none of those you are registered with: the PACS administrator can add it",
}
"""Why nothing is allowed to somebody whom the archive knows."""

OPEN = frozenset({"/docs", "/openapi.json", "/conformance", "/health/live", "/health/ready"})
"""Addresses of the door itself that show nothing of any patient; rooms add theirs with `Gate.open`."""


class Authenticator(Protocol):
    """Proves who sends a request."""

    async def caller(self, scope: Asgi) -> Caller | None:
        """None if the request has not what this one looks at. Raises Unauthenticated for what proves nothing."""


Denied = Callable[[Caller, str, str, str, str], Awaitable[str]]
"""(caller, permission, reason, study_uid, patient key) → id of the event that records the refusal, durable."""
Refusal = Callable[[Caller, Permission], str]
"""(caller, permission) → why somebody of their role, for their purpose, may not do this at all; empty if they may."""
Within = Callable[[Caller, Permission, Sequence[str], str], Awaitable[str]]
"""(caller, permission, study_uids, patient key) → why this is beyond their scope; empty if it is not."""

Standing = Callable[[Caller], Awaitable[str]]
"""(caller) → why they may do nothing in their role, whatever their token says; empty if they may."""

Narrowed = Callable[[Caller], Awaitable[Caller]]
"""(caller) → the same with those of their token's sites alone that are theirs."""


async def _not_recorded(caller: Caller, permission: str, reason: str, study_uid: str, patient_key: str) -> str:
    return ""


def _by_role(caller: Caller, permission: Permission) -> str:
    return "role" if scope_of(caller.role, permission) is Scope.NONE else ""


async def _nobody_knows(caller: Caller, permission: Permission, study_uids: Sequence[str], patient_key: str) -> str:
    return "scope-unknown"


async def _by_token(caller: Caller) -> str:
    return ""


async def _as_it_is(caller: Caller) -> Caller:
    return caller


@dataclass
class Gate:
    """What decides at the HTTP door. The rooms that know more set the hooks."""

    loopback_role: Role | None = None
    authenticators: list[Authenticator] = field(default_factory=list)
    denied: Denied = _not_recorded
    refusal: Refusal = _by_role
    within: Within = _nobody_knows
    standing: Standing = _by_token
    narrowed: Narrowed = _as_it_is
    opened: set[str] = field(default_factory=lambda: set(OPEN))

    @classmethod
    def of(cls, settings: Settings) -> Gate:
        """As the settings say. Raises SettingsError for a loopback role on a door that others can reach."""
        return cls(loopback_role(settings))

    def open(self, *paths: str) -> None:
        """Routes (as they are registered) that anybody may ask: log-in, discovery, static files."""
        self.opened.update(paths)

    async def identify(self, scope: Asgi) -> Caller | None:
        """Who sends a request. Raises Unauthenticated, Invalid(`purpose-invalid`)."""
        found = None
        for authenticator in self.authenticators:
            if (found := await authenticator.caller(scope)) is not None:
                break
        address = address_of(scope)
        # What a proxy on this machine sends on is not this machine's
        forwarded = header(scope, "x-forwarded-for") or header(scope, "forwarded")
        if found is None and self.loopback_role is not None and is_loopback(address) and not forwarded:
            found = Caller(f"http:{address}", self.loopback_role, DEFAULT_PURPOSE[self.loopback_role], address=address)
        if found is None:
            return None
        if stated := header(scope, PURPOSE_HEADER):
            found = replace(found, purpose=checked_purpose(stated))
        return await self.narrowed(found)

    async def admit(
        self, request: Request, permission: Permission, study_uids: Sequence[str] = (), patient_key: str = ""
    ) -> Caller:
        """Who asks, if they may do this with these studies, or this patient. Raises Unauthenticated, Forbidden
        (recorded).
        """
        caller = caller_of(request)
        reason = await self.standing(caller) or self.refusal(caller, permission)
        if not reason and (study_uids or patient_key) and scope_of(caller.role, permission) is not Scope.WHOLE:
            reason = await self.within(caller, permission, study_uids, patient_key)
        if reason:
            study_uid = study_uids[0] if study_uids else ""
            access_id = await self.denied(caller, permission, reason, study_uid, patient_key)
            raise Forbidden(reason, why_not(caller, permission, reason), access_id=access_id)
        return caller


def why_not(caller: Caller, permission: Permission, reason: str) -> str:
    """What a refused one is told: what to do about it where something can be done."""
    match reason:
        case _ if reason in STANDINGS:
            return STANDINGS[reason]
        case "role":
            return f"the role {caller.role} may not: {permission}"
        case "scope":
            more = " In an emergency state it: POST /emergency" if may_break_glass(caller.role) else ""
            return f"this is beyond what the role {caller.role} sees: {scope_of(caller.role, permission)}.{more}"
        case _:
            return f"the purpose {caller.purpose} is not one of the role {caller.role} ({PURPOSE_HEADER})"


def loopback_role(settings: Settings) -> Role | None:
    """The role of callers from this machine without credentials. Raises SettingsError."""
    if not settings.loopback_role:
        return None
    try:
        role = Role(settings.loopback_role)
    except ValueError as e:
        raise SettingsError(f"SIJIL_LOOPBACK_ROLE must be one of {', '.join(Role)}") from e
    if not is_loopback(settings.http_host):
        raise SettingsError(
            f"SIJIL_LOOPBACK_ROLE={role} opens the archive to whoever reaches it without a token: with it the HTTP door"
            f" binds to 127.0.0.1 alone, not to {settings.http_host}"
        )
    return role


def is_loopback(address: str) -> bool:
    """Whether it is an IP address of this machine itself."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def address_of(scope: Asgi) -> str:
    """The client's IP address."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def header(scope: Asgi, name: str) -> str:
    """A header of a request; empty if it is not there."""
    wanted = name.lower().encode("latin-1")
    return next((v.decode("latin-1") for k, v in scope["headers"] if k == wanted), "")


def checked_purpose(text: str) -> str:
    """A purpose as stated. Raises Invalid(`purpose-invalid`) for what is no code at all."""
    code = text.strip()
    if not _CODE.match(code):
        raise Invalid("purpose-invalid", f"{PURPOSE_HEADER} must be a code of HL7 v3 PurposeOfUse")
    return code


def caller_of(request: Request) -> Caller:
    """Who asks. Raises Unauthenticated."""
    state = request.scope.get("state", {})
    caller: Caller | None = state.get("caller")
    if caller is None:
        refused: SijilError | None = state.get("refused")
        raise refused or Unauthenticated("no-credentials", HOW)
    return caller


class Callers:
    """ASGI middleware: finds out who asks before anything else does."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app, self._gate = app, gate

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # Starlette shares the lifespan's state between requests: a copy of our own
            state = scope["state"] = {**scope.get("state", {}), "caller": None}
            try:
                state["caller"] = await self._gate.identify(scope)
            except SijilError as error:
                state["refused"] = error  # the route's answer: what is open stays open
        await self.app(scope, receive, send)


# ------------------------------------------------------------------------------------------------ what routes say


class Needs:
    """The dependency of a route that names its permission; a `{study}` of its address is held against the scope."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request) -> Caller:
        study: str = request.path_params.get("study", "")
        key: str = request.path_params.get("key", "")
        return await gate_of(request.app).admit(request, self.permission, (study,) if study else (), key)


def needs(permission: Permission) -> Any:
    """For `dependencies=[…]` of a route."""
    return Depends(Needs(permission))


def gate_of(app: FastAPI) -> Gate:
    """The gate of an application."""
    return cast(Gate, app.state.gate)


def permission_of(route: BaseRoute) -> Permission | None:
    """What a route names; None if nothing."""
    if found := getattr(route, "permission", None):
        return cast(Permission, found)
    if isinstance(route, APIRoute):
        for dependency in route.dependant.dependencies:
            if isinstance(dependency.call, Needs):
                return dependency.call.permission
    return None


SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"session": []}]
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": HOW},
    "session": {"type": "apiKey", "in": "cookie", "name": "sijil", "description": "the session of a browser"},
}


class Documented(FastAPI):
    """An application whose OpenAPI document says how one proves who one is."""

    def openapi(self) -> dict[str, Any]:
        """See FastAPI."""
        document = super().openapi()
        document.setdefault("components", {})["securitySchemes"] = SCHEMES
        return document


def check_routes(app: FastAPI) -> None:
    """Every route names a permission, which the OpenAPI document then says too, or is open. Raises Defect."""
    gate = gate_of(app)
    for route in app.routes:
        path = cast(str, getattr(route, "path", ""))
        permission = permission_of(route)
        if permission is None:
            if path not in gate.opened:
                raise Defect(f"the route {path} names no permission and is not open")
            if isinstance(route, APIRoute):  # nobody needs to prove anything there (OpenAPI 3.1 §4.8.10)
                route.openapi_extra = {**(route.openapi_extra or {}), "security": []}
        elif path in gate.opened:
            raise Defect(f"the route {path} is open and names a permission")
        elif isinstance(route, APIRoute):
            extra = route.openapi_extra or {}
            route.openapi_extra = {**extra, "x-permission": str(permission), "security": SECURITY}
        elif not isinstance(route, Route | Mount):
            raise Defect(f"a route of an unknown kind: {path}")
