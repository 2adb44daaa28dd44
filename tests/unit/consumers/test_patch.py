"""Corrected attributes in a dataset's bytes: as pydicom reads them, and nothing else changed."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from consumers.api.patch import patched
from schemas.errors import Invalid

ARABIC = "حسن^منى"


def dataset(charset: str | None = "ISO_IR 100", name: str = "Müller^Jörg", *, undefined: bool = True) -> bytes:
    ds = pydicom.Dataset()
    if charset is not None:
        ds.SpecificCharacterSet = charset.split("\\") if "\\" in charset else charset
    ds.SOPInstanceUID = "1.2.3"
    item = pydicom.Dataset()
    item.ReferencedSOPInstanceUID = "1.2.4"
    nested = pydicom.Dataset()
    nested.CodeValue = "X"
    item.PurposeOfReferenceCodeSequence = Sequence([nested])
    item.PurposeOfReferenceCodeSequence.is_undefined_length = undefined
    item.is_undefined_length_sequence_item = undefined
    ds.ReferencedStudySequence = Sequence([item, item])
    ds["ReferencedStudySequence"].is_undefined_length = undefined
    ds.StudyDescription = "old"
    ds.PatientName = name
    ds.PatientID = "P"
    ds.Rows = 2
    buffer = BytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False  # type: ignore[attr-defined]
    fp = pydicom.filebase.DicomBytesIO()
    fp.is_little_endian, fp.is_implicit_VR = True, False
    write_dataset(fp, ds)
    return bytes(fp.getvalue()) + b"\xe0\x7f\x10\x00OW\0\0\4\0\0\0\1\2\3\4"


def read(data: bytes) -> pydicom.Dataset:
    ds = pydicom.filereader.read_dataset(BytesIO(data), False, True)
    ds.decode()
    return ds


def whole(data: bytes, edits: dict[str, str]) -> bytes:
    found = patched(memoryview(data), edits, whole=True)
    assert found is not None
    head, at = found
    return head + data[at:]


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("charset", [None, "ISO_IR 100", "ISO_IR 192", "ISO_IR 127", "ISO_IR 144", "ISO 2022 IR 6"])
@pytest.mark.parametrize("name", ["Plain^Name", ARABIC, f"Hassan^Mona={ARABIC}", "Ünal^Ömer", f"Ö^a={ARABIC}", ""])
def test_as_pydicom_reads_it(charset: str | None, name: str, undefined: bool) -> None:
    old = {"ISO_IR 100": "Müller^Jörg", "ISO_IR 192": "Müller^منى", "ISO_IR 127": ARABIC, "ISO_IR 144": "Люк^A"}
    data = dataset(charset, old.get(charset or "", "A^B"), undefined=undefined)
    changed = read(whole(data, {"00100010": name, "00080050": "A-1", "00200060": "L", "00081030": ""}))
    before = read(data)
    assert str(changed.PatientName) == name
    assert (changed.AccessionNumber, changed.Laterality, changed.StudyDescription) == ("A-1", "L", "")
    assert changed.ReferencedStudySequence == before.ReferencedStudySequence
    assert (changed.PatientID, changed.Rows) == ("P", 2)
    assert changed[0x7FE00010].value == b"\1\2\3\4"
    tags = list(changed.keys())
    assert tags == sorted(tags)


def test_text_that_is_not_corrected_keeps_its_meaning() -> None:
    changed = read(whole(dataset("ISO_IR 100", "Müller^Jörg"), {"00081030": "تصوير"}))
    assert str(changed.PatientName) == "Müller^Jörg"
    assert changed.StudyDescription == "تصوير"
    assert list(changed.SpecificCharacterSet) == ["ISO 2022 IR 100", "ISO 2022 IR 127"]


def test_nothing_to_correct_changes_nothing() -> None:
    assert whole(dataset(), {}) == dataset()


@given(cut=st.integers(0, 200))
def test_a_prefix_that_is_too_short_says_so(cut: int) -> None:
    data, edits = dataset(), {"00100010": "New^Name"}
    found = patched(memoryview(data)[:cut], edits, whole=False)
    if found is not None:
        head, at = found
        assert head + data[at:] == whole(data, edits)


def test_damage() -> None:
    with pytest.raises(Invalid):
        patched(
            memoryview(b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\x08\0\x50\0SH\4\0abcd" * 3),
            {"00100010": "x"},
            whole=True,
        )
    with pytest.raises(Invalid):
        patched(memoryview(dataset()), {"00100010": "漢字"}, whole=True)
