"""What the viewer's port answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from consumers.web.viewer import Viewer
from infra.http_caller import Gate
from infra.http_door import ByPort
from tests.callers import Anyone


class Client:
    """Asks an application at a port."""

    def __init__(self, app: ASGIApp, port: int = 8090) -> None:
        self._transport, self._base = httpx.ASGITransport(app), f"http://sijil:{port}"

    def ask(self, method: str, path: str) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url=self._base) as client:
                return await client.request(method, path)

        return asyncio.run(asked())

    def get(self, path: str) -> httpx.Response:
        return self.ask("GET", path)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    behind = FastAPI()
    behind.get("/dicom-web/studies")(lambda: ["of the archive"])
    behind.get("/metrics")(lambda: "of the door")
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<script>let page = 1</script>")
    (tmp_path / "app.bundle.0f6159c501addfe9.js").write_text("//")
    (tmp_path / "app.bundle.css").write_text("p{}")
    return Client(Viewer(tmp_path, behind, Gate(authenticators=[Anyone()])))


@pytest.mark.parametrize("path", ["/", "/index.html", "/viewer", "/viewer?StudyInstanceUIDs=1.2.3", "/metrics"])
def test_every_place_is_the_page(client: Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.text) == (200, "<script>let page = 1</script>")
    assert answer.headers["cache-control"] == "no-cache"
    assert "'sha256-" in answer.headers["content-security-policy"]
    assert "unsafe-inline" not in answer.headers["content-security-policy"].partition("script-src")[2].partition(";")[0]
    assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"


def test_only_names_with_a_hash_are_kept_long(client: Client) -> None:
    assert client.get("/app.bundle.0f6159c501addfe9.js").headers["cache-control"].endswith("immutable")
    assert client.get("/app.bundle.css").headers["cache-control"] == "no-cache"
    config = client.get("/app-config.js")
    assert "'/dicom-web'" in config.text
    assert config.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/missing.js", "/../secret.txt", "/%2e%2e/secret.txt", "/assets/"])
def test_no_other_file(client: Client, tmp_path: Path, path: str) -> None:
    (tmp_path.parent / "secret.txt").write_text("secret")
    answer = client.get(path)
    assert "secret" not in answer.text
    assert answer.status_code == (200 if path == "/assets/" else 404)


def test_dicomweb_of_the_same_origin(client: Client) -> None:
    assert client.get("/dicom-web/studies").json() == ["of the archive"]
    assert client.ask("POST", "/viewer").status_code == 405


def test_not_installed(tmp_path: Path) -> None:
    answer = Client(Viewer(tmp_path / "nothing", FastAPI(), Gate(authenticators=[Anyone()]))).get("/")
    assert answer.status_code == 503
    assert "make stack" in answer.text


def test_a_port_has_its_own_application() -> None:
    main, other = FastAPI(), FastAPI()
    main.get("/")(lambda: "main")
    other.get("/")(lambda: "other")
    app = ByPort(main, {8090: lambda behind: other})
    assert Client(app, 8080).get("/").json() == "main"
    assert Client(app, 8090).get("/").json() == "other"


@pytest.mark.parametrize("path", ["/", "/index.html", "/viewer?StudyInstanceUIDs=1.2.3&x=%2F"])
def test_who_has_no_session_logs_in_and_comes_back(tmp_path: Path, path: str) -> None:
    (tmp_path / "index.html").write_text("page")
    (tmp_path / "app.bundle.css").write_text("p{}")
    client = Client(Viewer(tmp_path, FastAPI(), Gate()))
    answer = client.get(path)
    where = urlsplit(answer.headers["location"])
    assert (answer.status_code, where.path, parse_qs(where.query)["back"]) == (303, "/login", [path])
    assert client.get("/app.bundle.css").status_code == 200, "what is the same for everybody is there for everybody"
