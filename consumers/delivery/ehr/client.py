"""A FHIR server that is somebody else's: transactions to it, and what its answers mean.

| answer | what it means |
|---|---|
| 200, 201 | done |
| 409 | another writer was at it: the same again, a few times |
| 400, 404, 410, 412, 422 | it depends on whether it knows the patient: asked |
| 401, 403, 408, 429, 5xx, no answer | it is away, or we are not let in: later |
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from consumers.delivery.entry import Away
from consumers.fhir.codes import MEDIA_TYPE, Resource

DONE: Final = frozenset((200, 201))
CONFLICT: Final = frozenset((409,))
DEPENDS: Final = frozenset((400, 404, 410, 412, 422))
CONFLICT_TRIES: Final = 5
CONFLICT_S: Final = 0.1
ANSWER_BYTES_MAX: Final = 4 << 20
RETRY_AFTER_MAX_S: Final = 3600.0


class Unsuitable(Exception):
    """The server will not take this transaction as it is."""

    def __init__(self, status: int) -> None:
        super().__init__(f"http {status}")
        self.status = status


class FhirClient:
    """One server. `base`: its URL, without a slash at the end."""

    def __init__(self, base: str, *, token: str = "", ca_file: str = "", timeout_s: float = 30.0) -> None:
        self._base, self._timeout_s, self._ca_file = base.rstrip("/"), timeout_s, ca_file
        self._headers = {"Accept": MEDIA_TYPE, **({"Authorization": f"Bearer {token}"} if token else {})}
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            context: ssl.SSLContext | bool = True
            if self._ca_file:
                context = ssl.create_default_context(cafile=str(Path(self._ca_file)))
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, limit=16),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                headers=self._headers,
            )
        return self._session

    async def transact(self, bundle: Resource, key: str) -> None:
        """Send a transaction; `key` names it. Raises Away, Unsuitable."""
        body = msgspec.json.encode(bundle)
        named = {"Idempotency-Key": key, "X-Request-Id": key}
        headers = {"Content-Type": MEDIA_TYPE, "Prefer": "return=minimal", **named}
        for number in range(1, CONFLICT_TRIES + 1):
            status, _, after_s = await self._call("POST", "", headers, body)
            if status in DONE:
                return
            if status not in CONFLICT:
                if status in DEPENDS:
                    raise Unsuitable(status)
                raise Away(f"http-{status}", after_s)
            await asyncio.sleep(CONFLICT_S * number * (0.5 + random.random()))  # noqa: S311 (no secret)
        raise Away("http-409")

    async def count(self, search: str) -> int:
        """How many resources a search finds, 2 standing for several. Raises Away."""
        status, answer, after_s = await self._call("GET", f"/{search}&_count=2&_elements=id", {}, None)
        if status not in DONE:
            raise Away(f"http-{status}", after_s)
        try:
            found = msgspec.json.decode(answer)
            entries = [e for e in found.get("entry", []) if e.get("search", {}).get("mode", "match") == "match"]
        except (msgspec.DecodeError, AttributeError) as e:
            raise Away("answer-not-fhir") from e
        return len(entries)

    async def _call(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, bytes, float]:
        """(status, body, seconds of Retry-After). Raises Away."""
        try:
            async with self._opened().request(method, self._base + path, data=body, headers=headers) as answer:
                data = await answer.content.read(ANSWER_BYTES_MAX)
                return answer.status, data, _seconds(answer.headers.get("Retry-After", ""))
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            raise Away("no-answer-in-time" if isinstance(e, TimeoutError) else "not-reachable") from e

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _seconds(text: str) -> float:
    return min(float(text), RETRY_AFTER_MAX_S) if text.isascii() and text.isdigit() else 0.0
