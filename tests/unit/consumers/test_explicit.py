"""Native datasets written again as Explicit VR Little Endian, against pydicom on the files it ships."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from consumers.api.explicit import to_explicit, with_meta
from consumers.api.wado import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from schemas.errors import Invalid
from tests.unit.consumers.archive import FILES

TRUNCATED = {"rtplan_truncated.dcm", "no_meta_group_length.dcm"}
"""Files whose dataset ends inside an element, or whose File Meta has no length to find the dataset by."""


def native_files() -> list[Path]:
    found = []
    for path in sorted(FILES.glob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                meta = pydicom.filereader.read_file_meta_info(path)
            except (InvalidDicomError, OSError):
                continue
        if str(meta.get("TransferSyntaxUID", "")) in (IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE):
            found.append(path)
    return [p for p in found if p.name not in TRUNCATED]


def converted(data: bytes) -> tuple[bytes, str]:
    at = 144 + int.from_bytes(data[140:144], "little")
    syntax = str(pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True).file_meta.TransferSyntaxUID)
    view = memoryview(data)
    pieces = to_explicit(view[at:], syntax)
    return with_meta(view, at, EXPLICIT_LE, sop_class="", sop_uid="") + b"".join(pieces), syntax


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", native_files(), ids=lambda p: p.name)
def test_nothing_changes_but_the_encoding(path: Path) -> None:
    data, syntax = converted(path.read_bytes())
    before, after = pydicom.dcmread(path), pydicom.dcmread(io.BytesIO(data))
    assert after.file_meta.TransferSyntaxUID == EXPLICIT_LE
    old = {k: v for k, v in before.to_json_dict(suppress_invalid_tags=True).items() if k[4:] != "0000"}
    new = after.to_json_dict(suppress_invalid_tags=True)
    if syntax == EXPLICIT_BE:
        # pydicom leaves words as it found them; that they are turned is seen in the pixels below.
        words = {k for k, v in old.items() if v["vr"] == "OW"}
        assert words == {k for k, v in new.items() if v["vr"] == "OW"}
        old, new = ({k: v for k, v in d.items() if k not in words} for d in (old, new))
    assert new == old
    if "PixelData" in before and "BitsAllocated" in before:
        assert np.array_equal(before.pixel_array, after.pixel_array)


def test_there_are_files_of_each_syntax() -> None:
    assert len(native_files()) > 10


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def explicit(dataset: bytes) -> pydicom.Dataset:
    data = b"".join(to_explicit(memoryview(dataset), IMPLICIT_LE))
    return pydicom.dcmread(
        io.BytesIO(with_meta(memoryview(b""), 0, EXPLICIT_LE, sop_class="1.2", sop_uid="1.3") + data)
    )


def test_undefined_lengths_become_defined() -> None:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + element(0x00080100, b"CODE") + b"\xfe\xff\x0d\xe0\0\0\0\0"
    sequence = struct.pack("<HHI", 0x0008, 0x1032, 0xFFFFFFFF) + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    ds = explicit(element(0x00080000, b"\x10\0\0\0") + sequence + element(0x00100020, b"P1"))
    assert ds.ProcedureCodeSequence[0].CodeValue == "CODE"
    assert ds.PatientID == "P1"
    assert (0x0008, 0x0000) not in ds


def test_vrs_that_implicit_leaves_open() -> None:
    ds = explicit(
        element(0x00091001, b"who knows ")
        + element(0x00280103, struct.pack("<H", 1))
        + element(0x00280106, struct.pack("<h", -5))
        + element(0x7FE00010, bytes(4))
    )
    assert ds[0x00091001].VR == "UN"
    assert ds.SmallestImagePixelValue == -5
    assert ds["PixelData"].VR == "OW"


def test_a_value_too_long_for_its_vr_becomes_un() -> None:
    ds = explicit(element(0x00102000, b"x" * 70_000))
    assert ds[0x00102000].value in ("x" * 70_000, b"x" * 70_000)


@pytest.mark.parametrize(
    "dataset",
    [
        element(0x00100020, b"P1")[:-1],
        struct.pack("<HHI", 0x7FE0, 0x0010, 0xFFFFFFFF) + bytes(8),
        struct.pack("<HHI", 0x0008, 0x1032, 40) + element(0x00080100, b"CODE"),
        (struct.pack("<HHI", 0x0008, 0x1032, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * 70,
    ],
    ids=["cut", "undefined pixels", "no item", "too deep"],
)
def test_what_cannot_be_written_again_is_said(dataset: bytes) -> None:
    with pytest.raises(Invalid):
        to_explicit(memoryview(dataset), IMPLICIT_LE)


def test_a_deflated_dataset_that_is_none() -> None:
    with pytest.raises(Invalid):
        to_explicit(memoryview(b"nothing"), DEFLATED_LE)
