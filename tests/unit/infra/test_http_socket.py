"""What a hostile or broken peer can do to the HTTP door at its socket."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from typing import Any, cast

import pytest
from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from infra import http_edge, http_protocol
from infra.http_caller import header, permission_of
from infra.http_door import HttpDoor
from infra.http_perimeter import ALWAYS
from infra.settings import Settings
from schemas.caller import Caller
from schemas.roles import DEFAULT_PURPOSE, Role
from tests.unit.infra.web_server import connect, rest, serving, status

WHOLE = b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n"


class ByHeader:
    """An authenticator that believes a header."""

    async def caller(self, scope: Scope) -> Caller | None:
        """Whom the header names."""
        actor = header(scope, "actor")
        role = Role.LOCAL if actor == "local" else Role.RADIOLOGIST
        return Caller(actor, role, DEFAULT_PURPOSE[role]) if actor else None


def register(app: FastAPI, door: HttpDoor) -> None:
    """Answers of every kind."""

    @app.get("/small")
    @app.get("/health/any")
    async def small() -> str:
        return "small"

    @app.get("/page")
    async def page() -> Response:
        return HTMLResponse("<p>")

    @app.get("/own")
    async def own() -> Response:
        return HTMLResponse(
            "<p>", headers={"Content-Security-Policy": "default-src 'self'", "Cache-Control": "private"}
        )

    @app.get("/away")
    async def away() -> Response:
        return RedirectResponse("/small")

    @app.get("/fault")
    async def fault() -> None:
        raise ValueError

    @app.get("/large")
    async def large() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(1000):
                yield b"x" * (1 << 16)

        return StreamingResponse(pieces())

    @app.get("/heap")
    async def heap() -> Response:
        return Response(b"x" * (64 << 20))

    @app.post("/take")
    @app.post("/dicom-web/studies")
    async def take(request: Request) -> int:
        return len(await request.body())

    @app.post("/ignore")
    async def ignore() -> str:
        return "not read"

    door.body_limit("/take", None)
    door.gate.open(*(cast(Route, r).path for r in app.routes if permission_of(r) is None))


def ask(
    port: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    connection.request(method, path, body, dict(headers or {}))
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@pytest.fixture(scope="module")
def port() -> Any:
    with serving(register) as found:
        yield found


# ------------------------------------------------------------------------------------------------ headers


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/small", "GET", 200),
        ("/page", "GET", 200),
        ("/own", "GET", 200),
        ("/away", "GET", 307),
        ("/fault", "GET", 500),
        ("/nowhere", "GET", 404),
        ("/small", "DELETE", 405),
        ("/?" + "x" * http_edge.TARGET_MAX, "GET", 414),
        ("/conformance", "GET", 200),
        ("/docs", "GET", 200),
        ("/openapi.json", "GET", 200),
        ("/metrics", "GET", 401),
    ],
)
def test_every_answer_is_safe_to_show(port: int, path: str, method: str, expected: int) -> None:
    answer = ask(port, path, method=method)
    assert answer.status == expected
    for name, value in ALWAYS.items():
        assert answer.headers.get_all(name) == [value]
    (policy,) = answer.headers.get_all("Content-Security-Policy") or []
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy or path == "/own"
    assert ("script-src 'self'" in policy) == (path == "/page"), "only a page may run anything"
    assert answer.headers["Cache-Control"] == ("private" if path == "/own" else "no-store")
    assert "Server" not in answer.headers
    assert "Strict-Transport-Security" not in answer.headers, "that would be believed on http by nobody"


def test_behind_https_it_stays_https() -> None:
    with serving(register, Settings(http_public_url="https://sijil.example")) as found:
        assert (
            "max-age=" in ask(found, "/small", headers={"Host": "sijil.example"}).headers["Strict-Transport-Security"]
        )


def test_a_trusted_proxy_says_who_calls_and_others_do_not() -> None:
    seen: list[tuple[str, str]] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            seen.append((scope["client"][0], scope["scheme"]))
            await Response("")(scope, receive, send)

    forwarded = {"X-Forwarded-For": "10.1.2.3", "X-Forwarded-Proto": "https"}
    for trusted in ("", "127.0.0.1"):
        with serving(register, Settings(http_trusted_proxies=trusted), around=note) as found:
            ask(found, "/", headers=forwarded)
    assert seen == [("127.0.0.1", "http"), ("10.1.2.3", "https")]


# ------------------------------------------------------------------------------------------------ whom, from where


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("sijil.example:443", 200),
        ("rebound.attacker.example", 421),
        ("localhost.attacker.example", 421),
        ("localhost@attacker.example", 421),
        ("localhost/../x", 421),
        ("local host", 421),
        ("", 421),
    ],
)
def test_a_door_of_this_machine_answers_to_its_own_names(host: str, expected: int) -> None:
    with serving(register, Settings(http_public_url="http://sijil.example")) as found:
        assert ask(found, "/small", headers={"Host": host}).status == expected


def test_one_host_no_more() -> None:
    with serving(register) as found, connect(found) as c:
        c.sendall(b"GET /small HTTP/1.1\r\nHost: localhost\r\nHost: attacker.example\r\n\r\n")
        assert status(rest(c)) == 421


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_no_other_origins_page_changes_anything(port: int, headers: Mapping[str, str], expected: int) -> None:
    sent = {"Host": "localhost", **headers}
    assert ask(port, "/take", method="POST", headers=sent, body=b"x").status == expected
    assert ask(port, "/small", headers=sent).status == 200, "a link to it may stand anywhere"


# ------------------------------------------------------------------------------------------------ slowly


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\r\n",
        b"GET /small HT",
        b"GET /small HTTP/1.1\r\nHost: localhost\r\nX: ",
        WHOLE + b"\r\n",
        WHOLE + b"GET /small HTTP/1.1\r\nX: ",
    ],
    ids=["nothing", "a line", "half a line", "half a field", "a line after an answer", "a second head"],
)
def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.2)
    with serving(register) as found, connect(found) as c:
        if head.startswith(WHOLE):
            c.sendall(WHOLE)
            assert status(c.recv(65536)) == 200
        c.sendall(head.removeprefix(WHOLE))
        assert status(rest(c)) == 408


def test_slow_heads_do_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.5)
    with ExitStack() as held, serving(register) as found:
        slow = [held.enter_context(connect(found)) for _ in range(200)]
        for c in slow:
            c.sendall(b"GET /small HTTP/1.1\r\nHost: localhost\r\nX: ")
        assert ask(found, "/small").status == 200
        while slow:  # each byte comes in time; the head does not
            time.sleep(0.1)
            alive = []
            for c in slow:
                try:
                    c.sendall(b"x")
                    alive.append(c)
                except OSError:
                    pass
            slow = alive
        assert ask(found, "/small").status == 200


def test_a_body_that_drips_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_edge, "IDLE_S", 0.3)
    with serving(register) as found, connect(found) as c:
        c.sendall(b"POST /take HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        sent = 0
        c.setblocking(False)
        answer = b""
        while not answer:
            time.sleep(0.05)  # each byte comes long before IDLE_S is over
            try:
                answer = c.recv(65536)
            except BlockingIOError:
                sent += c.send(b"x")
        assert status(answer) == 408
        assert sent < 100


def test_an_answer_that_nobody_takes_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_edge, "IDLE_S", 0.3)
    monkeypatch.setattr(http_protocol, "STUCK_S", 0.3)
    for path in (b"/large", b"/heap"):
        before = http_protocol.REFUSED.labels("answer-not-taken")._value.get()
        with serving(register) as found, connect(found) as c:
            c.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            time.sleep(1.5)
            answer = rest(c)
            assert status(answer) == 200
            assert len(answer) < 32 << 20, "what the kernel held, and not the rest"
        if path == b"/heap":
            assert http_protocol.REFUSED.labels("answer-not-taken")._value.get() > before


# ------------------------------------------------------------------------------------------------ without measure


@pytest.mark.parametrize("how", ["field", "fields", "target", "trailer", "extension"])
def test_a_head_without_end_is_refused(port: int, how: str) -> None:
    chunked = b"POST /take HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    begin, more = {
        "field": (b"GET /small HTTP/1.1\r\nHost: localhost\r\nX: ", b"x" * 4096),
        "fields": (b"GET /small HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n" * 1000),
        "target": (b"GET /", b"x" * 4096),
        "trailer": (chunked + b"0\r\n", b"X: y\r\n" * 1000),
        "extension": (chunked + b"1;", b"x" * 4096),
    }[how]
    with connect(port) as c:
        c.sendall(begin)
        sent = 0
        answer = b""
        while sent < 8 << 20:
            try:
                c.sendall(more)
            except OSError:
                break
            sent += len(more)
        else:
            pytest.fail("it reads on")
        answer = rest(c)
    assert not answer or status(answer) in (414, 431)
    assert ask(port, "/small").status == 200


def test_a_body_behind_its_answer_is_not_read_for_ever(port: int) -> None:
    with connect(port) as c:
        c.sendall(b"POST /ignore HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n")
        many = b"x" * (256 << 20)
        with pytest.raises(OSError):  # noqa: PT011 (reset or broken pipe, as it happens)
            c.sendall(many)


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"POST /take HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
        b"\x01\x00\x00\x00\x00\xcd\x00\x01",
    ],
    ids=["tls", "version", "nul", "two lengths", "lengths differ", "a space", "chunk length", "a dicom association"],
)
def test_what_is_no_request_is_refused(port: int, junk: bytes) -> None:
    with connect(port) as c:
        c.sendall(junk)
        c.shutdown(socket.SHUT_WR)
        answer = rest(c)
    assert not answer or status(answer) in (400, 404, 408)
    assert b"nosniff" in answer or not answer
    assert ask(port, "/small").status == 200


def test_connections_are_counted_by_address() -> None:
    with serving(register, Settings(http_connections_max=6, http_connections_max_address=4)) as found:
        with ExitStack() as held:
            mine = [held.enter_context(connect(found)) for _ in range(4)]
            for c in mine:
                c.sendall(WHOLE)
                assert status(c.recv(65536)) == 200
            with connect(found) as c:
                refused = rest(c)
                assert status(refused) == 503
                assert b"Retry-After" in refused
            for n in (2, 3):  # another address has its own
                other = held.enter_context(socket.create_connection(("127.0.0.1", found), 15, ("127.0.0.2", 0)))
                other.sendall(WHOLE)
                assert status(other.recv(65536)) == 200, n
            last = held.enter_context(socket.create_connection(("127.0.0.1", found), 15, ("127.0.0.2", 0)))
            assert status(rest(last)) == 503
        while True:  # they are let go
            try:
                if ask(found, "/small").status == 200:
                    break
            except OSError:
                time.sleep(0.01)


# ------------------------------------------------------------------------------------------------ too often


def test_a_caller_has_a_rate_and_others_have_theirs() -> None:
    def limited(app: FastAPI, door: HttpDoor) -> None:
        register(app, door)
        door.gate.authenticators.append(ByHeader())

    rates = {"rate_reads": 0.5, "rate_stores": 1.0, "rate_changes": 0.2, "rate_anonymous": 0.3, "rate_logins": 0.1}
    with serving(limited, Settings(**rates)) as found:  # type: ignore[arg-type]

        def burst(path: str, method: str = "GET", actor: str = "", count: int = 30) -> tuple[int, set[str]]:
            headers = {"actor": actor} if actor else {}
            body = b"x" if method == "POST" else None
            answers = [ask(found, path, method=method, headers=headers, body=body) for _ in range(count)]
            assert {a.status for a in answers} <= {200, 429}
            refused = [a for a in answers if a.status == 429]
            assert all(1 <= int(a.headers["Retry-After"]) <= 10 for a in refused)
            return count - len(refused), {a.headers["Content-Type"] for a in refused}

        allowed, kinds = burst("/small", actor="person:1")
        assert 5 <= allowed < 15
        assert kinds == {"application/problem+json"}
        assert burst("/small", actor="person:2", count=5)[0] == 5, "another caller's turns are their own"
        assert burst("/small", actor="local")[0] == 30
        assert burst("/health/any")[0] == 30
        assert 3 <= burst("/small")[0] < 13
        assert 1 <= burst("/take", "POST", count=10)[0] < 5, "passwords are not guessed by the thousand"
        assert 2 <= burst("/take", "POST", "person:1", 20)[0] < 10
        assert 10 <= burst("/dicom-web/studies", "POST", "gateway:1", 25)[0] < 25
