"""The endpoint of a subscriber, by HTTP: taken is a 2xx, and nothing else.

No redirect is followed (it would lead away from what was approved), no cookie is kept, no answer is read.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Final, Protocol

import aiohttp
import msgspec

from consumers.delivery.entry import Away
from consumers.fhir.codes import MEDIA_TYPE, Resource

RETRY_AFTER_MOST_S: Final = 3600.0


class Receiver(Protocol):
    """Where notifications go."""

    async def send(
        self, endpoint: str, headers: Sequence[tuple[str, str]], bundle: Resource, key: str, timeout_s: float
    ) -> None:
        """Hand a bundle over; `key` names it at every attempt. Raises Away."""

    async def close(self) -> None:
        """Let go of connections."""


class RestHook:
    """A receiver by HTTP. `ca_file`: PEM of the CAs; empty: the system's."""

    def __init__(self, ca_file: str = "") -> None:
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context(cafile=self._ca_file) if self._ca_file else True
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, limit=2), cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    async def send(
        self, endpoint: str, headers: Sequence[tuple[str, str]], bundle: Resource, key: str, timeout_s: float
    ) -> None:
        """See Receiver. What goes wrong is a code: an exception's text may hold the address, and that a secret."""
        named = {"Content-Type": MEDIA_TYPE, "Idempotency-Key": key, "X-Request-Id": key}
        try:
            async with self._opened().post(
                endpoint,
                data=msgspec.json.encode(bundle),
                headers={**dict(headers), **named},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as answer:
                status, after = answer.status, answer.headers.get("Retry-After", "")
        except TimeoutError:
            raise Away("no-answer-in-time") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise Away("not-reachable") from None
        if 300 <= status < 400:
            raise Away("redirect-not-followed")
        if not 200 <= status < 300:
            raise Away(
                f"http-{status}", min(float(after), RETRY_AFTER_MOST_S) if after.isascii() and after.isdigit() else 0
            )

    async def close(self) -> None:
        """See Receiver."""
        if self._session is not None:
            await self._session.close()
            self._session = None
