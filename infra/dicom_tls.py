"""DICOM over TLS (PS3.15 §B.12): a port of its own whose connections are, once proved, ones of the DICOM door.

The handshake has a deadline and runs apart from the listener, so whoever does not finish it keeps nobody out. Then the
plain bytes go through a connection within this process: the door reads and writes as it does without TLS. Who
called, and with which certificate, is told along.
"""

from __future__ import annotations

import hashlib
import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress

from infra import telemetry

log = telemetry.logger(__name__)

HANDSHAKE_S = 10.0
HANDSHAKES_MAX = 64
"""Under way at once; more are closed as they come."""
PIECE_BYTES = 1 << 16
LOOK_MS = 1000
LINGER_S = 5.0
"""Once one side has ended, the other has so long to take what was left."""

HANDSHAKES = telemetry.Counter("sijil_dicom_tls_handshakes", "TLS handshakes at the DICOM door by outcome", ["outcome"])

Address = tuple[str, int]
Give = Callable[[socket.socket, Address, str], bool]
"""Gives a connection to the door: plain socket, who calls, SHA-256 of the certificate. False: it takes no more."""


class TlsFront:
    """Listens at once: OSError if the port is taken."""

    def __init__(self, address: Address, context: ssl.SSLContext, give: Give) -> None:
        self._context, self._give = context, give
        self._listener = socket.create_server(address, backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._under_way = threading.BoundedSemaphore(HANDSHAKES_MAX)
        self._closed = threading.Event()

    def start(self) -> None:
        """Accept connections."""
        threading.Thread(target=self._accept, name="dicom-tls", daemon=True).start()

    def close(self) -> None:
        """Accept no more; what is open goes on until its association ends."""
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, caller = self._listener.accept()
            except OSError:
                continue
            if not self._under_way.acquire(blocking=False):
                HANDSHAKES.labels("too-many").inc()
                connection.close()
                continue
            threading.Thread(
                target=self._serve, args=(connection, caller[:2]), name="dicom-tls-one", daemon=True
            ).start()

    def _serve(self, connection: socket.socket, caller: Address) -> None:
        try:
            connection.settimeout(HANDSHAKE_S)
            proved = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            try:
                proved.do_handshake()
            except OSError:
                proved.close()
                raise
        except OSError as error:
            HANDSHAKES.labels("refused").inc()
            log.info("tls handshake refused", address=caller[0], reason=type(error).__name__)
            connection.close()
            return
        finally:
            self._under_way.release()
        HANDSHAKES.labels("done").inc()
        certificate = proved.getpeercert(binary_form=True)
        ours, doors = _pair()
        with proved, ours:
            if self._give(doors, caller, hashlib.sha256(certificate).hexdigest() if certificate else ""):
                relay(proved, ours)
            else:
                doors.close()


def relay(proved: ssl.SSLSocket, plain: socket.socket) -> None:
    """Bytes both ways until either side ends; what was read from one is still written to the other."""
    proved.setblocking(False)
    plain.setblocking(False)
    inward, outward = bytearray(), bytearray()  # not taken yet by the door, by the peer
    poll = select.poll()
    with suppress(OSError, ssl.SSLError):
        while True:
            poll.register(proved, (select.POLLIN if not inward else 0) | (select.POLLOUT if outward else 0))
            poll.register(plain, (select.POLLIN if not outward else 0) | (select.POLLOUT if inward else 0))
            if not (proved.pending() and not inward):
                poll.poll(LOOK_MS)
            # Each piece is taken before the next is read: whoever is slow slows down the other.
            ended = (not inward and not _read(proved, inward)) or (not outward and not _read(plain, outward))
            _write(plain, inward)
            _write(proved, outward)
            if ended:
                break
    for target, left in ((plain, inward), (proved, outward)):
        with suppress(OSError, ssl.SSLError):
            target.settimeout(LINGER_S)
            target.sendall(left)
    with suppress(OSError, ssl.SSLError, ValueError):
        proved.settimeout(LINGER_S)
        proved.unwrap()


def _read(source: socket.socket, into: bytearray) -> bool:
    """False at its end."""
    try:
        piece = source.recv(PIECE_BYTES)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return True
    into += piece
    return bool(piece)


def _write(target: socket.socket, data: bytearray) -> None:
    if not data:
        return
    with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        del data[: target.send(data)]


def _pair() -> tuple[socket.socket, socket.socket]:
    """A TCP connection of this process with itself: the door sets TCP's options on its end."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        ours = socket.create_connection(listener.getsockname(), HANDSHAKE_S)
        while True:
            doors, who = listener.accept()
            if who == ours.getsockname():  # not somebody else of this machine who was faster
                return ours, doors
            doors.close()
