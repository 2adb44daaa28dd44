"""An archive in memory that takes orders, by its doors and its pages, and somebody who asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from urllib.parse import urlencode

import httpx
from starlette.types import Scope

from consumers.web import app as web
from producers import order_door
from schemas.caller import Caller
from schemas.roles import Role
from tests.unit.consumers.archive import MemoryArchive

CLERK = Caller("person:c-1", Role.CLERK, "TREAT", frozenset({"CAI-01"}), "c-1")


class Desk:
    """One process for all that is asked; what was ordered is projected after each request."""

    def __init__(self) -> None:
        self.archive = MemoryArchive()
        self.who = CLERK
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()
        doors = (web.register, order_door.register)
        client = self.archive.client(*doors, authenticator=self)
        self._client = self._runner.run(self._open.enter_async_context(client))

    async def caller(self, scope: Scope) -> Caller | None:
        """Whoever is played now, in a session of a browser."""
        scope["state"] |= {"session": "s-1", "name": "Mona"}
        return self.who

    def close(self) -> None:
        """End the process."""
        self._runner.run(self._open.aclose())
        self._runner.close()

    def send(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/fhir+json", lang: str = "en"
    ) -> httpx.Response:
        """One request."""
        headers = {"Content-Type": kind, "Accept-Language": lang}
        answer = self._runner.run(self._client.request(method, path, content=body, headers=headers))
        self.archive.ordered()
        return answer

    def submit(self, path: str, fields: Mapping[str, str]) -> httpx.Response:
        """A form."""
        return self.send("POST", path, urlencode(fields).encode(), "application/x-www-form-urlencoded")
