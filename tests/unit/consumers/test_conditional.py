"""Tags, conditional and range requests, and what is written anew in another transfer syntax."""

from __future__ import annotations

import gzip
import io
import itertools
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.api import retrieve
from consumers.api.conditional import NotSatisfiable, Part, part, unchanged
from consumers.api.plan import Plan
from consumers.api.wado import JPEG2000, Stored
from schemas.events import AccessGranted
from tests.unit.consumers.archive import MemoryArchive, part10, sample
from tests.unit.consumers.multipart import parts_of

BASE = "/dicom-web/studies/1.2.3"
ONE = f"{BASE}/series/1.2.3.1/instances/1.2.3.1.1"
DCIODVFY = Path("/usr/bin/dciodvfy")

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom warns of what its own files hold


@pytest.fixture(scope="module")
def archive() -> MemoryArchive:
    found = MemoryArchive()
    found.store([part10(f"1.2.3.1.{n}", InstanceNumber=n, frames=3, rows=16, columns=16) for n in (1, 2, 3)])
    found.store([part10("1.2.3.2.1", series="1.2.3.2", syntax="1.2.840.10008.1.2")])
    return found


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=90-", (90, 100)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        ("BYTES = 5-5", (5, 6)),
        ("bytes=9-5", None),
        ("bytes=0-1,5-6", None),
        ("bytes=-", None),
        ("lines=0-5", None),
        ("", None),
    ],
)
def test_ranges(asked: str, expected: tuple[int, int] | None) -> None:
    assert part(asked, "", '"t"', 100) == (expected and Part(*expected, 100))
    assert part(asked, '"other"', '"t"', 100) is None, "of another version the whole is given"


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=200-300", "bytes=-0"])
def test_no_byte_of_the_range(asked: str) -> None:
    with pytest.raises(NotSatisfiable):
        part(asked, "", '"t"', 100)


def test_tags_are_compared() -> None:
    assert unchanged('"a", W/"b"', '"b"')
    assert unchanged("*", '"b"')
    assert not unchanged('"a"', '"b"')


@given(
    st.lists(st.one_of(st.binary(max_size=9), st.tuples(st.integers(0, 40), st.integers(1, 9), st.binary(max_size=4)))),
    st.integers(0, 90),
    st.integers(0, 90),
)
def test_a_cut_is_that_part_of_the_whole(pieces: list[bytes | tuple[int, int, bytes]], start: int, stop: int) -> None:
    pack = bytes(range(50))

    def body(plan: Plan) -> bytes:
        return b"".join(
            s if isinstance(s, bytes) else s.head + pack[s.offset : s.offset + s.length]
            for s in plan.steps
            if isinstance(s, (bytes, Stored))
        )

    steps = tuple(p if isinstance(p, bytes) else Stored("p", p[0], p[1], p[2]) for p in pieces)
    plan = Plan("x", '"t"', steps)
    assert plan.length == len(body(plan))
    assert body(plan.cut(start, stop)) == body(plan)[start:stop] if start < stop else True


STREAMED = (
    (f"{ONE}", "application/dicom"),
    (f"{ONE}", 'multipart/related; type="application/dicom"'),
    (f"{ONE}/original", "application/dicom"),
    (f"{BASE}/series/1.2.3.1", 'multipart/related; type="application/dicom"'),
    (f"{ONE}/frames/1", "application/octet-stream"),
    (f"{ONE}/frames/2,1,3", 'multipart/related; type="application/octet-stream"'),
    (f"{BASE}/metadata", "application/dicom+json"),
)


@pytest.mark.parametrize(("path", "accept"), [s for s in STREAMED if not s[1].startswith("multipart")])
def test_parts_of_an_answer_make_it(archive: MemoryArchive, path: str, accept: str) -> None:
    headers = {"accept": accept, "Accept-Encoding": "identity"}
    whole = archive.get(path, **headers)
    size = len(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"
    cuts = [0, 1, 50, 200, size // 2, size]
    found = b""
    for first, stop in itertools.pairwise(cuts):
        answer = archive.get(path, **headers, Range=f"bytes={first}-{stop - 1}")
        assert answer.status_code == 206
        assert answer.headers["content-range"] == f"bytes {first}-{stop - 1}/{size}"
        assert int(answer.headers["content-length"]) == len(answer.content) == stop - first
        assert answer.headers["etag"] == whole.headers["etag"]
        found += answer.content
    assert found == whole.content
    beyond = archive.get(path, **headers, Range=f"bytes={size}-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")


@pytest.mark.parametrize(("path", "accept"), [*STREAMED, (f"{BASE}", 'multipart/related; type="application/dicom"')])
def test_what_the_client_has_is_not_sent_and_is_recorded(archive: MemoryArchive, path: str, accept: str) -> None:
    first = archive.get(path, accept=accept)
    before = len(archive.journal.events(AccessGranted))
    again = archive.get(path, accept=accept, **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert len(archive.journal.events(AccessGranted)) == before + 1, "each door has windows of its own"
    assert archive.get(path, accept=accept).content == first.content, "a strong tag names the bytes"


def test_what_arrives_changes_the_tag() -> None:
    archive = MemoryArchive()
    archive.store([part10("1.2.3.1.1")])
    tags = [archive.get(f"{BASE}/metadata").headers["etag"]]
    archive.store([part10("1.2.3.1.2")])
    tags.append(archive.get(f"{BASE}/metadata").headers["etag"])
    assert tags[0] != tags[1]
    other = archive.get(f"{BASE}/metadata", accept="application/dicom+json", Host="other.test")
    assert other.headers["etag"] != tags[1], "addresses within are others"


def test_metadata_are_sent_gzipped_to_who_takes_that(archive: MemoryArchive) -> None:
    plain = archive.get(f"{BASE}/metadata", **{"Accept-Encoding": "gzip;q=0"})
    packed = archive.get(f"{BASE}/metadata", **{"Accept-Encoding": "br, gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept, Accept-Encoding"
    assert packed.json() == plain.json()
    assert int(packed.headers["content-length"]) < len(plain.content) / 3
    assert packed.headers["etag"] != plain.headers["etag"]
    raw = archive.get(f"{BASE}/metadata", Range="bytes=0-1", **{"Accept-Encoding": "identity"})
    assert raw.content == plain.content[:2]
    assert gzip.compress(b"")[:2] == b"\x1f\x8b"


@pytest.mark.parametrize("accept", ["application/octet-stream", 'multipart/related; type="application/octet-stream"'])
def test_large_pixel_data_are_bulk_data_in_part(archive: MemoryArchive, accept: str) -> None:
    pixels = pydicom.dcmread(io.BytesIO(archive.get(f"{ONE}/original", accept="application/dicom").content)).PixelData
    whole = archive.get(f"{ONE}/bulkdata/7FE00010", accept=accept)
    body = whole.content if accept == "application/octet-stream" else parts_of(whole)[0].body
    assert body == pixels
    some = archive.get(f"{ONE}/bulkdata/7FE00010", accept=accept, Range="bytes=100-199")
    if accept == "application/octet-stream":
        assert (some.status_code, some.content) == (206, whole.content[100:200])
    else:
        assert (some.status_code, some.content) == (200, whole.content), "parts are not cut"


# ------------------------------------------------------------------------------------------------ transfer syntaxes


def jpeg2000(archive: MemoryArchive, path: str) -> httpx.Response:
    return archive.get(path, accept=f"application/dicom; transfer-syntax={JPEG2000}")


@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm", "SC_rgb.dcm", "JPEG-LL.dcm", "CT_small.dcm"]
)
@pytest.mark.client("dicom3tools dciodvfy", feature="WADO-RS JPEG 2000 lossless")
def test_jpeg2000_is_lossless(name: str, tmp_path: Path) -> None:
    data = sample(name)
    ds = pydicom.dcmread(io.BytesIO(data))
    archive = MemoryArchive()
    archive.store([data])
    path = f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    answer = jpeg2000(archive, path)
    assert answer.status_code == 200, answer.text[:300]
    found = pydicom.dcmread(io.BytesIO(answer.content))
    assert (found.file_meta.TransferSyntaxUID, found.SOPInstanceUID) == (JPEG2000, ds.SOPInstanceUID)
    assert np.array_equal(found.pixel_array, ds.pixel_array)
    assert found.PatientName == ds.PatientName
    if not DCIODVFY.exists():
        pytest.skip("no dciodvfy: make tools installs it")
    assert complaints(answer.content, tmp_path) <= complaints(data, tmp_path)


def complaints(data: bytes, folder: Path) -> set[str]:
    """Errors that dicom3tools' validator finds in a file, without values."""
    file = folder / "file.dcm"
    file.write_bytes(data)
    said = subprocess.run([DCIODVFY, file], capture_output=True, text=True, check=False, timeout=60, errors="replace")
    lines = said.stderr.splitlines()
    assert lines
    return {line.split(" - for")[0] for line in lines if line.startswith("Error")}


@pytest.mark.parametrize(
    "name", ["MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm"]
)
@pytest.mark.client("dicom3tools dciodvfy", feature="WADO-RS Explicit VR Little Endian")
def test_what_leaves_as_explicit_has_no_new_faults(name: str, tmp_path: Path) -> None:
    if not DCIODVFY.exists():
        pytest.skip("no dciodvfy: make tools installs it")
    data = sample(name)
    ds = pydicom.dcmread(io.BytesIO(data))
    archive = MemoryArchive()
    archive.store([data])
    path = f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    assert complaints(archive.get(path, accept="application/dicom").content, tmp_path) <= complaints(data, tmp_path)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2", "1.2.3"])
def test_others_are_not_made(archive: MemoryArchive, syntax: str) -> None:
    assert archive.get(ONE, accept=f"application/dicom; transfer-syntax={syntax}").status_code == 406


@pytest.mark.parametrize("accept", ["application/dicom", 'multipart/related; type="application/dicom"'])
@pytest.mark.parametrize("padding", [None, bytes(20)])
def test_large_implicit_ones_are_streamed_behind_a_new_header(
    accept: str, padding: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = part10(
        "1.2.3.1.1",
        syntax="1.2.840.10008.1.2",
        rows=64,
        columns=64,
        frames=20,
        pixels=bytes(n % 253 for n in range(64 * 64 * 2 * 20)),
        DataSetTrailingPadding=padding,
    )
    archive = MemoryArchive()
    archive.store([data])
    in_memory = archive.get(ONE, accept=accept)
    monkeypatch.setattr(retrieve, "STREAMED_MIN", 1)
    monkeypatch.setattr(retrieve, "REWRITE_MAX", 1)  # it does not come back to memory
    streamed = archive.get(ONE, accept=accept)
    assert streamed.status_code == 200
    assert streamed.content == in_memory.content
    body = streamed.content if accept == "application/dicom" else parts_of(streamed)[0].body
    assert pydicom.dcmread(io.BytesIO(body)).PixelData == pydicom.dcmread(io.BytesIO(data)).PixelData


@pytest.mark.parametrize("accept", ["application/dicom", 'multipart/related; type="application/dicom"'])
@pytest.mark.parametrize(
    "name",
    [
        "emri_small_RLE.dcm",
        "emri_small_jpeg_2k_lossless.dcm",
        "SC_rgb_rle_2frame.dcm",
        "MR_small_jp2klossless.dcm",
        "color3d_jpeg_baseline.dcm",
    ],
)
def test_large_compressed_ones_are_decoded_frame_by_frame(
    name: str, accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sample(name)
    ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    archive = MemoryArchive()
    archive.store([data])
    path = f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    in_memory = archive.get(path, accept=accept)
    monkeypatch.setattr(retrieve, "UNPACKED_MIN", 1)
    monkeypatch.setattr(retrieve, "REWRITE_MAX", 1)  # it does not come back to memory
    streamed = archive.get(path, accept=accept)
    assert streamed.status_code == 200, streamed.text[:300]
    assert streamed.content == in_memory.content
