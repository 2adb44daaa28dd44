"""Who is let in without credentials, and what a route must say."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI

from infra.http_caller import HOW
from infra.http_door import HttpDoor, compose
from infra.settings import Settings, SettingsError
from schemas.errors import Defect
from tests.unit.infra.identity.world import World, run


def test_nobody_is_let_in_without_credentials(tmp_path: Path) -> None:
    async def way() -> None:
        async with World(tmp_path).client() as client:
            answer = await client.get("/who")
            assert (answer.status_code, answer.json()["detail"]) == (401, HOW)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            wrong = await client.get("/who", headers={"Authorization": "Bearer x"})
            assert (wrong.status_code, wrong.json()["reason"]) == (401, "token-invalid")
            for path in ("/docs", "/openapi.json", "/health/live"):
                assert (await client.get(path, headers={"Authorization": "Bearer x"})).status_code == 200, path
            assert (await client.get("/metrics")).status_code == 401

    run(way())


def test_a_loopback_role_is_this_machine_s_alone(tmp_path: Path) -> None:
    async def way() -> None:
        world = World(tmp_path, loopback_role="technician")
        async with world.client() as client:
            assert (await client.get("/who")).json()["role"] == "technician"
            assert (await client.get("/metrics")).status_code == 403
            for name in ("X-Forwarded-For", "Forwarded"):
                assert (await client.get("/who", headers={name: "192.0.2.1"})).status_code == 401

    run(way())


@pytest.mark.parametrize(("host", "role"), [("0.0.0.0", "local"), ("192.0.2.1", "local"), ("::", "doctor")])  # noqa: S104 (what must be refused)
def test_a_loopback_role_opens_no_door_that_others_reach(tmp_path: Path, host: str, role: str) -> None:
    with pytest.raises(SettingsError, match="SIJIL_LOOPBACK_ROLE"):
        World(tmp_path, loopback_role=role, http_host=host)


def test_a_loopback_role_is_one_of_ours(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="one of"):
        World(tmp_path, loopback_role="root")


def test_a_door_that_others_reach_has_no_embedded_issuer(tmp_path: Path) -> None:
    async def way() -> None:
        async with World(tmp_path, http_host="192.0.2.1").client() as client:
            assert (await client.get("/login")).status_code == 404
            assert (await client.get("/oidc/jwks")).status_code == 404

    run(way())


def test_a_purpose_is_a_code(tmp_path: Path) -> None:
    async def way() -> None:
        async with World(tmp_path, loopback_role="doctor").client() as client:
            assert (await client.get("/who", headers={"Sijil-Purpose-Of-Use": "ETREAT"})).json()["purpose"] == "ETREAT"
            wrong = await client.get("/who", headers={"Sijil-Purpose-Of-Use": "<x>"})
            assert (wrong.status_code, wrong.json()["reason"]) == (400, "purpose-invalid")

    run(way())


def test_a_route_that_says_nothing_ends_the_process(tmp_path: Path) -> None:
    def careless(app: FastAPI, door: HttpDoor) -> None:
        @app.get("/leak")
        async def leak() -> None:
            """Says nothing."""

    world = World(tmp_path)
    with pytest.raises(Defect, match="/leak names no permission"):
        compose(world.opened(), [careless])


def test_the_document_says_what_each_operation_needs(tmp_path: Path) -> None:
    document = World(tmp_path).app.openapi()
    operation = document["paths"]["/who"]["get"]
    assert operation["x-permission"] == "study.search"
    assert operation["security"]
    assert set(document["components"]["securitySchemes"]) == {"bearer", "session"}


def test_settings_of_the_test_do_not_let_anybody_in() -> None:
    assert Settings().loopback_role == ""
