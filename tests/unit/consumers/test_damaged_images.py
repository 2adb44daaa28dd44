"""An image that cannot be decoded costs itself, never the answer of its study; pixel data whose header is wrong."""

from __future__ import annotations

import io
import zipfile
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian

from consumers.api.wado import EXPLICIT_LE, IMPLICIT_LE
from tests.unit.consumers.archive import MemoryArchive, part10, sample
from tests.unit.consumers.multipart import Part, parts_of

DICOM = 'multipart/related; type="application/dicom"'
OCTETS = 'multipart/related; type="application/octet-stream"'
BASE = "/dicom-web/studies/1.2.3"
ONE = f"{BASE}/series/1.2.3.1/instances/1.2.3.1.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom warns of what its own files hold


def damaged(sop: str) -> bytes:
    """A file that says JPEG-LS, and has pixel data that are none."""
    ds = pydicom.dcmread(io.BytesIO(part10(sop)))
    ds.PixelData = encapsulate([b"no such image, whatever is tried"])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = UID(JPEG_LS)
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def compressed(name: str, sop: str) -> bytes:
    """One of pydicom's files as an instance of the study."""
    ds = pydicom.dcmread(io.BytesIO(sample(name)))
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(sop)
    out = io.BytesIO()
    ds.save_as(out)
    return out.getvalue()


def stored(*files: bytes) -> MemoryArchive:
    archive = MemoryArchive()
    archive.store(files)
    return archive


def get(archive: MemoryArchive, path: str, accept: str = "") -> list[Part]:
    answer = archive.get(path, **({"Accept": accept} if accept else {}))
    assert answer.status_code == 200, answer.text[:300]
    return parts_of(answer)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("accept", ["", "*/*", DICOM, f"{DICOM}; transfer-syntax=*"])
def test_a_study_leaves_whole_with_the_damaged_one_as_it_is_stored(accept: str, place: int) -> None:
    files = [compressed("MR_small_RLE.dcm", "1.2.3.1.1"), part10("1.2.3.1.2")]
    files.insert(place, damaged("1.2.3.1.3"))
    found = get(stored(*files), BASE, accept)
    assert len(found) == 3
    assert found[place].body == files[place]
    rle = "1.2.840.10008.1.2.5" if "transfer-syntax=*" in accept else EXPLICIT_LE
    syntaxes = [rle, EXPLICIT_LE]
    syntaxes.insert(place, JPEG_LS)
    assert [p.transfer_syntax for p in found] == syntaxes


def test_alone_it_is_refused() -> None:
    archive = stored(damaged("1.2.3.1.1"))
    for accept in ("", DICOM, "application/dicom"):
        assert archive.get(ONE, **({"Accept": accept} if accept else {})).status_code == 406
    assert archive.get(f"{ONE}/rendered").status_code == 406
    assert archive.get(f"{BASE}/rendered").status_code == 406
    assert archive.get(f"{BASE}/thumbnail").status_code == 406


def test_a_medium_has_it_and_its_directory_says_so() -> None:
    files = [compressed("MR_small_RLE.dcm", "1.2.3.1.1"), damaged("1.2.3.1.2")]
    answer = stored(*files).get(BASE, Accept="application/zip")
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as medium:
        assert medium.testzip() is None
        directory = pydicom.dcmread(io.BytesIO(medium.read("DICOMDIR")))
        told = {
            "/".join(r.ReferencedFileID): r.ReferencedTransferSyntaxUIDInFile
            for r in directory.DirectoryRecordSequence
            if "ReferencedFileID" in r
        }
        assert set(medium.namelist()) == {"DICOMDIR", *told}
        for name, syntax in told.items():
            assert pydicom.dcmread(io.BytesIO(medium.read(name))).file_meta.TransferSyntaxUID == syntax
        assert sorted(told.values()) == [EXPLICIT_LE, JPEG_LS]


def test_pictures_of_a_study_say_which_one_there_is_none_of() -> None:
    archive = stored(damaged("1.2.3.1.1"), part10("1.2.3.1.2"))
    found = get(archive, f"{BASE}/rendered")
    assert [p.headers["content-type"] for p in found] == ["application/problem+json", "image/jpeg"]
    assert [p.headers["content-location"] for p in found] == ["#1.2.3.1.1", "#1.2.3.1.2"]
    assert b"cannot be decoded" in found[0].body


def test_another_image_stands_for_a_study() -> None:
    archive = stored(part10("1.2.3.1.1"), damaged("1.2.3.1.2"), part10("1.2.3.1.3"))
    answer = archive.get(f"{BASE}/thumbnail")
    assert answer.status_code == 200
    assert Image.open(io.BytesIO(answer.content)).format == "JPEG"
    again = archive.get(f"{BASE}/thumbnail", **{"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


# ------------------------------------------------------------------------------------------------ wrong headers


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE])
@pytest.mark.parametrize(
    ("values", "size"),
    [({"BitsAllocated": 0}, 32), ({"Rows": 3}, 32), ({"NumberOfFrames": 4}, 64), ({"NumberOfFrames": 1}, 96)],
)
def test_bulk_pixel_data_are_as_long_as_they_are(syntax: str, values: dict[str, Any], size: int) -> None:
    pixels = bytes(n % 251 for n in range(size))
    archive = stored(part10("1.2.3.1.1", syntax=syntax, pixels=pixels, **values))
    answer = archive.get(f"{ONE}/bulkdata/7FE00010", Accept="application/octet-stream")
    assert (answer.status_code, answer.content) == (200, pixels)
    ranged = archive.get(f"{ONE}/bulkdata/7FE00010", Accept="application/octet-stream", Range="bytes=8-15")
    assert (ranged.status_code, ranged.content) == (206, pixels[8:16])
    (part,) = get(archive, f"{ONE}/bulkdata/7FE00010", OCTETS)
    assert part.body == pixels


def test_of_frames_that_are_cut_short_those_that_are_whole_can_be_had() -> None:
    pixels = bytes(n % 251 for n in range(2 * 32 + 8))
    archive = stored(part10("1.2.3.1.1", frames=5, pixels=pixels))
    (part,) = get(archive, f"{ONE}/frames/2", OCTETS)
    assert part.body == pixels[32:64]
    assert archive.get(f"{ONE}/frames/3").status_code == 404
    assert archive.get(f"{ONE}/frames/1/rendered").status_code == 200


@pytest.mark.parametrize(
    "window", [{"WindowCenter": "abc", "WindowWidth": "4"}, {"WindowCenter": "1", "WindowWidth": "x"}]
)
def test_a_window_that_is_no_number_is_none(window: dict[str, str]) -> None:
    data = part10("1.2.3.1.1", WindowCenter="77777", WindowWidth="88888")
    for value, long in ((window["WindowCenter"], b"77777 "), (window["WindowWidth"], b"88888 ")):
        data = data.replace(long, value.encode().ljust(6))
    without = stored(part10("1.2.3.1.1")).get(f"{ONE}/rendered", Accept="image/png")
    answer = stored(data).get(f"{ONE}/rendered", Accept="image/png")
    assert (answer.status_code, answer.content) == (200, without.content)


def test_a_region_beyond_the_image_is_the_askers_fault() -> None:
    answer = stored(part10("1.2.3.1.1")).get(f"{ONE}/rendered?viewport=10,10,100,100,5,5")
    assert (answer.status_code, answer.json()["reason"]) == (400, "viewport")


def test_bytes_of_a_big_endian_image_are_not_swapped_where_they_are_bytes() -> None:
    ds = pydicom.dcmread(io.BytesIO(part10("1.2.3.1.1", BitsAllocated=8, BitsStored=8, HighBit=7, pixels=bytes(16))))
    ds.PixelData = bytes(range(0, 160, 10))
    little, big = io.BytesIO(), io.BytesIO()
    ds["PixelData"].VR = "OB"
    pydicom.dcmwrite(little, ds, implicit_vr=False, little_endian=True)
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(big, ds, implicit_vr=False, little_endian=False)
    pictures = [
        np.asarray(Image.open(io.BytesIO(stored(f.getvalue()).get(f"{ONE}/rendered", Accept="image/png").content)))
        for f in (little, big)
    ]
    assert np.array_equal(pictures[0], pictures[1])
    assert np.all(np.diff(pictures[0].astype(int).ravel()) > 0)


# ------------------------------------------------------------------------------------------------ compressed bulk data


def test_compressed_pixel_data_leave_decoded_or_as_they_are_asked_for() -> None:
    data = sample("SC_rgb_rle_2frame.dcm")
    ds = pydicom.dcmread(io.BytesIO(data))
    archive = stored(data)
    instance = f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    path = f"{instance}/bulkdata/7FE00010"
    size = ds.pixel_array.nbytes
    for accept in ("", "*/*", OCTETS):
        (part,) = get(archive, path, accept)
        assert (part.transfer_syntax, len(part.body)) == (EXPLICIT_LE, size)
        # RLE has planes; the header, by which clients read them, says that there are none.
        assert ds.PlanarConfiguration == 0
        assert np.array_equal(np.frombuffer(part.body, "u1").reshape(ds.pixel_array.shape), ds.pixel_array)
    alone = archive.get(path, Accept="application/octet-stream")
    assert alone.content == part.body
    frames = get(archive, path, 'multipart/related; type="image/dicom-rle"')
    assert [p.headers["content-location"].rpartition("/")[2] for p in frames] == ["1", "2"]
    assert {p.transfer_syntax for p in frames} == {"1.2.840.10008.1.2.5"}
    raw = archive.get(path, Accept="application/octet-stream; transfer-syntax=*")
    assert raw.content == ds.PixelData
    assert archive.get(path, Accept="image/dicom-rle").status_code == 406
    assert archive.get(path, Accept="image/jpeg").status_code == 406


@pytest.mark.parametrize("name", ["SC_rgb_rle.dcm", "SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_rle_32bit.dcm"])
def test_decoded_frames_lie_as_the_header_says(name: str) -> None:
    data = sample(name)
    ds = pydicom.dcmread(io.BytesIO(data))
    archive = stored(data)
    instance = f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    (part,) = get(archive, f"{instance}/frames/1", OCTETS)
    first = ds.pixel_array[0] if ds.get("NumberOfFrames", 1) > 1 else ds.pixel_array
    assert part.body == first.tobytes()
    (whole,) = get(archive, instance, DICOM)
    made = pydicom.dcmread(io.BytesIO(whole.body))
    assert made.PlanarConfiguration == 0
    assert np.array_equal(made.pixel_array, ds.pixel_array)


# ------------------------------------------------------------------------------------------------ metadata as XML


def test_metadata_in_xml() -> None:
    archive = stored(*(part10(f"1.2.3.1.{n}", pixels=bytes(32)) for n in range(1, 61)))
    accept = 'multipart/related; type="application/dicom+xml"'
    answer = archive.get(f"{BASE}/metadata", Accept=accept)
    assert answer.headers["content-type"].startswith(accept)
    found = parts_of(answer)
    models = [ElementTree.fromstring(p.body) for p in found]  # noqa: S314 - our own answer
    uids = [m.findtext("DicomAttribute[@keyword='SOPInstanceUID']/Value") for m in models]
    assert uids == [f"1.2.3.1.{n}" for n in range(1, 61)]
    name = models[0].find("DicomAttribute[@keyword='PatientName']/PersonName/Ideographic/FamilyName")
    assert name is not None
    assert name.text == "منى حسن"
    again = archive.get(f"{BASE}/metadata", Accept=accept, **{"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    assert archive.get(f"{BASE}/metadata").headers["etag"] != answer.headers["etag"]
    assert archive.get(f"{BASE}/metadata", Accept="application/dicom+xml").status_code == 406


# ------------------------------------------------------------------------------------------------ what a search shows


def test_below_a_study_its_own_attributes_are_shown_where_they_are_asked_for() -> None:
    archive = stored(part10("1.2.3.1.1"))
    for path in (f"{BASE}/series", f"{BASE}/series/1.2.3.1/instances", f"{BASE}/instances"):
        (plain,) = archive.get(path).json()
        assert "00100010" not in plain
        (asked,) = archive.get(f"{path}?includefield=PatientName,StudyDate,0008103E").json()
        assert asked["00100010"]["Value"][0]["Alphabetic"] == "Hassan^Mona"
        assert asked["00080020"]["Value"] == ["20250228"]
        assert asked["0008103E"]["Value"] == ["axial"]


def test_a_key_that_matches_everything_is_shown() -> None:
    archive = stored(part10("1.2.3.1.1", PatientAge="045Y", Manufacturer="GE"))
    (plain,) = archive.get("/dicom-web/studies").json()
    assert "00101010" not in plain
    for value in ("", "*"):
        (asked,) = archive.get(f"/dicom-web/studies?PatientAge={value}").json()
        assert asked["00101010"]["Value"] == ["045Y"]
