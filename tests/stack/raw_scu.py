"""A C-STORE sender by hand (PS3.8 §9.3, PS3.7 §9.3.1): one context, and every byte as the test wants it."""

from __future__ import annotations

import socket
import struct
from types import TracebackType

from tests.unit.producers.samples import CT, EXPLICIT_LE


def pdata(*values: bytes, context: int = 1) -> bytes:
    """A P-DATA-TF of presentation data values, each with its message control header."""
    items = b"".join(struct.pack(">IB", len(v) + 1, context) + v for v in values)
    return struct.pack(">BBI", 4, 0, len(items)) + items


def command(sop: str, sop_class: str = CT) -> bytes:
    """A C-STORE-RQ as the one fragment of its command set."""

    def element(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHI", 0, number, len(value)) + value

    return b"\x03" + b"".join(
        (
            element(0x0002, sop_class.encode()),
            element(0x0100, struct.pack("<H", 1)),
            element(0x0110, struct.pack("<H", 5)),
            element(0x0700, struct.pack("<H", 0)),
            element(0x0800, struct.pack("<H", 1)),
            element(0x1000, sop.encode()),
        )
    )


class RawScu:
    """An association as a context manager. Raises OSError when it is refused or breaks."""

    def __init__(self, port: int, *, called: str = "SIJIL", timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket.sendall(associate_request(called))
            kind, _ = self.pdu()
        except OSError:
            self.socket.close()
            raise
        if kind != 2:
            self.socket.close()
            raise ConnectionError("the association is rejected")

    def __enter__(self) -> RawScu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def pdu(self) -> tuple[int, bytes]:
        """The next PDU: its type and what is behind its length."""
        kind, _, length = struct.unpack(">BBI", self._read(6))
        return kind, self._read(length)

    def store(self, sop: str, data: bytes, *, pdu_bytes: int = 16384) -> int:
        """One C-STORE of a CT; its status."""
        self.socket.sendall(pdata(command(sop)))
        for at in range(0, len(data), pdu_bytes):
            last = at + pdu_bytes >= len(data)
            self.socket.sendall(pdata((b"\x02" if last else b"\x00") + data[at : at + pdu_bytes]))
        return self.status()

    def status(self) -> int:
        """Of the next C-STORE-RSP."""
        kind, body = self.pdu()
        if kind != 4:
            raise ConnectionError("the association is aborted")
        at = body.index(struct.pack("<HHI", 0, 0x0900, 2)) + 8
        return int(struct.unpack_from("<H", body, at)[0])

    def release(self) -> None:
        """A-RELEASE, and its answer."""
        self.socket.sendall(struct.pack(">BBII", 5, 0, 4, 0))
        assert self.pdu()[0] == 6

    def _read(self, length: int) -> bytes:
        found = b""
        while len(found) < length:
            more = self.socket.recv(length - len(found))
            if not more:
                raise ConnectionError("closed by the archive")
            found += more
        return found


def associate_request(called: str) -> bytes:
    def item(kind: int, body: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(body)) + body

    context = struct.pack(">BBBB", 1, 0, 0, 0) + item(0x30, CT.encode()) + item(0x40, EXPLICIT_LE.encode())
    user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3")
    body = struct.pack(">HH", 1, 0) + called.encode().ljust(16) + b"RAW".ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context) + item(0x50, user)
    return struct.pack(">BBI", 1, 0, len(body)) + body
