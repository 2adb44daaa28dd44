"""MLLP: HL7 v2 messages over TCP, one block each: 0x0B, the message, 0x1C, 0x0D (HL7 v2.5.1 App. C.2, MLLP Release 1).

A message is answered before the next of its connection is read, so the order in which a sender sent is kept. Nobody is
answered by the framing itself: a connection that breaks, or is closed, without an answer makes the sender send again.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections import Counter as Tally
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from infra import telemetry
from schemas.errors import Invalid, SijilError, Transient

log = telemetry.logger(__name__)

START, END = b"\x0b", b"\x1c\x0d"
PIECE_BYTES = 1 << 16
MB = 1 << 20
HANDSHAKE_S = 10.0

CONNECTIONS = telemetry.Counter("sijil_mllp_connections", "MLLP connections by how they ended", ["outcome"])


def frame(message: bytes) -> bytes:
    """The block that carries a message. Raises Invalid(`mllp-content`) where it holds a block's own bytes: those of
    UTF-16 and UTF-32 may, and no receiver could tell.
    """
    if START in message or END[:1] in message:
        raise Invalid("mllp-content", "a message cannot hold 0x0B or 0x1C")
    return START + message + END


class Frames:
    """Blocks out of pieces of a stream. What stands between blocks is skipped (some send an LF more, or no CR)."""

    def __init__(self, message_bytes_max: int) -> None:
        self._max = message_bytes_max
        self._buffer = bytearray()
        self._inside = False
        self._skipped = 0

    @property
    def begun(self) -> bool:
        """Whether a block has begun and not ended."""
        return self._inside

    def feed(self, piece: bytes) -> list[bytes]:
        """The messages that this piece completes. Raises Invalid(`mllp-too-long`, `mllp-no-block`)."""
        found = []
        self._buffer += piece
        while self._buffer:
            if not self._inside:
                begin = self._buffer.find(START)
                self._skipped += begin if begin >= 0 else len(self._buffer)
                if self._skipped > self._max:
                    raise Invalid("mllp-no-block", "this is no MLLP: no block begins")
                del self._buffer[: begin + 1 if begin >= 0 else len(self._buffer)]
                self._inside = begin >= 0
                continue
            # Only what is new can hold the end: a large message is not searched again with every piece.
            end = self._buffer.find(END[:1], max(0, len(self._buffer) - len(piece) - 1))
            if (end if end >= 0 else len(self._buffer)) > self._max:
                raise Invalid("mllp-too-long", f"a message has at most {self._max} bytes")
            if end < 0:
                break
            found.append(bytes(self._buffer[:end]))
            del self._buffer[: end + 1]
            self._inside, self._skipped, piece = False, 0, bytes(self._buffer)
        return found


@dataclass(frozen=True)
class Peer:
    """Who is at the other end."""

    address: str
    certificate: str = ""
    """SHA-256 (hex) of the certificate it proved itself with; empty: none."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one listener bears. Times in seconds."""

    message_bytes_max: int = 32 * MB
    connections_max: int = 128
    connections_max_address: int = 32
    idle_s: float = 24 * 3600.0
    """Between messages: systems keep their connections open, also over night."""
    message_s: float = 60.0
    """From a message's first byte to its last, and for taking an answer."""


Answer = Callable[[bytes, Peer], Awaitable[bytes | None]]
"""Message and peer → its acknowledgement; None closes the connection without one. Raising closes it, too."""


class MllpServer:
    """Listens for MLLP, plain or with TLS."""

    def __init__(self, answer: Answer, limits: Limits | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._answer, self._limits, self._tls = answer, limits or Limits(), tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.Task[None]] = set()
        self._of: Tally[str] = Tally()
        self._server: asyncio.Server | None = None
        self._closing = False
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Accept connections from now on. OSError if the port is taken; 0 takes a free one, see `port`."""
        handshake_s = HANDSHAKE_S if self._tls else None
        self._server = await asyncio.start_server(
            self._accept, host, port, limit=PIECE_BYTES, ssl=self._tls, ssl_handshake_timeout=handshake_s
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self, grace_s: float) -> None:
        """Accept no more, close what is idle, and let what is being answered have its answer, `grace_s` at most."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        for task in tuple(self._idle):
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs each connection in a task of its own
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        peer = _peer(writer)
        outcome = "too-many"
        self._of[peer.address] += 1
        try:
            many = len(self._tasks) > self._limits.connections_max
            if not many and self._of[peer.address] <= self._limits.connections_max_address:
                outcome = await self._serve(reader, writer, peer, task)
        except Invalid as broken:
            outcome = broken.reason
        except (OSError, EOFError, TimeoutError) as error:
            outcome = type(error).__name__
        except SijilError as error:
            outcome = "not-answered"
            log.warning("mllp message not answered", address=peer.address, reason=str(error))
        except asyncio.CancelledError:
            outcome = "closed-by-us"
        except Exception as error:  # noqa: BLE001 - one connection's fault: it is logged, and the sender sends again
            outcome = "failed"
            log.error("mllp message not answered", address=peer.address, error=error)
        finally:
            CONNECTIONS.labels(outcome).inc()
            self._of[peer.address] -= 1
            if not self._of[peer.address]:
                del self._of[peer.address]
            writer.close()
            with suppress(OSError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer, task: asyncio.Task[None]
    ) -> str:
        frames = Frames(self._limits.message_bytes_max)
        loop = asyncio.get_running_loop()
        due = loop.time() + self._limits.idle_s
        while not self._closing:
            self._idle.add(task)
            try:
                async with asyncio.timeout_at(due):
                    piece = await reader.read(PIECE_BYTES)
            finally:
                self._idle.discard(task)
            if not piece:
                return "cut-short" if frames.begun else "closed"
            had_begun = frames.begun
            messages = frames.feed(piece)
            for message in messages:
                answer = await self._answer(message, peer)
                if answer is None:
                    return "not-answered"
                async with asyncio.timeout(self._limits.message_s):
                    writer.write(frame(answer))
                    await writer.drain()
            if not frames.begun:
                due = loop.time() + self._limits.idle_s
            elif messages or not had_begun:
                due = loop.time() + self._limits.message_s
        return "closed-by-us"


def _peer(writer: asyncio.StreamWriter) -> Peer:
    name = writer.get_extra_info("peername")
    proved = writer.get_extra_info("ssl_object")
    certificate = proved.getpeercert(binary_form=True) if proved is not None else None
    return Peer(name[0] if name else "", hashlib.sha256(certificate).hexdigest() if certificate else "")


class MllpClient:
    """Sends messages to one receiver over one connection, kept open; one at a time, in the order of `send`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 30.0,
        answer_bytes_max: int = MB,
    ) -> None:
        """`timeout_s`: for connecting and sending, and again for the acknowledgement."""
        self._host, self._port, self._tls = host, port, tls
        self._timeout_s, self._answer_bytes_max = timeout_s, answer_bytes_max
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, message: bytes) -> bytes:
        """The acknowledgement of a message. Raises Transient when none comes: whether it was taken is not known then,
        so send the same again; Invalid(`mllp-content`) for what no block can carry.
        """
        block = frame(message)
        async with self._lock:
            try:
                async with asyncio.timeout(self._timeout_s):
                    reader, writer = await self._connected()
                    writer.write(block)
                    await writer.drain()
                async with asyncio.timeout(self._timeout_s):
                    return await self._answer(reader)
            except (OSError, EOFError, TimeoutError) as error:
                self._drop()
                raise Transient(f"no acknowledgement from {self._host}:{self._port}: {type(error).__name__}") from error
            except BaseException:
                self._drop()  # an answer that comes later would be taken for the next message's
                raise

    async def close(self) -> None:
        """Let go of the connection."""
        async with self._lock:
            self._drop()

    async def __aenter__(self) -> MllpClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and self._streams[0].at_eof():
            self._drop()  # the receiver closed it meanwhile
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        return self._streams

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        frames = Frames(self._answer_bytes_max)
        while True:
            piece = await reader.read(PIECE_BYTES)
            if not piece:
                raise EOFError
            try:
                answers = frames.feed(piece)
            except Invalid as broken:
                raise Transient(f"no acknowledgement from {self._host}:{self._port}: {broken.reason}") from broken
            if answers:
                return answers[0]

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
