"""Associations that the archive opens, to peers that behave badly: each wait ends, and only Refused comes out."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom import AE, evt

from infra.ae_table import Ae
from infra.dicom_command import store_command
from infra.dicom_scu import Outgoing, Proposed, Refused, Waits

CT, EXPLICIT, IMPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
SHORT = Waits(connect_s=2.0, acse_s=0.5, network_s=0.5, dimse_s=0.5)
PROPOSED = [Proposed(CT, (EXPLICIT,)), Proposed(CT, (IMPLICIT,))]


@contextmanager
def peer(serve: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    """A listener that serves one connection after another."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    connection.settimeout(5)
                    serve(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[:2]
    finally:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(6)


def calling(address: tuple[str, int]) -> Outgoing:
    return Outgoing(Ae("DEST", *address), "SIJIL", SHORT)


def associate(address: tuple[str, int]) -> None:
    with calling(address) as association:
        association.associate(PROPOSED)


def says(answer: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    return serve


@pytest.mark.parametrize(
    "serve",
    [
        lambda c: None,  # closes at once
        lambda c: time.sleep(1.0),  # says nothing
        says(struct.pack(">BBIBBBB", 3, 0, 4, 0, 2, 3, 2)),  # rejects for a while
        says(struct.pack(">BBIBBBB", 7, 0, 4, 0, 0, 2, 0)),  # aborts
        says(struct.pack(">BBI", 2, 0, 1 << 31)),  # an answer of two gigabytes
        says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ],
)
def test_no_association(serve: Callable[[socket.socket], None]) -> None:
    with peer(serve) as address:
        started = time.monotonic()
        with pytest.raises(Refused):
            associate(address)
        assert time.monotonic() - started < 5


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()[:2]
    with pytest.raises(Refused):
        associate(address)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([2, 3, 4, 7, 200]))
def test_no_answer_breaks_the_client(body: bytes, kind: int) -> None:
    answer = struct.pack(">BBI", kind, 0, len(body)) + body
    # What passes for an acceptance may accept nothing.
    with (
        peer(says(answer)) as address,
        suppress(Refused),
        calling(address) as association,
    ):
        association.associate(PROPOSED)
        assert association.contexts == []


@contextmanager
def receiver(answer: Callable[[Any], int]) -> Iterator[tuple[str, int]]:
    """pynetdicom as the SCP of storage."""
    ae = AE("DEST")
    ae.add_supported_context(CT, [EXPLICIT])
    handlers: Any = [(evt.EVT_C_STORE, answer)]
    server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[:2]
    finally:
        server.shutdown()


def store(address: tuple[str, int], pieces: Iterable[bytes]) -> int:
    with calling(address) as association:
        association.associate(PROPOSED)
        (context,) = association.contexts
        assert (context.transfer_syntax, context.as_scu) == (EXPLICIT, True)
        message_id = association.next_id()
        return association.ask(context, message_id, store_command(message_id, CT, "1.2.3"), pieces)


def test_a_dataset_in_odd_pieces_arrives_whole() -> None:
    got: list[bytes] = []

    def keep(event: Any) -> int:
        got.append(event.request.DataSet.getvalue())
        return 0xB000

    data = bytes(n % 251 for n in range(100_001)) + b"\0"
    with receiver(keep) as address:
        assert store(address, [data[:1], data[1:40_002], data[40_002:40_005], b"", data[40_005:]]) == 0xB000
    assert got == [data]


def test_a_receiver_that_never_answers() -> None:
    def sleep(_: Any) -> int:
        time.sleep(1.5)
        return 0

    with receiver(sleep) as address, pytest.raises(Refused):
        store(address, [b"\0" * 10])


def test_what_the_source_raises_comes_through_and_aborts() -> None:
    def broken() -> Iterator[bytes]:
        yield b"\0" * 100_000
        raise KeyError("the pack is gone")

    with receiver(lambda _: 0) as address, pytest.raises(KeyError):
        store(address, broken())
