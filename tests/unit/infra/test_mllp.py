"""MLLP: blocks out of a stream, the listener's limits, and the client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID as Use
from hypothesis import given, settings
from hypothesis import strategies as st

from infra import tls
from infra.mllp import Frames, Limits, MllpClient, MllpServer, Peer, frame
from infra.stack.trial_ca import authority, issue
from schemas.errors import Invalid, Transient

HOST = "127.0.0.1"
CONTENT = st.binary(max_size=200).map(lambda b: b.replace(b"\x0b", b"").replace(b"\x1c", b""))


@settings(max_examples=100, deadline=None)
@given(st.lists(CONTENT, max_size=5), st.integers(1, 40), st.sampled_from([b"", b"\r", b"\n", b"\r\n noise"]))
def test_blocks_come_out_as_they_went_in_however_they_are_cut(messages: list[bytes], size: int, between: bytes) -> None:
    stream = b"".join(between + frame(m) for m in messages)
    frames = Frames(1000)
    found = [m for i in range(0, len(stream), size) for m in frames.feed(stream[i : i + size])]
    assert found == messages
    assert not frames.begun


def test_an_end_without_its_carriage_return_is_an_end() -> None:
    assert Frames(100).feed(b"\x0bone\x1c\x0btwo\x1c\r") == [b"one", b"two"]


def test_limits_of_blocks() -> None:
    assert Frames(10).feed(frame(b"x" * 10)) == [b"x" * 10]
    with pytest.raises(Invalid, match="at most 10"):
        Frames(10).feed(frame(b"x" * 11))
    begun = Frames(10)
    assert begun.feed(b"\x0b" + b"x" * 6) == []
    assert begun.begun
    with pytest.raises(Invalid, match="at most 10"):
        begun.feed(b"x" * 6)
    with pytest.raises(Invalid, match="no block"):
        Frames(10).feed(b"GET / HTTP/1.1\r\n")
    with pytest.raises(Invalid, match="0x1C"):
        frame(b"a\x1cb")


@asynccontextmanager
async def listening(
    answer: Callable[[bytes, Peer], Awaitable[bytes | None]],
    limits: Limits | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[MllpServer]:
    server = MllpServer(answer, limits, context)
    await server.start(HOST, 0)
    try:
        yield server
    finally:
        await server.close(1.0)


async def echo(message: bytes, peer: Peer) -> bytes:
    return b"ACK " + message


def test_messages_of_one_connection_are_answered_in_their_order() -> None:
    async def run() -> None:
        async with listening(echo) as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            writer.write(b"".join(frame(b"%d" % i) for i in range(50)))
            frames, found = Frames(100), list[bytes]()
            while len(found) < 50:
                found += frames.feed(await reader.read(100))
            assert found == [b"ACK %d" % i for i in range(50)]
            writer.close()

    asyncio.run(run())


def test_a_client_keeps_its_connection_and_makes_a_new_one_when_it_was_closed() -> None:
    peers = []

    async def note(message: bytes, peer: Peer) -> bytes | None:
        peers.append(peer.address)
        return None if message == b"close" else message

    async def run() -> None:
        async with listening(note) as server:
            client = MllpClient(HOST, server.port, timeout_s=5)
            assert await client.send(b"1") == b"1"
            assert await asyncio.gather(*(client.send(b"%d" % i) for i in range(9))) == [b"%d" % i for i in range(9)]
            with pytest.raises(Transient, match="EOFError"):
                await client.send(b"close")
            assert await client.send(b"2") == b"2"
            await client.close()
            gone = server.port
        with pytest.raises(Transient, match="ConnectionRefused"):
            await MllpClient(HOST, gone, timeout_s=1).send(b"x")

    asyncio.run(run())
    assert set(peers) == {HOST}


def test_an_answer_that_comes_too_late_is_not_the_next_ones() -> None:
    release = asyncio.Event()

    async def slow(message: bytes, peer: Peer) -> bytes:
        if message == b"slow":
            await release.wait()
        return message

    async def run() -> None:
        async with listening(slow) as server:
            client = MllpClient(HOST, server.port, timeout_s=0.05)
            with pytest.raises(Transient, match="Timeout"):
                await client.send(b"slow")
            release.set()
            assert await client.send(b"next") == b"next"
            await client.close()

    asyncio.run(run())


def test_who_is_too_many_too_slow_or_no_mllp_is_closed_and_others_go_on() -> None:
    async def run() -> None:
        limits = Limits(connections_max=2, connections_max_address=2, message_s=0.1, message_bytes_max=100)
        async with listening(echo, limits) as server:
            slow = await asyncio.open_connection(HOST, server.port)
            slow[1].write(b"\x0bMSH|")
            wrong = await asyncio.open_connection(HOST, server.port)
            await asyncio.sleep(0)
            third = await asyncio.open_connection(HOST, server.port)
            assert await third[0].read() == b""
            wrong[1].write(b"x" * 200)
            with suppress(ConnectionError):  # closed with data unread: an end, or a reset
                assert await wrong[0].read() == b""
            assert await slow[0].read() == b""
            client = MllpClient(HOST, server.port)
            assert await client.send(b"fine") == b"ACK fine"
            await client.close()
            for _, writer in (slow, wrong, third):
                writer.close()

    asyncio.run(run())


def test_a_fault_closes_its_connection_without_an_answer() -> None:
    async def broken(message: bytes, peer: Peer) -> bytes:
        raise ValueError(message)

    async def run() -> None:
        async with listening(broken) as server:
            with pytest.raises(Transient):
                await MllpClient(HOST, server.port).send(b"x")

    asyncio.run(run())


def test_closing_lets_what_is_being_answered_have_its_answer() -> None:
    async def run() -> None:
        arrived, go = asyncio.Event(), asyncio.Event()

        async def wait(message: bytes, peer: Peer) -> bytes:
            arrived.set()
            await go.wait()
            return message

        server = MllpServer(wait)
        await server.start(HOST, 0)
        client, idle = MllpClient(HOST, server.port), await asyncio.open_connection(HOST, server.port)
        sent = asyncio.create_task(client.send(b"x"))
        await arrived.wait()
        closing = asyncio.create_task(server.close(5.0))
        assert await idle[0].read() == b""
        go.set()
        assert await sent == b"x"
        await closing
        await client.close()
        idle[1].close()

    asyncio.run(run())


def test_with_tls_both_prove_who_they_are(tmp_path: Path) -> None:
    ca_pair = authority(tmp_path)
    for name, hosts, use in (("server", (HOST,), Use.SERVER_AUTH), ("client", (), Use.CLIENT_AUTH)):
        certificate, key = issue(ca_pair, name, hosts, use)
        (tmp_path / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.key").write_bytes(plain)
    seen = []

    async def note(message: bytes, peer: Peer) -> bytes:
        seen.append(peer.certificate)
        return message

    async def run() -> None:
        ca, door, who = (str(tmp_path / n) for n in ("ca.pem", "server.pem", "client.pem"))
        context = tls.server(door, str(tmp_path / "server.key"), ca)
        async with listening(note, context=context) as server:
            trusting = ssl.create_default_context(cafile=ca)
            with pytest.raises(Transient):
                await MllpClient(HOST, server.port, tls=trusting, timeout_s=5).send(b"nobody")
            trusting.load_cert_chain(who, str(tmp_path / "client.key"))
            client = MllpClient(HOST, server.port, tls=trusting)
            assert await client.send(b"proved") == b"proved"
            await client.close()

    asyncio.run(run())
    assert len(seen) == 1
    assert len(seen[0]) == 64
