"""What every page has: a language, somebody who looks, a menu of what they may, a policy that lets nothing else in.

A page is `async def page(view: View) -> Response`, registered with the permission that it needs. Its data come from
`View.get`, which asks the archive's own API in this process (`consumers.web.inner`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

import jinja2
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from consumers.direction import isolated
from consumers.web import show
from consumers.web.assets import PREFIX, Assets
from consumers.web.coded_conclusion import NAMES, coded
from consumers.web.inner import Inner, Refused
from consumers.web.language import COOKIE, OPTION, Language, chosen, other
from consumers.web.library import ADDRESS as LIBRARY
from consumers.web.library import Library
from infra import clock
from infra.http_caller import gate_of, needs
from infra.http_problems import MEDIA_TYPE
from infra.identity import csrf
from infra.settings import Settings
from schemas.caller import Caller
from schemas.errors import Invalid
from schemas.roles import Permission, Role, Scope, scope_of

TEMPLATES = Path(__file__).with_name("templates")
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self';"
    " img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "private, no-store",
    "Content-Language": "",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
FIELDS_MAX = 64
REMEMBERED_S = 365 * 24 * 3600


class Entry(NamedTuple):
    """A place of the menu."""

    key: str
    path: str
    permission: Permission
    roles: frozenset[Role] = frozenset()
    """For whom it is meant; empty: whoever may."""


MENU: tuple[Entry, ...] = (
    Entry("own", "/web/own", Permission.PATIENT_FILE, frozenset({Role.PATIENT})),
    Entry("inbox", "/web/inbox", Permission.REPORT_READ, frozenset({Role.DOCTOR, Role.LOCAL})),
    Entry("reading", "/web/reading", Permission.REPORT_DRAFT),
    Entry("orders", "/web/orders", Permission.ORDER_WRITE, frozenset(Role) - {Role.DOCTOR}),
    Entry("arrivals", "/web/arrivals", Permission.QUARANTINE_READ),
    Entry("studies", "/web/studies", Permission.STUDY_SEARCH, frozenset(Role) - {Role.PATIENT}),
    Entry(
        "criticals",
        "/web/criticals",
        Permission.REPORT_READ,
        frozenset({Role.RADIOLOGIST, Role.RESIDENT, Role.DOCTOR, Role.ADMINISTRATOR, Role.LOCAL}),
    ),
    Entry("times", "/web/times", Permission.TIMES_READ),
    Entry("conflicts", "/web/conflicts", Permission.CONFLICTS_READ),
    Entry("proposals", "/web/proposals", Permission.CONFLICTS_READ),
    Entry("rejected", "/web/rejected", Permission.QUARANTINE_READ, frozenset({Role.ADMINISTRATOR, Role.LOCAL})),
    Entry("corrections", "/web/corrections", Permission.CORRECTIONS_READ),
    Entry("accesses", "/web/accesses", Permission.ACCESS_READ_ANY),
    Entry("people", "/web/people", Permission.PEOPLE_READ),
    Entry("results-waiting", "/web/results-waiting", Permission.RESULT_READ),
    Entry("deliveries", "/web/deliveries", Permission.DELIVERY_READ),
    Entry("peers", "/web/peers", Permission.AE_READ),
)


@dataclass(frozen=True)
class Person:
    """Who looks, as the bar says it."""

    name: str
    role: str
    sites: tuple[str, ...]
    logout: str
    """Where a session is ended; empty: there is none."""


class May:
    """`may.study_read`: whether the caller's role has the permission about anything at all."""

    def __init__(self, caller: Caller | None) -> None:
        self._caller = caller

    def __getattr__(self, name: str) -> bool:
        permission = Permission[name.upper()]
        return self._caller is not None and scope_of(self._caller.role, permission) is not Scope.NONE


@dataclass
class View:
    """One request for a page."""

    frame: Frame
    request: Request
    language: Language
    caller: Caller | None
    form: Mapping[str, str] = field(default_factory=dict)

    def option(self, name: str, most: int = 200) -> str:
        """A query parameter without blanks around it; empty if it is not there. Cut where no true one is so long."""
        return self.request.query_params.get(name, "").strip()[:most]

    def part(self, name: str) -> str:
        """A part of the path."""
        value: str = self.request.path_params[name]
        return value

    def may(self, permission: Permission) -> bool:
        """Whether the caller's role has it about anything."""
        return self.caller is not None and scope_of(self.caller.role, permission) is not Scope.NONE

    async def get(self, path: str, **options: str) -> Any:
        """Ask the API. Raises Refused."""
        return await self.frame.inner.get(self.request, path, **options)

    async def post(self, path: str, document: object) -> Any:
        """Send JSON to the API. Raises Refused."""
        return (await self.frame.inner.post(self.request, path, document)).json()

    async def delete(self, path: str) -> Any:
        """Take something back at the API. Raises Refused."""
        return (await self.frame.inner.post(self.request, path, {}, method="DELETE")).json()

    async def put(self, path: str, document: object) -> Any:
        """The same with PUT."""
        return (await self.frame.inner.post(self.request, path, document, method="PUT")).json()

    def field(self, name: str, most: int = 2000) -> str:
        """A field of the form, without blanks around it."""
        return self.form.get(name, "").strip()[:most]

    async def all(self, *paths: str) -> list[Any]:
        """Ask the API several things at once. Raises Refused."""
        return list(await asyncio.gather(*(self.get(p) for p in paths)))

    def viewer(self, study_uid: str) -> str:
        """Address of the viewer with a study, or of its list."""
        settings = self.frame.settings
        base = settings.http_public_url.rstrip("/")
        if not base:
            host = self.request.url.hostname or settings.http_host
            base = f"{self.request.url.scheme}://{f'[{host}]' if ':' in host else host}:{settings.viewer_port}"
        return f"{base}/viewer?{urlencode({'StudyInstanceUIDs': study_uid})}" if study_uid else f"{base}/"

    def here(self, **options: str) -> str:
        """This page's address with other options."""
        asked = {**self.request.query_params, **options}
        asked.pop("notice", None)
        query = urlencode({n: v for n, v in asked.items() if v})
        return self.request.url.path + (f"?{query}" if query else "")

    def render(self, template: str, *, status: int = 200, **context: Any) -> Response:
        """The page."""
        return self.frame.render(self, template, status, context)


Page = Callable[[View], Awaitable[Response]]


@cache
def templates() -> jinja2.Environment:
    """Those of all pages: each is compiled once in a process."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters["isolated"] = isolated
    found.filters["coded"] = coded
    found.filters["coding_system"] = lambda system: NAMES.get(system, "")
    return found


@cache
def assets() -> Assets:
    """The static files, read and compressed once in a process."""
    return Assets()


class Frame:
    """Registers pages and makes them."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        self.app, self.settings, self.inner, self.assets = app, settings, Inner(app), assets()
        self.library = Library(settings.image_library)
        self.zone = ZoneInfo(settings.time_zone)
        app.router.add_api_route(PREFIX + "{name}", self.assets.serve, methods=["GET"], include_in_schema=False)
        gate_of(app).open(PREFIX + "{name}")
        app.router.add_api_route(LIBRARY, self.library.serve, methods=["GET"], include_in_schema=False)
        gate_of(app).open(LIBRARY)
        app.add_exception_handler(Refused, _refused)

    def get(self, path: str, page: Page, permission: Permission | None) -> None:
        """Answer GET `path`; without a permission whoever asks."""

        async def endpoint(request: Request) -> Response:
            return await page(self.view(request))

        self._add(path, endpoint, "GET", permission)

    def post(self, path: str, page: Page, permission: Permission | None) -> None:
        """Answer a form that was sent to `path`, if it is the session's own; without a permission whoever sends."""

        async def endpoint(request: Request) -> Response:
            form = form_of(await request.body())
            csrf.check(request, form.get(csrf.FIELD, ""))
            return await page(self.view(request, form))

        self._add(path, endpoint, "POST", permission)

    def _add(
        self, path: str, endpoint: Callable[[Request], Awaitable[Response]], method: str, permission: Permission | None
    ) -> None:
        dependencies = [needs(permission)] if permission else []
        self.app.router.add_api_route(
            path, endpoint, methods=[method], include_in_schema=False, dependencies=dependencies, response_model=None
        )
        if permission is None:
            gate_of(self.app).open(path)

    def view(self, request: Request, form: Mapping[str, str] | None = None) -> View:
        """What a page needs of a request."""
        language = chosen(
            request.query_params.get(OPTION, ""),
            request.cookies.get(COOKIE, ""),
            request.headers.get("accept-language", ""),
        )
        caller: Caller | None = request.scope.get("state", {}).get("caller")
        return View(self, request, language, caller, form or {})

    def render(self, view: View, template: str, status: int, context: Mapping[str, Any]) -> Response:
        """A template within the frame."""
        language, request = view.language, view.request
        switch = other(language)
        asked = request.query_params.get(OPTION, "")
        page = templates().get_template(template)
        text = page.render(
            L=language,
            t=language.text,
            asset=self.assets.url,
            may=May(view.caller),
            nav=menu(view.caller),
            here=request.url.path,
            person=_person(view),
            csrf=csrf.token(request),
            switch={
                "url": context.get("switch_url") or view.here(**{OPTION: switch.code}),
                "code": switch.code,
                "name": switch.name,
            },
            viewer=view.viewer,
            zone=self.zone,
            zone_name=self.settings.time_zone,
            today=clock.now().astimezone(self.zone).date(),
            at_of=show.moment,
            notice=_notice(request),
            **context,
        )
        response = Response(text, status, {**HEADERS, "Content-Language": language.code}, media_type="text/html")
        if asked == language.code:
            secure = request.url.scheme == "https"
            response.set_cookie(COOKIE, asked, REMEMBERED_S, secure=secure, httponly=True, samesite="lax")
        return response


async def _refused(request: Request, error: Exception) -> Response:
    """The API's problem is the page's: `consumers.web.faces` says it to people."""
    if not isinstance(error, Refused):
        raise error
    told = error.told
    headers = {n: v for n, v in told.headers.items() if n in ("retry-after", "sijil-access-id")}
    return Response(told.body, told.status, headers, media_type=MEDIA_TYPE)


def form_of(body: bytes) -> dict[str, str]:
    """The fields of a form (application/x-www-form-urlencoded). Raises Invalid(`form`)."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError as e:
        raise Invalid("form", "this is no form") from e
    return dict(pairs)


def menu(caller: Caller | None) -> Sequence[Entry]:
    """The places for somebody."""
    if caller is None:
        return ()
    may = (e for e in MENU if scope_of(caller.role, e.permission) is not Scope.NONE)
    return [e for e in may if not e.roles or caller.role in e.roles]


def _person(view: View) -> Person | None:
    caller = view.caller
    if caller is None:
        return None
    state = view.request.scope.get("state", {})
    # A patient who came by a link has no name here but a pseudonym, which says nothing to them
    name = state.get("name") or ("" if caller.role is Role.PATIENT else caller.actor.partition(":")[2])
    return Person(name, caller.role, tuple(sorted(caller.sites)), _logout(state))


def _logout(state: Mapping[str, Any]) -> str:
    found: str = state.get("logout", "/logout") if state.get("session") else ""
    return found


NOTICES: Mapping[str, str] = {
    "resolved": "good",
    "conflict": "warn",
    "failed": "bad",
    "opened": "warn",
    "saved": "good",
    "signed": "good",
    "preliminary": "good",
    "released": "good",
    "revoked": "good",
    "read-back": "good",
}


def _notice(request: Request) -> Mapping[str, str] | None:
    key = request.query_params.get("notice", "")
    return {"key": key, "kind": NOTICES[key]} if key in NOTICES else None
