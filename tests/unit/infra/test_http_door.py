"""The HTTP door: composition, problems, limits, health. Its own pages need nothing from another host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import Response, StreamingResponse

from infra import http_edge
from infra.chain import ChainedLog
from infra.http_door import HttpDoor, compose
from infra.memory import MemoryLog, MemoryObjects
from infra.settings import Settings
from schemas import errors


class Chain:
    """As much of a chain as the door itself asks for."""

    backlog = 3


def door() -> HttpDoor:
    return HttpDoor(
        Settings(loopback_role="local"), log=MemoryLog(), chain=cast(ChainedLog, Chain()), objects=MemoryObjects()
    )


def register(app: FastAPI, door: HttpDoor) -> None:
    """A room that fails in every way."""

    @app.get("/raise/{name}")
    async def fail(name: str) -> None:
        match name:
            case "Overloaded":
                raise errors.Overloaded("full", 7)
            case "Invalid":
                raise errors.Invalid("uid-invalid", "not a UID")
            case "ValueError":
                raise ValueError("CANARY")
            case _:
                raise getattr(errors, name)("CANARY" if name == "Defect" else "said")

    @app.get("/number")
    async def number(n: int) -> int:
        return n

    @app.get("/half")
    async def half() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise errors.Transient("away")

        return StreamingResponse(pieces())

    @app.post("/small")
    @app.post("/large/any")
    async def take(request: Request) -> int:
        return len(await request.body())

    door.gate.open("/raise/{name}", "/number", "/half", "/small", "/large/any")
    door.body_limit("/large", None)
    door.body_limit("/small", 1000)


Asked = Callable[[httpx.AsyncClient], Coroutine[Any, Any, httpx.Response]]


def ask(call: Asked, given: HttpDoor | None = None) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(compose(given or door(), [register]), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://sijil.test") as client:
            return await call(client)

    return asyncio.run(run())


def get(path: str, given: HttpDoor | None = None) -> httpx.Response:
    return ask(lambda client: client.get(path), given)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("Invalid", 400),
        ("Permanent", 400),
        ("NotFound", 404),
        ("Transient", 503),
        ("Overloaded", 503),
        ("Defect", 500),
        ("SijilError", 500),
        ("ValueError", 500),
    ],
)
def test_an_error_is_the_problem_of_its_nearest_class(name: str, status: int) -> None:
    answer = get(f"/raise/{name}")
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert "CANARY" not in answer.text
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_what_a_problem_says() -> None:
    assert get("/raise/Invalid").json()["reason"] == "uid-invalid"
    assert get("/raise/Overloaded").headers["Retry-After"] == "7"
    assert get("/nowhere").json()["status"] == 404
    assert ask(lambda client: client.delete("/number")).status_code == 405
    refused = get("/number?n=CANARY")
    assert (refused.status_code, refused.json()["faults"]) == (400, [{"at": "query.n", "rule": "int_parsing"}])
    assert "CANARY" not in refused.text


def test_no_query_string_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for path in ("/number?n=CANARY", "/raise/Defect?PatientName=CANARY", "/nowhere?PatientName=CANARY"):
            get(path)
    assert not [r for r in caplog.records if "CANARY" in r.getMessage() and r.name.startswith(("infra", "uvicorn"))]


def test_limits() -> None:
    assert get("/number?n=" + "1" * http_edge.TARGET_MAX).status_code == 414
    assert ask(lambda client: client.post("/small", content=b"x" * 1000)).json() == 1000
    too_large = ask(lambda client: client.post("/small", content=b"x" * 1001))
    assert (too_large.status_code, too_large.json()["limit_bytes"]) == (413, 1000)
    assert ask(lambda client: client.post("/large/any", content=b"x" * (3 << 20))).json() == 3 << 20

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    assert ask(lambda client: client.post("/small", content=pieces())).status_code == 413


def test_a_request_that_stops_coming_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_edge, "IDLE_S", 0.05)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(0.5)
        yield b"x"

    assert ask(lambda client: client.post("/large/any", content=pieces())).status_code == 408


def test_an_answer_that_fails_half_way_is_not_completed() -> None:
    async def run() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        requests = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not requests:
                await asyncio.sleep(60)
            return requests.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/half", "raw_path": b"/half", "query_string": b""}
        app = compose(door(), [register])
        with pytest.raises(RuntimeError):  # the server closes the connection
            await app({**scope, "headers": [], "http_version": "1.1", "scheme": "http"}, receive, send)
        return sent

    sent = asyncio.run(run())
    assert sent[0]["status"] == 200
    assert all(m.get("more_body") for m in sent[1:])


def test_ready_tells_what_is_missing_and_what_waits() -> None:
    given = door()
    given.readiness("kafka", lambda: True)
    given.backlog("spool_backlog", lambda: 2)
    answer = get("/health/ready", given)
    assert (answer.status_code, answer.json()) == (
        200,
        {"ready": True, "checks": {"kafka": True}, "chain_backlog": 3, "spool_backlog": 2},
    )
    given.readiness("cassandra", lambda: "not reachable")
    answer = get("/health/ready", given)
    assert (answer.status_code, answer.json()["checks"]) == (503, {"kafka": True, "cassandra": False})
    assert answer.json()["reasons"] == {"cassandra": "not reachable"}
    assert get("/health/live").json() == {"live": True}


def test_metrics_name_routes_not_addresses() -> None:
    get("/raise/CANARY")
    text = get("/metrics").text
    assert 'sijil_http_requests_total{method="GET",route="/raise/{name}"' in text
    assert "CANARY" not in text


@pytest.mark.parametrize("path", ["/docs"])
def test_pages_stand_alone(path: str) -> None:
    answer = get(path)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for outside in ("<script", "src=", "https://", "@import"):
        assert outside not in answer.text


def test_what_was_started_is_stopped_also_when_a_start_fails() -> None:
    given, seen = door(), list[str]()

    async def note(text: str) -> None:
        seen.append(text)
        if text.startswith("broken"):
            raise RuntimeError(text)

    given.on_start(lambda: note("one"))
    given.on_start(lambda: note("broken start"))
    given.on_start(lambda: note("never"))
    given.on_stop(lambda: note("last"))
    given.on_stop(lambda: note("broken stop"))

    async def run() -> None:
        async with given.lifespan(FastAPI()):
            raise AssertionError

    with pytest.raises(RuntimeError, match="broken start"):
        asyncio.run(run())
    assert seen == ["one", "broken start", "broken stop", "last"]
