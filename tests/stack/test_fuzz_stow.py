"""STOW-RS at its socket, with bodies that go wrong in one place: an answer that is no fault of the door's, and soon."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stack.gateway_doors import Doors, open_doors
from tests.unit.producers.samples import file

BOUNDARY = "fuzz"
HEAD = b"--fuzz\r\nContent-Type: application/dicom\r\n\r\n"
JUNK = [b"", b"\0", b"\r\n", b"--fuzz", b"--fuzz--", b"\r\n\r\n", b"\xff" * 9]
NAMES = ["../../../../etc/cron.d/x", "..\\..\\x", "/etc/passwd", "a\x00b", "con", "x" * 5000, "%2e%2e"]


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with pytest.MonkeyPatch.context() as patch, open_doors(tmp_path_factory.mktemp("fuzz"), patch) as both:
        yield both


def post(doors: Doors, body: bytes, content_type: str = "", coding: str = "") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", doors.http_port, timeout=20)
    headers = {"Content-Type": content_type or f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}
    if coding:
        headers["Content-Encoding"] = coding
    try:
        connection.request("POST", "/dicom-web/studies", body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A right request in which something is cut out, put in, turned over or repeated."""
    parts = draw(st.integers(1, 3))
    body = b"".join(HEAD + file(f"1.9.{n}") + b"\r\n" for n in range(1, parts + 1)) + b"--fuzz--\r\n"
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        length = draw(st.sampled_from([0, 1, 2, 40, 1000]))
        put = draw(st.sampled_from([*JUNK, body[at:][:99]]))
        body = body[:at] + put + body[at + length :]
    return body


@given(bodies())
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_body_is_answered(doors: Doors, body: bytes) -> None:
    assert post(doors, body) in (200, 202, 400, 409, 413)


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/related; type="application/dicom"; boundary=' + "b" * 5000,
        'multipart/related; type="application/dicom"; boundary="a\x00b"'.replace("\x00", "\x7f"),
        "multipart/related; boundary",
        "multipart/related" + ";a=b" * 500,
        "application/dicom; transfer-syntax=" + "1." * 1000,
        "x" * 3000,
        ";;;",
    ],
)
def test_any_content_type_is_answered(doors: Doors, content_type: str) -> None:
    assert post(doors, HEAD + file("1.9.9.1") + b"\r\n--fuzz--\r\n", content_type) in (200, 400, 409, 415)


@pytest.mark.parametrize(
    "name", ["../../../../etc/cron.d/x", "..\\..\\x", "/etc/passwd", "a\x00b", "con", "x" * 5000, "%2e%2e"]
)
def test_a_file_name_leads_nowhere(doors: Doors, name: str) -> None:
    """Part names and file names are never used for a path; UIDs are checked before they are."""
    before = sorted(doors.settings.home.parent.iterdir())
    head = f'--fuzz\r\nContent-Type: application/dicom\r\nContent-Disposition: form-data; filename="{name}"\r\n\r\n'
    assert post(doors, head.encode("latin-1") + file("1.9.8.1") + b"\r\n--fuzz--\r\n") in (200, 400)
    for uid in (name, "1.2/../../x", "../x"):
        assert post(doors, file("1.9.9.2", study=uid[:60]), "application/dicom") in (200, 409, 400)
    assert sorted(doors.settings.home.parent.iterdir()) == before
    assert not [p for p in doors.spool_files() if ".." in str(p) or "etc" in p.parts]


def test_after_all_that_it_stores(doors: Doors) -> None:
    assert post(doors, HEAD + file("1.9.77777") + b"\r\n--fuzz--\r\n") == 200
    doors.until(lambda: "1.9.77777" in doors.files())
