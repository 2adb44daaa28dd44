"""Datasets that say the same in other encodings have one canonical form; others do not."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from schemas.errors import Invalid
from streams.canonical import canonical

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def sample() -> Dataset:
    """A small image with a sequence, a private block and text of odd length."""
    ds = Dataset()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    ds.SOPInstanceUID = "1.2.3.4"
    ds.PatientName = "Odd^Name"
    ds.PatientID = "A"
    item = Dataset()
    item.CodeValue = "T-1"
    inner = Dataset()
    inner.CodeMeaning = "inner"
    item.ProcedureCodeSequence = Sequence([inner])
    ds.ProcedureCodeSequence = Sequence([item, Dataset()])
    block = ds.private_block(0x0011, "SIJIL TEST", create=True)
    block.add_new(1, "LO", "private")
    block.add_new(2, "US", 7)
    ds.Rows, ds.Columns = 2, 3
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelData = b"".join(n.to_bytes(2, "little") for n in (0, 1, 32, 8224, 65535, 256))
    ds["PixelData"].VR = "OW"
    return ds


def encoded(ds: Dataset, syntax: str = ExplicitVRLittleEndian, change: Callable[[Dataset], None] | None = None) -> str:
    """Canonical digest of a dataset as written in a transfer syntax."""
    ds = copy.deepcopy(ds)
    if change is not None:
        change(ds)
    if syntax == ExplicitVRBigEndian:
        data = ds.PixelData
        ds.PixelData = b"".join(data[i : i + 2][::-1] for i in range(0, len(data), 2))
        ds["PixelData"].VR = "OW"
    out = BytesIO()
    write_dataset(_file(out, syntax), ds)
    return canonical(out.getvalue(), syntax)


def _file(out: BytesIO, syntax: str) -> DicomFileLike:
    file = DicomFileLike(out)
    file.is_implicit_VR = syntax == ImplicitVRLittleEndian
    file.is_little_endian = syntax != ExplicitVRBigEndian
    return file


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_the_encoding_makes_no_difference(syntax: str) -> None:
    assert encoded(sample(), syntax) == encoded(sample())


def undefined_lengths(ds: Dataset) -> None:
    ds["ProcedureCodeSequence"].is_undefined_length = True
    for item in ds.ProcedureCodeSequence:
        item.is_undefined_length_sequence_item = True


def trailing_padding(ds: Dataset) -> None:
    ds.add_new(0xFFFCFFFC, "OB", b"\0" * 64)


def group_length(ds: Dataset) -> None:
    ds.add_new(0x00100000, "UL", 12345)


@pytest.mark.parametrize("change", [undefined_lengths, trailing_padding, group_length])
def test_what_senders_change_makes_no_difference(change: Callable[[Dataset], None]) -> None:
    assert encoded(sample(), change=change) == encoded(sample())


def pixel(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[:-1] + b"\2"


def value(ds: Dataset) -> None:
    ds.PatientID = "B"


def nested(ds: Dataset) -> None:
    ds.ProcedureCodeSequence[0].ProcedureCodeSequence[0].CodeMeaning = "other"


def fewer_items(ds: Dataset) -> None:
    del ds.ProcedureCodeSequence[1]


def removed(ds: Dataset) -> None:
    del ds.PatientName


def private(ds: Dataset) -> None:
    ds[0x00111002].value = 8


def number(ds: Dataset) -> None:
    ds.Rows, ds.Columns = 3, 2


@pytest.mark.parametrize("change", [pixel, value, nested, fewer_items, removed, private, number])
def test_content_makes_a_difference(change: Callable[[Dataset], None]) -> None:
    assert encoded(sample(), change=change) != encoded(sample())


@pytest.mark.parametrize("name", ["CT_small.dcm", "examples_rgb_color.dcm", "MR_small.dcm"])
@pytest.mark.parametrize("syntax", [RLELossless])
def test_losslessly_compressed_frames_are_decoded(name: str, syntax: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(FILES / name)
        plain, compressed = BytesIO(), BytesIO()
        ds.save_as(plain)
        ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(compressed)
        assert canonical(*split(plain.getvalue())) == canonical(*split(compressed.getvalue()))


def colour(ds: Dataset, planar: int, data: bytes) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", planar
    ds.Rows, ds.Columns = 1, 2
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelData = data


def test_the_order_of_samples_makes_no_difference() -> None:
    pixels = encoded(sample(), change=lambda ds: colour(ds, 0, b"RGBrgb"))
    planes = encoded(sample(), change=lambda ds: colour(ds, 1, b"RrGgBb"))
    assert planes == pixels
    assert encoded(sample(), change=lambda ds: colour(ds, 1, b"RGBrgb")) != pixels


def split(part10: bytes) -> tuple[bytes, str]:
    """(dataset, transfer syntax) of a file."""
    meta = pydicom.dcmread(BytesIO(part10), stop_before_pixels=True).file_meta
    length = int.from_bytes(part10[140:144], "little")
    return part10[144 + length :], str(meta.TransferSyntaxUID)


@pytest.mark.parametrize("data", [b"not DICOM at all, but long enough to look at", b"\x08\x00\x18\x00UI\xff\x00"])
def test_any_bytes_have_a_digest_or_are_refused(data: bytes) -> None:
    with suppress(Invalid):
        assert len(canonical(data, ExplicitVRLittleEndian)) == 64


def test_a_deep_nest_is_refused() -> None:
    # (0008,1032) SQ of undefined length with an item of undefined length, again and again.
    level = b"\x08\x00\x32\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(Invalid, match="not-comparable"):
        canonical(level * 5000, ExplicitVRLittleEndian)
