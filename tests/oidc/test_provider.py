"""The archive with a provider of somebody else in place of the embedded issuer, by settings alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.identity import tokens
from tests.oidc.provider import Provider, log_in, running
from tests.unit.infra.identity.world import BASE, World, query, run

RESOURCE, CALLBACK = "https://archive.example/sijil", f"{BASE}/login/callback"
SECRET = "a secret: of 100% & more"  # noqa: S105 (of this test)
WEB = {
    "client_id": "radiology-archive",
    "client_secret": SECRET,
    "redirect_uris": [CALLBACK],
    "grant_types": ["authorization_code", "refresh_token"],
}
SERVICE = {
    "client_id": "gw-9",
    "client_secret": SECRET,
    "redirect_uris": [],
    "response_types": [],
    "grant_types": ["client_credentials"],
}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running([WEB, SERVICE]) as found:
        yield found


def archive(folder: Path, provider: Provider) -> World:
    """An installation whose staff log in at the provider."""
    return World(
        folder,
        oidc_issuer=provider.base,
        oidc_client_id="radiology-archive",
        oidc_client_secret=SECRET,
        oidc_audience=RESOURCE,
        oidc_resource=RESOURCE,
        oidc_role_claim="groups",
        oidc_sites_claim="hospitals",
        oidc_person_claim="staff_no",
    )


async def come_in(provider: Provider, browser: httpx.AsyncClient, user: str) -> httpx.Response:
    """All steps of a log-in; the answer at our callback."""
    sent = await browser.get("/login", params={"back": "/form"})
    assert sent.status_code == 302
    asked = query(sent.headers["location"])
    assert (asked["code_challenge_method"], asked["resource"]) == ("S256", RESOURCE)
    return await browser.get(log_in(sent.headers["location"], user, CALLBACK))


async def who(browser: httpx.AsyncClient, token: str) -> httpx.Response:
    return await browser.get("/me", headers={"Authorization": f"Bearer {token}"})


def test_staff_log_in_and_services_call_by_the_provider_s_own_names_for_things(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = archive(tmp_path, provider)

    async def way() -> None:
        # the pages: authorization code and PKCE
        async with world.client() as browser:
            done = await come_in(provider, browser, "omar")
            assert (done.status_code, done.headers["location"]) == (303, "/form")
            me = (await browser.get("/me")).json()
            assert (me["actor"], me["role"]) == ("person:T-4", "technician")
            assert (me["sites"], me["name"]) == (["ALX-02", "CAI-01"], "Omar")
            other = await browser.get("/me", headers={"Sijil-Role": "clerk"})
            assert other.json()["role"] == "clerk"

            # the access token is renewed by the refresh token, and the session goes on
            (session,) = world.door.identity.sessions._known.values()  # type: ignore[union-attr]
            before = session[1].tokens
            monkeypatch.setattr("infra.identity.sessions.EARLY_S", 10_000.0)
            assert (await browser.get("/me")).json()["actor"] == "person:T-4"
            monkeypatch.undo()
            (session,) = world.door.identity.sessions._known.values()  # type: ignore[union-attr]
            after = session[1].tokens
            assert after.access != before.access, "this provider keeps the refresh token"

            # log-out: the session is over here, the refresh token there, and the browser goes to end the one there
            left = await browser.post("/logout")
            assert left.headers["location"].startswith(f"{provider.base}/session/end?id_token_hint=")
            assert (await browser.get("/me")).status_code == 401
            form = {"grant_type": "refresh_token", "refresh_token": after.refresh}
            assert provider.post("/token", form, "radiology-archive", SECRET).json()["error"] == "invalid_grant"

        async with world.client() as browser:
            # who is known there and has no role here
            refused = await come_in(provider, browser, "visitor")
            assert (refused.status_code, refused.json()["reason"]) == (401, "token-role")

            # a service: client credentials, a JWT for our audience
            token = provider.token("gw-9", SECRET, RESOURCE)
            me = (await who(browser, token)).json()
            assert (me["actor"], me["role"], me["sites"]) == ("service:gw-9", "gateway", ["ALX-02"])
            elsewhere = await who(browser, provider.token("gw-9", SECRET, "https://other.example/api"))
            assert (elsewhere.status_code, elsewhere.json()["reason"]) == (401, "token-audience")

            # a token of our own embedded issuer is of somebody else now
            world.keys.ensure()
            own = world.keys.sign({"iss": f"{BASE}/oidc", "aud": RESOURCE}, kind="at+jwt")
            assert (await who(browser, own)).json()["reason"] == "token-key"
            assert (await browser.get("/oidc/jwks")).status_code == 404

            # the keys change while we run: the new one is fetched, the withdrawn one's tokens end with the JWKS's age
            monkeypatch.setattr(tokens, "REFETCH_S", 0.0)
            provider.rotate()
            new = provider.token("gw-9", SECRET, RESOURCE)
            assert (await who(browser, new)).status_code == 200
            forged = provider.token("gw-9", SECRET, RESOURCE)[:-6] + "AAAAAA"
            assert (await who(browser, forged)).json()["reason"] == "token-invalid"

            # somebody is in, and the provider goes away
            assert (await come_in(provider, browser, "nadia")).status_code == 303
            late = provider.token("gw-9", SECRET, RESOURCE)
            provider.stop()
            assert (await browser.get("/me")).json()["actor"] == "person:D-17"
            assert (await who(browser, late)).status_code == 200, "its keys are known"
            away = await browser.get("/login")
            # what the provider's pages are at is known already; a code cannot be redeemed
            assert away.status_code == 302
            code = {"code": "c", "state": query(away.headers["location"])["state"]}
            gone = await browser.get("/login/callback", params=code)
            assert (gone.status_code, gone.headers["retry-after"].isdigit()) == (503, True)
            left = await browser.post("/logout")
            assert (left.status_code, left.headers["location"]) == (303, "/")
            assert (await browser.get("/me")).status_code == 401, "logged out here all the same"

        # a door that is opened while the provider is away says so, and lets nobody in
        async with archive(tmp_path / "later", provider).client() as browser:
            assert (await browser.get("/login")).status_code == 503
            assert (await who(browser, late)).status_code == 503

    run(way())
