"""STOW-RS with metadata and bulk data in parts of their own; what stands behind the door is in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pydicom.encaps import generate_frames

from tests.stack.gateway_doors import Doors, open_doors
from tests.stack.test_gateway_stow import code, failed, stored
from tests.unit.consumers.archive import sample
from tests.unit.producers.samples import CT, STUDY

B = "x-7"
MULTIPART = f'multipart/related; type="application/dicom+json"; boundary={B}'
JPEG = "1.2.840.10008.1.2.4."


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    with open_doors(tmp_path / "home", monkeypatch) as both:
        yield both


def header(sop: str, **more: Any) -> dict[str, Any]:
    """A CT's metadata; `more` are elements by their tag with an `x` in front."""
    return {
        "00080016": {"vr": "UI", "Value": [CT]},
        "00080018": {"vr": "UI", "Value": [sop]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Hassan^Mona", "Ideographic": "منى حسن"}]},
        "00100020": {"vr": "LO", "Value": ["P-1"]},
        "0020000D": {"vr": "UI", "Value": [STUDY]},
        "0020000E": {"vr": "UI", "Value": [STUDY + ".1"]},
        "00280010": {"vr": "US", "Value": [16]},
        "00280011": {"vr": "US", "Value": [16]},
        **{tag.removeprefix("x"): element for tag, element in more.items()},
    }


def bulk(uri: str, vr: str = "OW") -> dict[str, str]:
    return {"vr": vr, "BulkDataURI": uri}


def post(
    doors: Doors, metadata: object, parts: list[tuple[str, str, bytes]], path: str = "/studies", **headers: str
) -> httpx.Response:
    """`parts`: (location, type, content)."""
    content = f"--{B}\r\nContent-Type: application/dicom+json\r\n\r\n".encode() + json.dumps(metadata).encode()
    for location, kind, data in parts:
        content += f"\r\n--{B}\r\nContent-Type: {kind}\r\nContent-Location: {location}\r\n\r\n".encode() + data
    content += f"\r\n--{B}--\r\n".encode()
    given = {"Content-Type": MULTIPART, "Accept": "application/dicom+json", **headers}
    return httpx.post(doors.url + path, content=content, headers=given, timeout=60)


def read(doors: Doors, sop: str) -> pydicom.FileDataset:
    doors.until(lambda: sop in doors.files())
    return pydicom.dcmread(BytesIO(doors.files()[sop]))


def test_uncompressed(doors: Doors) -> None:
    pixels = os.urandom(511)
    answer = post(
        doors, [header("1.2.1", x7FE00010=bulk("pixels/1"))], [("pixels/1", "application/octet-stream", pixels)]
    )
    assert (answer.status_code, stored(answer)) == (200, ["1.2.1"])
    ds = read(doors, "1.2.1")
    assert ds.file_meta.TransferSyntaxUID == JPEG[: -len("4.")] + "1"
    assert ds.PixelData == pixels + b"\0"
    assert str(ds.PatientName) == "Hassan^Mona=منى حسن"
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert (ds.Rows, ds.PatientID) == (16, "P-1")


@pytest.mark.parametrize(
    ("name", "kind", "syntax"),
    [
        ("SC_rgb_jpeg_dcmtk.dcm", "image/jpeg", "50"),
        ("JPEG-lossy.dcm", "image/jpeg", "51"),
        ("JPEG-LL.dcm", "image/jpeg", "70"),
        ("JPEG2000.dcm", "image/jp2", "91"),
        ("MR_small_jp2klossless.dcm", "image/jp2", "90"),
        ("MR_small_jpeg_ls_lossless.dcm", "image/jls", "80"),
        ("JPEG2000.dcm", f"application/octet-stream; transfer-syntax={JPEG}91", "91"),
    ],
)
def test_compressed_frames_say_what_they_are(doors: Doors, name: str, kind: str, syntax: str) -> None:
    (frame,) = generate_frames(pydicom.dcmread(BytesIO(sample(name))).PixelData, number_of_frames=1)
    answer = post(doors, [header("1.2.1", x7FE00010=bulk("p"))], [("p", kind, frame)])
    assert answer.status_code == 200, answer.text
    ds = read(doors, "1.2.1")
    assert ds.file_meta.TransferSyntaxUID == JPEG + syntax
    assert list(generate_frames(ds.PixelData, number_of_frames=1)) == [frame + b"\0" * (len(frame) & 1)]


def test_frames_in_parts_of_one_location(doors: Doors) -> None:
    frames = [os.urandom(100 + n) for n in range(4)]
    parts = [("f", "image/dicom-rle; transfer-syntax=1.2.840.10008.1.2.5", f) for f in frames]
    metadata = header("1.2.1", x7FE00010=bulk("f"), x00280008={"vr": "IS", "Value": [4]})
    assert post(doors, [metadata], parts).status_code == 200
    found = generate_frames(read(doors, "1.2.1").PixelData, number_of_frames=4)
    assert [f[: len(g)] for f, g in zip(found, frames, strict=True)] == frames


def test_video_and_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long parts go through files."""
    with open_doors(tmp_path, monkeypatch, body_buffer_mb=1, pack_own_mb=4) as doors:
        film, paper = os.urandom(6 << 20), b"%PDF-1.7 " + os.urandom(2 << 20)
        metadata = [
            header("1.2.1", x00080016={"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.77.1.4.1"]}, x7FE00010=bulk("v")),
            header(
                "1.2.2",
                x00080016={"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.104.1"]},
                x00420011=bulk("d", "OB"),
                x00420012={"vr": "LO", "Value": ["application/pdf"]},
            ),
        ]
        answer = post(doors, metadata, [("v", "video/mp4", film), ("d", "application/pdf", paper)])
        assert (answer.status_code, stored(answer)) == (200, ["1.2.1", "1.2.2"])
        video, document = read(doors, "1.2.1"), read(doors, "1.2.2")
        assert video.file_meta.TransferSyntaxUID == JPEG + "102"
        assert next(generate_frames(video.PixelData, number_of_frames=1)) == film
        assert document.EncapsulatedDocument == paper + b"\0" * (len(paper) & 1)
        assert doors.spool_files() == []


def test_instances_that_cannot_be_made_are_told_apart(doors: Doors) -> None:
    octets = "application/octet-stream"
    metadata = [
        header("1.2.1", x7FE00010=bulk("p")),
        header("1.2.2", x7FE00010=bulk("nowhere")),
        header("1.2.3", x00280010={"vr": "US", "Value": ["x"]}),
        header("1.2.4", x7FE00010=bulk("q")),
        header("1.2.5", x0020000D={"vr": "UI", "Value": ["1.9"]}),
    ]
    parts = [("p", octets, b"12"), ("q", "text/html", b"12")]
    answer = post(doors, metadata, parts, f"/studies/{STUDY}")
    assert (answer.status_code, stored(answer)) == (202, ["1.2.1"])
    assert failed(answer) == [
        ("1.2.2", code("bulk-data-missing")),
        ("1.2.3", code("metadata-value")),
        ("1.2.4", code("bulk-data-syntax")),
        ("1.2.5", code("study-mismatch")),
    ]
    doors.until(lambda: len(doors.rejected()) == 4)


def test_locations_are_addresses(doors: Doors) -> None:
    """A relative one in the metadata is an absolute one at its part, and the other way round."""
    parts = [
        (f"{doors.url}/bulk/1", "application/octet-stream", b"12"),
        ("bulk/2", "application/octet-stream", b"34"),
    ]
    metadata = [
        header("1.2.1", x7FE00010=bulk("bulk/1")),
        header("1.2.2", x7FE00010=bulk(f"{doors.url}/bulk/2")),
    ]
    assert post(doors, metadata, parts).status_code == 200
    assert read(doors, "1.2.2").PixelData == b"34"


@pytest.mark.parametrize("metadata", ["x", 5, [5], {"0008": 1}, [[]], [{"00080018": 5}]])
def test_what_is_no_metadata(doors: Doors, metadata: object) -> None:
    answer = post(doors, metadata, [])
    assert answer.status_code in (400, 409), answer.text
    doors.until(lambda: doors.spool_files() == [])


def test_one_dataset_without_bulk_data(doors: Doors) -> None:
    answer = httpx.post(
        doors.url + "/studies",
        content=json.dumps([header("1.2.1")]),
        headers={"Content-Type": "application/dicom+json"},
    )
    assert (answer.status_code, stored(answer)) == (200, ["1.2.1"])


def deep(levels: int) -> Mapping[str, Any]:
    item: dict[str, Any] = {"00080100": {"vr": "SH", "Value": ["X"]}}
    for _ in range(levels):
        item = {"0040A730": {"vr": "SQ", "Value": [item]}}
    return item


def test_deep_sequences(doors: Doors) -> None:
    metadata = [header("1.2.1", **{f"x{t}": e for t, e in deep(60).items()})]
    metadata += [header("1.2.2", **{f"x{t}": e for t, e in deep(120).items()})]
    answer = post(doors, metadata, [])
    assert (answer.status_code, stored(answer)) == (202, ["1.2.1"])
    assert failed(answer) == [("1.2.2", code("metadata-too-deep"))]


XML = """<?xml version="1.0" encoding="UTF-8"?>
<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">
<DicomAttribute tag="00080016" vr="UI" keyword="SOPClassUID"><Value number="1">{sop_class}</Value></DicomAttribute>
<DicomAttribute tag="00080018" vr="UI" keyword="SOPInstanceUID"><Value number="1">{sop}</Value></DicomAttribute>
<DicomAttribute tag="00081115" vr="SQ" keyword="ReferencedSeriesSequence"><Item number="1">
  <DicomAttribute tag="0020000E" vr="UI" keyword="SeriesInstanceUID"><Value number="1">1.2</Value></DicomAttribute>
</Item></DicomAttribute>
<DicomAttribute tag="00100010" vr="PN" keyword="PatientName"><PersonName number="1">
  <Alphabetic><FamilyName>Hassan</FamilyName><GivenName>Mona</GivenName></Alphabetic>
  <Ideographic><FamilyName>حسن</FamilyName></Ideographic></PersonName></DicomAttribute>
<DicomAttribute tag="0020000D" vr="UI" keyword="StudyInstanceUID"><Value number="1">{study}</Value></DicomAttribute>
<DicomAttribute tag="0020000E" vr="UI" keyword="SeriesInstanceUID"><Value number="1">{study}.1</Value></DicomAttribute>
<DicomAttribute tag="00280010" vr="US" keyword="Rows"><Value number="1">16</Value></DicomAttribute>
<DicomAttribute tag="00420011" vr="OB" keyword="EncapsulatedDocument"><InlineBinary>AQID</InlineBinary></DicomAttribute>
<DicomAttribute tag="7FE00010" vr="OW" keyword="PixelData"><BulkData uri="p/{sop}"/></DicomAttribute>
</NativeDicomModel>"""


def test_metadata_as_xml(doors: Doors) -> None:
    content = b""
    for sop in ("1.2.1", "1.2.2"):
        part = XML.format(sop=sop, study=STUDY, sop_class=CT).encode()
        content += f"\r\n--{B}\r\nContent-Type: application/dicom+xml\r\n\r\n".encode() + part
    content += f"\r\n--{B}\r\nContent-Type: application/dicom+xml\r\n\r\n<!DOCTYPE a><NativeDicomModel/>".encode()
    for sop in ("1.2.1", "1.2.2"):
        content += f"\r\n--{B}\r\nContent-Location: p/{sop}\r\n\r\n".encode() + sop.encode()
    content += f"\r\n--{B}--\r\n".encode()
    headers = {"Content-Type": MULTIPART.replace("json", "xml"), "Accept": "application/dicom+json"}
    answer = httpx.post(doors.url + "/studies", content=content, headers=headers, timeout=60)
    assert (answer.status_code, stored(answer)) == (202, ["1.2.1", "1.2.2"])
    assert failed(answer) == [("", code("metadata-xml"))]
    ds = read(doors, "1.2.2")
    assert (ds.PixelData, ds.Rows, str(ds.PatientName)) == (b"1.2.2\0", 16, "Hassan^Mona=حسن")
    assert ds.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2"
    assert ds.EncapsulatedDocument == b"\1\2\3\0"
