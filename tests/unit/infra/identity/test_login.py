"""Log-in of browsers and services at the embedded issuer, and attacks on it."""

from __future__ import annotations

import asyncio
import base64
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import clock
from infra.http_door import compose
from infra.identity import issuer as issuer_module
from infra.identity import sessions as sessions_module
from infra.identity.app import challenge, local_path
from infra.identity.issuer import ACCESS_S
from infra.identity.users import SERVICES, Users
from schemas.roles import Role
from tests.unit.infra.identity.world import BASE, World, begin, log_in, query, room, run, submit

CALLBACK = f"{BASE}/login/callback"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_browser_logs_in_and_out(world: World) -> None:
    async def way() -> None:
        async with world.client() as browser:
            assert (await browser.get("/who")).status_code == 401
            done = await log_in(world, browser, "doctor", back="/form?x=1")
            assert (done.status_code, done.headers["location"]) == (303, "/form?x=1")
            cookie = next(c for c in done.headers.get_list("set-cookie") if c.startswith("sijil="))
            assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
            who = (await browser.get("/who")).json()
            assert who["role"] == "doctor"
            assert who["actor"] == f"person:{world.users.get('doctor').person_id}"  # type: ignore[union-attr]
            assert (await browser.get("/me")).json()["name"] == "doctor"
            stolen = browser.cookies["sijil"]
            assert (await browser.post("/logout")).status_code == 303
            assert "sijil" not in browser.cookies
            browser.cookies.set("sijil", stolen)
            assert (await browser.get("/who")).status_code == 401, "the session ended, not the cookie alone"

    run(way())


def test_every_user_can_log_in_and_no_service_by_the_form(world: World) -> None:
    async def way() -> None:
        for user in world.users.all():
            async with world.client() as browser:
                answer = await submit(browser, await begin(browser), user.username, world.password(user.username))
                assert answer.status_code == (401 if user.service else 303), user.username
        assert {u.role for u in world.users.all()} == set(Role) - {"local"}

    run(way())


def test_a_wrong_password_and_the_wait_after_five(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def way() -> None:
        async with world.client() as browser:
            hidden = await begin(browser)
            for name in ("doctor", "nobody"):
                tries = [await submit(browser, hidden, name, "wrong") for _ in range(6)]
                assert [t.status_code for t in tries] == [401] * 5 + [429]
            assert (await submit(browser, hidden, "doctor", world.password("doctor"))).status_code == 429
            now = clock.monotonic() + issuer_module.TRIES_S
            monkeypatch.setattr(clock, "monotonic", lambda: now)
            assert (await submit(browser, hidden, "doctor", world.password("doctor"))).status_code == 303

    run(way())


def test_the_form_shows_what_was_typed_as_text(world: World) -> None:
    async def way() -> None:
        async with world.client() as browser:
            hidden = await begin(browser)
            answer = await submit(browser, hidden | {"state": '"><script>'}, '"><script>alert(1)</script>', "x")
            assert "<script>" not in answer.text

    run(way())


def authorize(**changed: str | None) -> dict[str, str]:
    found = {
        "response_type": "code",
        "client_id": "sijil-web",
        "redirect_uri": CALLBACK,
        "code_challenge": challenge("v" * 43),
        "code_challenge_method": "S256",
        "state": "s",
    }
    return {n: v for n, v in (found | changed).items() if v is not None}


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": "other"},
        {"redirect_uri": "https://evil.example/login/callback"},
        {"redirect_uri": "http://127.0.0.1:8080/login/callback?next=evil"},
        {"redirect_uri": "http://127.0.0.1:8080/elsewhere"},
        {"redirect_uri": "http://127.0.0.1@evil.example/login/callback"},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": None},
        {"response_type": "token"},
        {"code_challenge": None},
        {"code_challenge_method": "plain"},
        {"code_challenge_method": None},
    ],
)
def test_a_wrong_request_is_sent_nowhere(world: World, changed: dict[str, str | None]) -> None:
    async def way() -> None:
        async with world.client() as browser:
            given = authorize(**changed)
            for answer in (
                await browser.get("/oidc/authorize", params=given),
                await browser.post(
                    "/oidc/authorize", data={**given, "username": "doctor", "password": world.password("doctor")}
                ),
            ):
                assert answer.status_code == 400
                assert "location" not in answer.headers

    run(way())


async def code_of(world: World, browser: httpx.AsyncClient, verifier: str) -> str:
    given = authorize(code_challenge=challenge(verifier))
    answer = await submit(browser, given, "doctor", world.password("doctor"))
    found = query(answer.headers["location"])
    assert found["iss"] == f"{BASE}/oidc"
    return found["code"]


async def redeem(browser: httpx.AsyncClient, code: str, verifier: str, **changed: str) -> httpx.Response:
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
    return await browser.post("/oidc/token", data=form | {"redirect_uri": CALLBACK, "client_id": "sijil-web"} | changed)


async def who(browser: httpx.AsyncClient, token: str) -> httpx.Response:
    return await browser.get("/who", headers={"Authorization": f"Bearer {token}"})


async def renew(browser: httpx.AsyncClient, token: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "sijil-web"}
    return await browser.post("/oidc/token", data=form)


def test_a_replayed_code_gives_nothing_and_ends_what_it_gave(world: World) -> None:
    async def way() -> None:
        async with world.client() as browser:
            verifier = secrets.token_urlsafe(32)
            code = await code_of(world, browser, verifier)
            first = (await redeem(browser, code, verifier)).json()
            assert (await who(browser, first["access_token"])).status_code == 200
            again = await redeem(browser, code, verifier)
            assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
            told = await who(browser, first["access_token"])
            assert (told.status_code, told.json()["reason"]) == (401, "token-revoked")
            assert (await renew(browser, first["refresh_token"])).status_code == 400

    run(way())


@pytest.mark.parametrize(
    "changed",
    [
        {"code_verifier": "w" * 43},
        {"code_verifier": ""},
        {"client_id": "other"},
        {"redirect_uri": "http://127.0.0.1:9999/login/callback"},
    ],
)
def test_a_stolen_code_is_of_no_use(world: World, changed: dict[str, str]) -> None:
    async def way() -> None:
        async with world.client() as browser:
            verifier = secrets.token_urlsafe(32)
            code = await code_of(world, browser, verifier)
            assert (await redeem(browser, code, verifier, **changed)).json()["error"] == "invalid_grant"
            assert (await redeem(browser, code, verifier)).status_code == 400, "it was for one use"

    run(way())


def test_a_code_is_good_for_a_minute(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def way() -> None:
        async with world.client() as browser:
            verifier = secrets.token_urlsafe(32)
            code = await code_of(world, browser, verifier)
            now = clock.monotonic() + issuer_module.CODE_S + 1
            monkeypatch.setattr(clock, "monotonic", lambda: now)
            assert (await redeem(browser, code, verifier)).json()["error"] == "invalid_grant"

    run(way())


def test_a_replayed_refresh_token_ends_the_log_in(world: World) -> None:
    async def way() -> None:
        async with world.client() as browser:
            verifier = secrets.token_urlsafe(32)
            first = (await redeem(browser, await code_of(world, browser, verifier), verifier)).json()
            second = (await renew(browser, first["refresh_token"])).json()
            assert (await who(browser, second["access_token"])).status_code == 200
            assert (await renew(browser, first["refresh_token"])).status_code == 400
            assert (await who(browser, second["access_token"])).status_code == 401
            assert (await renew(browser, second["refresh_token"])).status_code == 400

    run(way())


def test_who_is_logged_in_stays_so_when_the_archive_is_started_again(world: World) -> None:
    async def way() -> None:
        async with world.client() as browser:
            verifier = secrets.token_urlsafe(32)
            first = (await redeem(browser, await code_of(world, browser, verifier), verifier)).json()
            gone = (await redeem(browser, await code_of(world, browser, verifier), verifier)).json()
            await browser.post("/oidc/revoke", data={"token": gone["refresh_token"]})
            second = (await renew(browser, first["refresh_token"])).json()
        file = world.settings.home / "secrets" / "issuer-grants.json"
        assert file.stat().st_mode & 0o777 == 0o600
        assert second["refresh_token"] not in file.read_text()

        async with world.client(compose(world.opened(), [room])) as browser:
            assert (await who(browser, gone["access_token"])).json()["reason"] == "token-revoked"
            assert (await renew(browser, gone["refresh_token"])).status_code == 400
            third = (await renew(browser, second["refresh_token"])).json()
            assert (await who(browser, third["access_token"])).status_code == 200
        async with world.client(compose(world.opened(), [room])) as browser:
            # one that was used before the restart is known to be stolen after it
            assert (await renew(browser, first["refresh_token"])).status_code == 400
            assert (await renew(browser, third["refresh_token"])).status_code == 400
        file.write_text("{")
        async with world.client(compose(world.opened(), [room])) as browser:
            assert (await begin(browser))["client_id"] == "sijil-web", "people log in again"

    run(way())


def test_a_token_for_the_pages_is_none_for_the_archive(world: World) -> None:
    async def way() -> None:
        async with world.client() as browser:
            verifier = secrets.token_urlsafe(32)
            first = (await redeem(browser, await code_of(world, browser, verifier), verifier)).json()
            assert (await who(browser, first["id_token"])).json()["reason"] == "token-audience"
            assert (await who(browser, first["refresh_token"])).status_code == 401
            in_url = await browser.get("/who", params={"access_token": first["access_token"]})
            assert in_url.status_code == 401, "a token in an address is none"

    run(way())


def test_services_have_tokens_by_their_own_credentials(world: World) -> None:
    async def way() -> None:
        async with world.client() as client:
            for name, role in SERVICES.items():
                form = {"grant_type": "client_credentials", "client_id": name, "client_secret": world.password(name)}
                answer = (await client.post("/oidc/token", data=form)).json()
                assert "refresh_token" not in answer
                headers = {"Authorization": f"Bearer {answer['access_token']}"}
                me = (await client.get("/me", headers=headers)).json()
                assert (me["actor"], me["role"], me["person_id"]) == (f"service:{name}", role, "")
                basic = base64.b64encode(f"{name}:{world.password(name)}".encode()).decode()
                only = {"grant_type": "client_credentials"}
                by_header = await client.post("/oidc/token", data=only, headers={"Authorization": f"Basic {basic}"})
                assert by_header.status_code == 200
                assert (await client.post("/oidc/token", data=form | {"client_secret": "x"})).status_code == 401
            person = {"client_id": "doctor", "client_secret": world.password("doctor")}
            assert (await client.post("/oidc/token", data=only | person)).status_code == 401

    run(way())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"grant_type=password&username=doctor",
        b"grant_type=client_credentials&grant_type=x",
        b"\xff",
        b"&".join(b"a%d=1" % n for n in range(100)),
        b"grant_type=refresh_token",
        b"grant_type=authorization_code&code=%00",
    ],
)
def test_what_is_no_token_request_is_a_400(world: World, body: bytes) -> None:
    async def way() -> httpx.Response:
        async with world.client() as client:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return await client.post("/oidc/token", content=body, headers=headers)

    answer = run(way())
    assert (answer.status_code, "error" in answer.json()) == (400, True)


# ------------------------------------------------------------------------------------------------ sessions


def test_an_answer_to_another_s_log_in_is_refused(world: World) -> None:
    """Log-in CSRF and mix-up: the code of an attacker does not log in a victim."""

    async def way() -> None:
        async with world.client() as attacker, world.client() as victim:
            theirs = await submit(attacker, await begin(attacker), "officer", world.password("officer"))
            address = theirs.headers["location"]
            assert (await victim.get(address)).json()["reason"] == "login-expired"
            await begin(victim)
            assert (await victim.get(address)).json()["reason"] == "login-state"
            assert "sijil" not in victim.cookies

    run(way())


def test_a_callback_that_comes_twice_is_refused(world: World) -> None:
    async def way() -> None:
        async with world.client() as browser:
            let_in = await submit(browser, await begin(browser), "doctor", world.password("doctor"))
            begun = browser.cookies["sijil-login"]
            await browser.get(let_in.headers["location"])
            browser.cookies.set("sijil-login", begun, path="/login")
            assert (await browser.get(let_in.headers["location"])).json()["reason"] == "login-code"
            assert (await browser.get("/who")).status_code == 401, "and what the first gave has ended"

    run(way())


def test_a_new_log_in_makes_a_new_session(world: World) -> None:
    async def way() -> None:
        async with world.client() as browser:
            await log_in(world, browser, "doctor")
            first = browser.cookies["sijil"]
            await log_in(world, browser, "officer")
            assert browser.cookies["sijil"] != first
            assert (await browser.get("/me")).json()["role"] == "officer"
            async with world.client() as other:
                other.cookies.set("sijil", first)
                assert (await other.get("/me")).status_code == 401

    run(way())


@pytest.mark.parametrize("cookie", ["", "x", "x" * 5000, "..", "\x7f", '"', "a=b"])
def test_a_cookie_that_is_no_session_is_as_none(world: World, cookie: str) -> None:
    async def way() -> None:
        async with world.client() as browser:
            answer = await browser.get("/who", headers={"Cookie": f"sijil={cookie}"})
            assert (answer.status_code, answer.json()["reason"]) == (401, "no-credentials")
            assert (await browser.get("/login", headers={"Cookie": f"sijil={cookie}"})).status_code == 302

    run(way())


def test_the_table_of_sessions_lets_nobody_in(world: World) -> None:
    async def way() -> None:
        async with world.client() as browser:
            await log_in(world, browser, "doctor")
            rows = [row async for row in world.tables.scan("sessions")]
            assert len(rows) == 1
            assert browser.cookies["sijil"] not in repr(rows)
            assert "eyJ" not in repr(rows), "no token in clear"
            for value in (rows[0]["session_id"], rows[0]["sealed"]):
                assert (await browser.get("/who", headers={"Cookie": f"sijil={value}"})).status_code == 401

    run(way())


def test_an_access_token_is_renewed_under_a_session(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def way() -> None:
        async with world.client() as browser:
            await log_in(world, browser, "doctor")
            monkeypatch.setattr(sessions_module, "EARLY_S", ACCESS_S + 1)  # every request finds it due
            answers = await asyncio.gather(*(browser.get("/who") for _ in range(8)))
            assert [a.status_code for a in answers] == [200] * 8, "one after the other: no refresh token comes twice"

    run(way())


def test_a_session_has_an_end(tmp_path: Path) -> None:
    world = World(tmp_path, session_hours=0)

    async def way() -> None:
        async with world.client() as browser:
            assert (await log_in(world, browser, "doctor")).status_code == 303
            assert (await browser.get("/who")).status_code == 401
            assert [row async for row in world.tables.scan("sessions")] == []

    run(way())


def test_a_session_is_of_every_process_and_ends_with_the_issuer_s_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def way() -> None:
        world.settings = replace(world.settings, session_secret="00" * 32)
        first, second = (compose(world.opened(), [room]) for _ in range(2))
        async with world.client(first) as browser, world.client(second) as later:
            await log_in(world, browser, "doctor")
            later.cookies.set("sijil", browser.cookies["sijil"])
            assert (await later.get("/who")).status_code == 200
            monkeypatch.setattr(sessions_module, "EARLY_S", ACCESS_S + 1)
            assert (await later.get("/who")).status_code == 401, "another process cannot renew it: log in again"

    run(way())


def test_forms_carry_a_token_of_their_session(world: World) -> None:
    async def way() -> None:
        async with world.client() as one, world.client() as other:
            await log_in(world, one, "doctor")
            await log_in(world, other, "doctor")
            mine, theirs = [(await b.get("/form")).json()["csrf"] for b in (one, other)]
            assert mine != theirs
            for given, status in ((mine, 204), (theirs, 403), ("", 403)):
                answer = await one.post("/form", headers={"X-Form": given})
                assert answer.status_code == status

    run(way())


@given(st.text(max_size=40) | st.sampled_from(["//evil", "/\\evil", "https://evil", "/\tx", "/a\nb", "javascript:x"]))
def test_back_is_never_another_host(text: str) -> None:
    found = local_path(text)
    assert found == "/" or (found == text and found[0] == "/" and found[1:2] not in ("/", "\\"))
    assert not set(found) & set("\r\n\t ")


def test_keys_and_users_are_the_owner_s_alone_and_rotate(world: World) -> None:
    folder = world.settings.home / "secrets"
    assert {f.stat().st_mode & 0o777 for f in folder.iterdir()} == {0o600}
    assert world.password("doctor") not in (folder / "users.json").read_text()
    old = world.keys.public()["keys"][0]["kid"]
    assert "d" not in world.keys.public()["keys"][0]

    async def way() -> None:
        async with world.client() as browser:
            await log_in(world, browser, "doctor")
            world.keys.rotate()
            assert (await browser.get("/who")).status_code == 200
            published: Any = (await browser.get("/oidc/jwks")).json()
            assert [k["kid"] for k in published["keys"]][1:] == [old]

    run(way())


def test_a_new_password_ends_what_the_old_one_began(world: World) -> None:
    async def way() -> None:
        async with world.client() as browser:
            verifier = secrets.token_urlsafe(32)
            first = (await redeem(browser, await code_of(world, browser, verifier), verifier)).json()
            new = Users(world.settings.home / "secrets").put("doctor", Role.DOCTOR, sites=["CAI-1"])
            assert world.password("doctor") == new
            assert (await renew(browser, first["refresh_token"])).status_code == 400
            await log_in(world, browser, "doctor")
            assert (await browser.get("/me")).json()["sites"] == ["CAI-1"]

    run(way())
