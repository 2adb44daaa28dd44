"""Pages of critical results and of times: who reads back and how, what the picture shows in both directions."""

from __future__ import annotations

import asyncio
import hashlib
import json
import xml.etree.ElementTree as ET  # of our own making
from pathlib import Path
from typing import Any

import httpx
import pytest

from consumers.web import app as web
from consumers.web.language import LANGUAGES
from consumers.web.plot import GROUPS_MAX, WIDTH, Bar, bars
from consumers.web.routes.times import duration
from infra.http_door import HttpDoor
from infra.identity import csrf
from producers import report_door
from schemas.caller import Caller
from schemas.events import CriticalAcknowledged
from schemas.roles import DEFAULT_PURPOSE, Role
from tests.unit.consumers.archive import MemoryArchive
from tests.unit.consumers.test_criticals import ONE, TWO, archive
from tests.unit.consumers.test_pages import As

SVG = "{http://www.w3.org/2000/svg}"


def doctor() -> Caller:
    return Caller("person:dr-1", Role.DOCTOR, DEFAULT_PURPOSE[Role.DOCTOR], frozenset({"CAI-1"}), "dr-1")


def keep_documents(world: MemoryArchive) -> None:
    """The reports of the events, as a producer would have written them."""
    for report, study in ((ONE, "1.2.3"), (TWO, "1.2.4")):
        document: dict[str, Any] = {
            "resourceType": "DiagnosticReport", "status": "final", "code": {"text": "CT"},
            "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{study}"}}],
            "extension": [{"url": "urn:sijil:report-critical", "valueBoolean": True}],
        }  # fmt: skip
        data = json.dumps(document).encode()
        world.objects.put("sijil-documents", f"reports/{report}/2.json", data, sha256=hashlib.sha256(data).hexdigest())


@pytest.fixture
def world(tmp_path: Path) -> MemoryArchive:
    world = archive()
    keep_documents(world)
    return world


def visit(world: MemoryArchive, *steps: tuple[str, str, dict[str, str] | None]) -> list[httpx.Response]:
    """Each step (method, path, form) by the doctor, in one session."""

    async def run() -> list[httpx.Response]:
        found = []
        async with world.client(web.register, report_door.register, authenticator=As(doctor(), "s")) as client:
            for method, path, form in steps:
                sent: dict[str, Any] = {}
                if form is not None:
                    page = await client.get("/web/criticals")
                    token = page.text.partition(f'name="{csrf.FIELD}" value="')[2].partition('"')[0]
                    sent = {"data": {csrf.FIELD: token, **form}, "headers": {"Origin": "http://sijil.test"}}
                found.append(await client.request(method, path, **sent))
        return found

    return asyncio.run(run())


def test_a_doctor_reads_back_on_the_page(world: MemoryArchive) -> None:
    said = {"words": "CANARY bleeding, I call the surgeon", "channel": "page", "clinician": "dr-1"}
    # the version with which it became critical is the first; the document of the fixture is the second
    (page,) = visit(world, ("GET", "/web/criticals", None))
    assert page.status_code == 200
    assert f'action="/web/criticals/{ONE}/1"' in page.text
    assert TWO not in page.text, "another's patient"
    assert "dr-1" in page.text
    (done,) = visit(world, ("POST", f"/web/criticals/{ONE}/2", said))
    assert (done.status_code, done.headers["location"]) == (303, "/web/criticals?notice=read-back")
    (event,) = world.journal.events(CriticalAcknowledged)
    assert (event.clinician, event.recorded_by, event.channel) == ("dr-1", "person:dr-1", "page")
    assert "CANARY" not in str(event)
    assert b"CANARY" in world.objects.get("sijil-documents", event.document_key)


def test_what_is_missing_is_said_beside_the_form(world: MemoryArchive) -> None:
    data = world.objects.get("sijil-documents", f"reports/{ONE}/2.json")
    assert data
    (fault,) = visit(world, ("POST", f"/web/criticals/{ONE}/1", {"words": "x", "channel": "page", "clinician": "dr-1"}))
    assert fault.status_code == 422
    assert ">x</textarea>" in fault.text
    (beyond,) = visit(world, ("POST", f"/web/criticals/{TWO}/2", {"words": "mine?", "channel": "page"}))
    assert beyond.status_code == 403
    assert world.journal.events(CriticalAcknowledged) == []


def test_the_picture_of_the_times(world: MemoryArchive) -> None:
    async def ask(door: list[HttpDoor]) -> list[httpx.Response]:
        staff = Caller("person:a", Role.ADMINISTRATOR, "HSYSADMIN", frozenset({"CAI-1"}), "a")
        async with world.client(web.register, authenticator=As(staff)) as client:
            asked = "since=2025-02-20&until=2025-03-05&site=CAI-1"
            return [await client.get(f"/web/times{e}?{asked}", headers={"Accept-Language": "en"}) for e in ("", ".svg")]

    page, picture = asyncio.run(ask([]))
    assert (page.status_code, picture.status_code) == (200, 200)
    assert picture.headers["content-type"] == "image/svg+xml"
    assert picture.headers["content-security-policy"] == "default-src 'none'"
    assert ET.fromstring(picture.text).tag == f"{SVG}svg"  # noqa: S314 (our own)
    assert "CAI-1" in page.text


# ------------------------------------------------------------------------------------------------ the picture


FOUND = [Bar("CAI-1", 600, 1800, 3600), Bar("<script>", 0, 0, 0)]


def boxes(svg: str) -> list[tuple[float, float]]:
    """(x, width) of the bars."""
    root = ET.fromstring(svg)  # noqa: S314 (our own)
    return [(float(r.get("x", "0")), float(r.get("width", "0"))) for r in root.iter(f"{SVG}rect")][1:]


def test_bars_are_as_long_as_their_medians_and_mirrored_in_arabic() -> None:
    left = boxes(bars(FOUND, "t", lambda s: f"{s}"))
    right = boxes(bars(FOUND, "t", lambda s: f"{s}", rtl=True))
    assert left[0][1] > 50 * left[1][1]
    for (x, width), (mirrored, same) in zip(left, right, strict=True):
        assert width == same
        assert mirrored == pytest.approx(WIDTH - x - width, abs=1.1)


def test_names_are_text_and_the_picture_has_an_end() -> None:
    svg = bars(FOUND * 40, "5 < 6", str)
    assert "<script>" not in svg
    assert len(boxes(svg)) == GROUPS_MAX
    assert bars([], "t", str).startswith("<svg")


def test_durations_in_the_unit_that_fits() -> None:
    english, arabic = LANGUAGES["en"], LANGUAGES["ar"]
    told = [duration(english, s) for s in (0, 59.4, 60, 5400, 86_400, 200_000)]
    assert told == ["0 s", "59 s", "1 min", "1.5 h", "1 d", "2.3 d"]
    assert duration(arabic, 5400) == "١٫٥ س"
