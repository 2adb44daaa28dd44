"""A patient's images: the page, the viewer's files and what they may, in whose hands what is."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from consumers.web import app as web
from consumers.web.library import ADDRESS, POLICY
from consumers.web.routes.own import frame_at, pictures_of
from infra.settings import Settings
from schemas.events import AccessGranted
from schemas.identity import patient_key
from schemas.roles import Role
from tests.unit.consumers.archive import SECRET, MemoryArchive, part10
from tests.unit.consumers.test_pages import As, caller

STUDY, OTHER = "1.2.3", "1.2.4"
KEY = patient_key(SECRET, patient_id="P-77", issuer="LOCAL", birth_date="19800101", sex="F", study_uid=STUDY).value
PAGE = f"/web/own/studies/{STUDY}/images?lang=en"
VERSION = "0123456789abcdef"
FILES = {"library.js": b"export {}", "worker.js": b"0", "decode.wasm": b"\0asm", "licences.txt": b"MIT"}


@pytest.fixture
def archive(tmp_path: Path) -> MemoryArchive:
    archive = MemoryArchive()
    secret = archive.settings.search_secret
    archive.settings = Settings(home=tmp_path, search_secret=secret, session_secret="ab" * 32, query_deadline_s=30.0)
    many = part10("1.2.3.1.2", frames=3, InstanceNumber=2)
    archive.store([many, part10("1.2.3.1.1"), part10("1.2.3.2.1", series="1.2.3.2", Modality="SR")])
    archive.store([part10("1.2.4.1.1", study=OTHER, series="1.2.4.1", PatientID="P-78", PatientName="Other^One")])
    return archive


def installed(archive: MemoryArchive) -> None:
    folder = archive.settings.image_library
    (folder / "dist").mkdir(parents=True)
    (folder / ".sha256").write_text(VERSION + "more")
    for name, content in FILES.items():
        (folder / "dist" / name).write_bytes(content)
        (folder / "dist" / f"{name}.gz").write_bytes(gzip.compress(content))


def ask(archive: MemoryArchive, act: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with archive.client(web.register, authenticator=As(caller(Role.PATIENT, KEY))) as client:
            await act(client)

    asyncio.run(run())


def test_the_page_names_all_images_and_draws_the_first(archive: MemoryArchive) -> None:
    installed(archive)

    async def act(client: httpx.AsyncClient) -> None:
        page = await client.get(PAGE)
        base = f"/dicom-web/studies/{STUDY}/series/1.2.3.1/instances/"
        assert f'data-base="{base}" data-images="1.2.3.1.1:1 1.2.3.1.2:3"' in page.text
        assert f'<img src="{base}1.2.3.1.1/frames/1/rendered?' in page.text
        assert f'data-library="{ADDRESS.format(version=VERSION, name="library.js")}"' in page.text
        assert "1.2.3.2" not in page.text, "a structured report is read, not looked at"
        later = await client.get(f"{PAGE}&image=3")
        assert f'<img src="{base}1.2.3.1.2/frames/2/rendered?' in later.text, "without a script links turn the pages"
        # No page may compile or run anything but its own files
        policy = page.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "wasm" not in policy
        assert "blob" not in policy

    ask(archive, act)


def test_without_the_library_images_are_drawn_by_the_server(archive: MemoryArchive) -> None:
    async def act(client: httpx.AsyncClient) -> None:
        page = await client.get(PAGE)
        assert 'data-library=""' in page.text
        assert "/frames/1/rendered?" in page.text
        assert (await client.get(ADDRESS.format(version="", name="library.js"))).status_code == 404

    ask(archive, act)


def test_the_librarys_files_are_kept_and_only_the_worker_may_compile(archive: MemoryArchive) -> None:
    installed(archive)

    async def act(client: httpx.AsyncClient) -> None:
        types = {"library.js": "text/javascript", "worker.js": "text/javascript", "decode.wasm": "application/wasm"}
        for name, media_type in types.items():
            found = await client.get(ADDRESS.format(version=VERSION, name=name))
            assert found.content == FILES[name]
            assert found.headers["content-encoding"] == "gzip"
            assert found.headers["content-type"].startswith(media_type)
            assert "immutable" in found.headers["cache-control"]
            assert found.headers.get("content-security-policy", "") == (POLICY if name == "worker.js" else "")
            plain = await client.get(
                ADDRESS.format(version=VERSION, name=name), headers={"Accept-Encoding": "identity"}
            )
            assert (plain.content, plain.headers.get("content-encoding")) == (FILES[name], None)
        for version, name in (("0" * 16, "library.js"), (VERSION, ".sha256"), (VERSION, "%2e%2e%2f.sha256")):
            assert (await client.get(ADDRESS.format(version=version, name=name))).status_code == 404

    ask(archive, act)


def test_what_the_viewer_asks_is_the_patients_own_and_told(archive: MemoryArchive) -> None:
    octets = {"Accept": "application/octet-stream; transfer-syntax=*"}

    async def act(client: httpx.AsyncClient) -> None:
        own = f"/dicom-web/studies/{STUDY}/series/1.2.3.1/instances/1.2.3.1.1"
        header = await client.get(f"{own}/metadata", headers={"Accept": "application/dicom+json"})
        assert header.json()[0]["00280010"]["Value"] == [4]
        frame = await client.get(f"{own}/frames/1", headers=octets)
        assert frame.headers["content-type"] == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
        assert len(frame.content) == 4 * 4 * 2
        other = f"/dicom-web/studies/{OTHER}/series/1.2.4.1/instances/1.2.4.1.1"
        for path in (f"{other}/metadata", f"{other}/frames/1", f"/web/own/studies/{OTHER}/images"):
            assert (await client.get(path, headers=octets)).status_code == 403

    ask(archive, act)
    assert {e.study_uid for e in archive.journal.events(AccessGranted)} == {STUDY}


def test_images_are_in_their_order_frame_by_frame() -> None:
    def told(sop: str, number: object, **more: Any) -> dict[str, Any]:
        found = {"00080018": sop, "00200013": number, "00280010": 4, **more}
        return {tag: {"Value": [value]} for tag, value in found.items()}

    none = told("1.9", 0)
    del none["00280010"]
    assert pictures_of([told("1.2", 2, **{"00280008": "3"}), told("1.1", 1), none]) == [("1.1", 1), ("1.2", 3)]
    assert [frame_at([("1.1", 1), ("1.2", 3)], n) for n in (1, 2, 4)] == [
        "1.1/frames/1",
        "1.2/frames/1",
        "1.2/frames/3",
    ]
    with pytest.raises(IndexError):
        frame_at([("1.1", 1)], 2)
