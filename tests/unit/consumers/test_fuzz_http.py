"""Anything may be asked of the query API at its socket: it answers, with no fault of its own, in a bounded time."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case

from infra.settings import Settings
from tests import fuzz
from tests.unit.consumers.archive import MemoryArchive, part10
from tests.unit.infra.web_server import serving

SAFE = set(range(200, 500)) | {503}
KNOWN = {"study": "1.2.3", "series": "1.2.3.1", "instance": "1.2.3.1.1", "frames": "1"}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1"), part10("1.2.3.1.2", PatientName="O'Brien; DROP TABLE--^<script>")])
    app, _ = archive.app()
    with serving(lambda app, door: None, Settings(http_connections_max_address=0), around=app) as found:
        yield found


def test_by_its_own_description(port: int) -> None:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    with requests.Session() as session:

        def ask(case: Case[Any]) -> int:
            answer = case.call(session=session, timeout=20)
            return int(answer.status_code)

        statuses = fuzz.run(schema, ask, KNOWN)
    assert len(statuses) > 40
    assert any(200 in found for label, found in statuses.items() if label.endswith("known")), "some reach the archive"


def raw(port: int, target: bytes) -> int:
    """The status of a GET whose target is exactly this."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest("GET", "/", skip_host=False, skip_accept_encoding=True)
        connection._buffer[0] = b"GET " + target + b" HTTP/1.1"  # type: ignore[attr-defined]
        connection.endheaders()
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


KEYS = st.sampled_from(
    "PatientName PatientID StudyDate StudyTime StudyInstanceUID ModalitiesInStudy AccessionNumber 00100010 0020000D"
    " 00400275.00400007 includefield limit offset fuzzymatching orderby cursor 00100010.00100020 FFFFFFFF".split()
)
BYTES = st.binary(min_size=1, max_size=12).map(lambda b: "".join(f"%{c:02X}" for c in b))
VALUES = st.one_of(
    BYTES,
    st.sampled_from(
        [
            "*", "?", "**", "-", "20250101-", "-20250101", "20259999", "99999999999999999999", "-1", "1.2.3", "1..2",
            "%00", "%FF%FE", "'", "%27;DROP%20TABLE%20studies;--", "%0d%0aSet-Cookie:a=b", "%5C", "%5C%5C", "a%5Cb",
            "..%2F..%2Fetc%2Fpasswd", "%E2%80%AE", "%D9%85%D8%AD%D9%85%D8%AF", "all", "true", "*a*b*c*d*e*f*g*",
        ]
    ),
    st.text("*?^=%25", min_size=1, max_size=60).map(lambda t: t.replace("%", "%25")),
)  # fmt: skip
QUERIES = st.lists(st.tuples(KEYS | BYTES, VALUES), max_size=5).map(lambda ps: "&".join(f"{k}={v}" for k, v in ps))


@given(st.sampled_from(["studies", "series", "instances", "studies/1.2.3/series", "studies/1.2.3/instances"]), QUERIES)
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_query_string(port: int, level: str, query: str) -> None:
    assert raw(port, f"/dicom-web/{level}?{query}".encode()) in SAFE


@pytest.mark.parametrize(
    "path",
    [
        "/dicom-web/studies/../../etc/passwd",
        "/dicom-web/studies/..%2F..%2Fetc%2Fpasswd/metadata",
        "/dicom-web/studies/1.2.3%00/metadata",
        "/dicom-web/studies/1.2.3%0d%0aX:y/metadata",
        "/dicom-web/studies/1.2.3'%20OR%20'1'='1/metadata",
        "/dicom-web/studies/%D9%A1.%D9%A2/metadata",
        f"/dicom-web/studies/{'1' * 65}/metadata",
        "/dicom-web/studies/1.2.3/series/../instances/1/frames/-1",
        "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1/frames/99999999999999999999",
        "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1/rendered?viewport=99999999,99999999",
        "//attacker.example/%2F..",
        "/studies/%2e%2e/accesses",
        "/patients/..%2F..%2Fsecrets/accesses",
    ],
)
def test_no_path_leads_elsewhere(port: int, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("GET", "/", skip_host=False)
    connection._buffer[0] = b"GET " + path.encode("ascii") + b" HTTP/1.1"  # type: ignore[attr-defined]
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert 400 <= answer.status < 500
    assert b"root:" not in body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "X" not in answer.headers
    assert "Location" not in answer.headers
