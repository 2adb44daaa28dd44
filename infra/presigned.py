"""Ranges of objects over kept-alive connections, for the read path that has to be quick.

A GET through boto3 costs a signature and a thread; here a URL is signed once per object (the Range header need not be
signed) and aiohttp fetches as many ranges by it as are asked for.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from weakref import WeakKeyDictionary

import aiohttp

from infra import clock
from infra.s3 import of_answer
from schemas.errors import Defect, SijilError, Transient

URL_VALID_S = 3600
URLS_MAX = 4096
CONNECTIONS_MAX = 64
CHUNK_BYTES = 256 * 1024
ATTEMPTS = 3
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=3.0, sock_read=30.0)

Address = tuple[str, str, str]
"""Bucket, key, version."""

_CODE = re.compile(rb"<Code>([A-Za-z0-9]+)</Code>")


class Presigned:
    """Signs by `sign(address, seconds)`; has an HTTP session for each event loop that asks."""

    def __init__(self, sign: Callable[[Address, int], str], ca_file: str = "") -> None:
        self._sign, self._ca_file = sign, ca_file
        self._lock = threading.Lock()
        self._urls: OrderedDict[Address, tuple[float, str]] = OrderedDict()
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = WeakKeyDictionary()

    def url(self, address: Address) -> str:
        """A URL with at least half of its time left."""
        now = clock.monotonic()
        with self._lock:
            until, url = self._urls.get(address, (0.0, ""))
            if until < now:
                url = self._sign(address, URL_VALID_S)
                self._urls[address] = (now + URL_VALID_S / 2, url)
                if len(self._urls) > URLS_MAX:
                    self._urls.popitem(last=False)
        return url

    async def stream(self, address: Address, offset: int, length: int) -> AsyncIterator[bytes]:
        """`length` bytes in chunks. A broken connection is taken up again where it broke.

        Raises NotFound, or Transient after `ATTEMPTS` breaks; Defect if the object ends before its bytes do.
        """
        end = offset + length
        attempt = 0
        while offset < end:
            try:
                async with aclosing(self._get(address, offset, end)) as chunks:
                    async for chunk in chunks:
                        offset += len(chunk)
                        yield chunk
            except (aiohttp.ClientError, TimeoutError, OSError, Transient) as e:
                attempt += 1
                if attempt == ATTEMPTS:
                    raise Transient(f"s3: get {address[0]}/{address[1]}: {type(e).__name__}") from e
                await asyncio.sleep(0.05 * attempt)

    async def _get(self, address: Address, offset: int, end: int) -> AsyncGenerator[bytes, None]:
        headers = {"Range": f"bytes={offset}-{end - 1}"}
        async with self._session().get(self.url(address), headers=headers) as answer:
            if answer.status != 206:
                raise await _refusal(answer, address)
            if answer.content_length != end - offset:
                raise Defect(f"s3: {address[0]}/{address[1]} ends before byte {end}")
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                yield chunk

    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.closed:
            trust = ssl.create_default_context(cafile=self._ca_file) if self._ca_file else True
            connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, ssl=trust)
            session = aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, auto_decompress=False)
            self._sessions[loop] = session
        return session

    async def close(self) -> None:
        """Close the session of the running loop."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()


async def _refusal(answer: aiohttp.ClientResponse, address: Address) -> SijilError:
    code = _CODE.search(await answer.content.read(4096))
    name = code[1].decode() if code else ""
    return of_answer(answer.status, name)(f"s3: get {address[0]}/{address[1]}: {answer.status} {name}")
