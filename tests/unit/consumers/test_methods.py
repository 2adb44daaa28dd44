"""HEAD wherever GET is, and OPTIONS as PS3.18 §8.9 says, over the real routes."""

from __future__ import annotations

import asyncio
from xml.etree import ElementTree

import httpx
import pytest
from fastapi.routing import APIRoute

from infra.capabilities import JSON, NAMESPACE, WADL, chosen
from infra.http_methods import operations
from schemas.events import AccessGranted
from tests.unit.consumers.archive import MemoryArchive, part10

STUDY = "/dicom-web/studies/1.2.3"
ONE = f"{STUDY}/series/1.2.3.1/instances/1.2.3.1.1"
READS = (
    "/dicom-web/studies",
    "/dicom-web/studies?PatientID=none",
    STUDY,
    f"{STUDY}/metadata",
    ONE,
    f"{ONE}/frames/1",
    f"{ONE}/rendered",
    f"{ONE}/original",
    "/dicom-web/studies/9.9",
    "/changes",
    "/changes/events",
    "/health/live",
    "/openapi.json",
)
OTHERS = {"sijil-access-id", "sijil-projection-lag"}
"""Of one request alone."""


def archive() -> MemoryArchive:
    found = MemoryArchive()
    found.store([part10("1.2.3.1.1"), part10("1.2.3.1.2")])
    return found


def ask(archive: MemoryArchive, method: str, path: str, **headers: str) -> httpx.Response:
    async def run() -> httpx.Response:
        async with archive.client() as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(run())


@pytest.mark.parametrize("path", READS)
def test_the_head_of_every_read(path: str) -> None:
    """What a GET would say, without its body, and on record as a GET is."""
    found = archive()

    async def run() -> tuple[httpx.Response, httpx.Response | None]:
        async with found.client() as client:
            head = await client.head(path)
            return head, None if path == "/changes/events" else await client.get(path)

    head, got = asyncio.run(run())
    assert head.content == b""
    if got is None:  # a GET of it would never end
        assert (head.status_code, head.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    else:
        assert head.status_code == got.status_code
        assert {k: v for k, v in head.headers.items() if k not in OTHERS} == {
            k: v for k, v in got.headers.items() if k not in OTHERS
        }
        if got.status_code == 200 and "content-length" in got.headers and "content-encoding" not in got.headers:
            assert int(head.headers["content-length"]) == len(got.content)
    if head.status_code == 200 and "sijil-access-id" in head.headers:
        granted = [e for e in found.journal.events(AccessGranted) if e.access_id == head.headers["sijil-access-id"]]
        assert len(granted) == 1


def test_without_a_durable_access_event_there_is_no_head() -> None:
    found = archive()
    found.journal.full = True
    assert ask(found, "HEAD", STUDY).status_code == 503


def test_a_head_where_nothing_is_got() -> None:
    assert ask(archive(), "HEAD", "/nowhere").status_code == 404


@pytest.mark.parametrize(
    ("path", "methods"), [(STUDY, "GET, HEAD, OPTIONS"), ("/changes", "GET, HEAD"), ("/health/live", "GET, HEAD")]
)
def test_what_is_not_allowed_tells_what_is(path: str, methods: str) -> None:
    answer = ask(archive(), "DELETE", path)
    assert (answer.status_code, answer.headers["allow"]) == (405, methods)


def ids(root: ElementTree.Element) -> list[str]:
    return [m.attrib["id"] for m in root.iter(f"{{{NAMESPACE}}}method")]


def test_the_capabilities_are_those_of_the_routes() -> None:
    found = archive()
    answer = ask(found, "OPTIONS", "/dicom-web/", Host="pacs.example:8080")
    assert (answer.status_code, answer.headers["content-type"]) == (200, WADL)
    root = ElementTree.fromstring(answer.content)  # noqa: S314 (our own)
    assert root.tag == f"{{{NAMESPACE}}}application"
    (resources,) = root
    assert resources.attrib["base"] == "http://pacs.example:8080/dicom-web"
    app, _ = found.app()
    routes = [r for r in app.routes if isinstance(r, APIRoute) and r.path.startswith("/dicom-web/")]
    assert len(ids(root)) == len(set(ids(root))) == sum(len(r.methods or ()) for r in routes) == len(operations(app))
    assert {"SearchForStudies", "RetrieveStudy", "RetrieveSeriesMetadata", "RetrieveRenderedInstance"} <= set(ids(root))
    assert list(found.journal.events(AccessGranted)) == [], "nothing of any patient was shown"


@pytest.mark.parametrize(
    "path", ["/dicom-web/studies/1.2.3/series/1.2/instances", "/dicom-web/studies/{study}/series/{series}/instances"]
)
def test_the_capabilities_of_a_resource(path: str) -> None:
    answer = ask(archive(), "OPTIONS", path)
    (resource,) = ElementTree.fromstring(answer.content)[0]  # noqa: S314
    assert resource.attrib["path"] == "studies/{study}/series/{series}/instances"
    assert {"SearchForStudySeriesInstances", "RetrieveFrames", "RetrieveInstanceBulkdata"} <= set(ids(resource))
    assert "RetrieveStudy" not in ids(resource)
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    search = next(m for m in resource if m.attrib.get("name") == "GET")
    names = {p.attrib["name"]: p for p in search.iter(f"{{{NAMESPACE}}}param")}
    assert {"Accept", "limit", "offset", "fuzzymatching", "includefield"} <= set(names)
    options = [o.attrib["value"] for o in names["Accept"]]
    assert "application/dicom+json" in options


def test_the_capabilities_as_json() -> None:
    found = archive()
    answer = ask(found, "OPTIONS", f"{ONE}/bulkdata/00091010/1/00091011", Accept=JSON)
    assert answer.headers["content-type"] == JSON
    (resource,) = answer.json()["application"]["resources"][0]["resource"]
    assert resource["path"].endswith("/bulkdata/{path}")
    assert [m["id"] for m in resource["method"]] == ["RetrieveInstanceBulkdata"]
    assert ask(found, "OPTIONS", "/dicom-web/nothing").status_code == 404
    assert ask(found, "OPTIONS", "/dicom-web", Accept="text/html").status_code == 406
    assert ask(found, "OPTIONS", "/dicom-webs").status_code == 404


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", WADL),
        ("*/*", WADL),
        ("application/json", JSON),
        ("text/html, application/json;q=0.5", JSON),
        ("application/json;q=0.1, application/vnd.sun.wadl+xml", WADL),
        ("application/json;q=0", ""),
        ("application/json;q=inf", ""),
        ("application/xml", "application/xml"),
    ],
)
def test_the_form_that_is_chosen(accept: str, media_type: str) -> None:
    assert chosen(accept) == media_type
