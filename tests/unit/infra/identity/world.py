"""An HTTP door with the embedded issuer, its sessions in memory, and a browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import parse_qs, urlsplit

import httpx
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from infra.chain import ChainedLog
from infra.http_caller import caller_of, needs
from infra.http_door import HttpDoor, compose
from infra.identity import csrf, seed
from infra.identity.keys import IssuerKeys
from infra.identity.users import Users
from infra.memory import MemoryLog, MemoryObjects, MemoryTables
from infra.settings import Settings
from schemas.roles import Permission
from schemas.tables import STATE_KEYSPACE, STATE_TABLES

T = TypeVar("T")
BASE = "http://127.0.0.1:8080"


class _Chain:
    backlog = 0


def room(app: FastAPI, door: HttpDoor) -> None:
    """A room with one door for each kind of asking."""

    @app.get("/who", dependencies=[needs(Permission.STUDY_SEARCH)])
    async def who(request: Request) -> Response:
        caller = caller_of(request)
        return JSONResponse({"actor": caller.actor, "role": caller.role, "purpose": caller.purpose})

    @app.get("/form", dependencies=[needs(Permission.SELF_READ)])
    async def form(request: Request) -> Response:
        return JSONResponse({"csrf": csrf.token(request)})

    @app.post("/form", dependencies=[needs(Permission.SELF_READ)])
    async def posted(request: Request) -> Response:
        csrf.check(request, request.headers.get("x-form", ""))
        return Response(status_code=204)


class World:
    """One installation."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.settings = Settings(home=folder, **changes)
        seed.ensure(self.settings)
        self.keys = IssuerKeys(folder / "secrets")
        self.users = Users(folder / "secrets")
        self.tables = MemoryTables(STATE_KEYSPACE, STATE_TABLES)
        self.door = self.opened()
        self.app = compose(self.door, [room])

    def opened(self) -> HttpDoor:
        """The door of a process."""
        door = HttpDoor(self.settings, log=MemoryLog(), chain=cast(ChainedLog, _Chain()), objects=MemoryObjects())
        door.identity.tables = lambda: self.tables
        return door

    def password(self, username: str) -> str:
        """As users.txt tells it."""
        lines = (self.settings.home / "secrets" / "users.txt").read_text().splitlines()
        return next(line.split("\t")[1] for line in lines if line.startswith(f"{username}\t"))

    def client(self, app: FastAPI | None = None) -> httpx.AsyncClient:
        """A browser: it keeps cookies and follows nothing by itself."""
        transport = httpx.ASGITransport(app or self.app, client=("127.0.0.1", 4711))
        return httpx.AsyncClient(transport=transport, base_url=BASE)


def run(work: Coroutine[Any, Any, T]) -> T:
    """On a loop of its own."""
    return asyncio.run(work)


async def begin(browser: httpx.AsyncClient, back: str = "/form") -> dict[str, str]:
    """The hidden fields of the log-in form."""
    sent = await browser.get("/login", params={"back": back})
    assert sent.status_code == 302
    form = await browser.get(sent.headers["location"])
    assert form.status_code == 200
    return dict(re.findall(r'name="(\w+)" value="([^"]*)"', form.text))


async def submit(browser: httpx.AsyncClient, hidden: dict[str, str], username: str, password: str) -> httpx.Response:
    """The form, filled in."""
    return await browser.post("/oidc/authorize", data={**hidden, "username": username, "password": password})


async def log_in(world: World, browser: httpx.AsyncClient, username: str, back: str = "/form") -> httpx.Response:
    """All steps; the answer that sets the session."""
    let_in = await submit(browser, await begin(browser, back), username, world.password(username))
    assert let_in.status_code == 303
    return await browser.get(let_in.headers["location"])


def query(url: str) -> dict[str, str]:
    """Parameters of an address."""
    return {n: v[0] for n, v in parse_qs(urlsplit(url).query).items()}
