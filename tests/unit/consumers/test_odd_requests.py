"""What clients in the field send that few think of, and images that few archives give back right."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRBigEndian

from consumers.api import decoding
from consumers.api.accept import parse
from consumers.api.attributes import find
from consumers.api.match import _value_test
from consumers.api.qido import condition_of
from tests.unit.consumers.archive import MemoryArchive, part10


def _bytes(name: str) -> bytes:
    path = get_testdata_file(name)
    assert path is not None
    return Path(str(path)).read_bytes()


@pytest.mark.parametrize("header", ["application/dicom, ", ", application/dicom", "application/dicom,, ,"])
def test_an_empty_element_of_a_list_says_nothing(header: str) -> None:
    assert [a.of for a in parse(header)] == ["application/dicom"]


@pytest.mark.parametrize(
    ("pattern", "value", "found"),
    [("X-A*", "X-A1", True), ("X-A*", "X_A 1", False), ("X-B*", "X-b", False), ("*-B", " X-B ", True)],
)
def test_a_pattern_of_an_identifier_is_literal(pattern: str, value: str, found: bool) -> None:
    condition = condition_of(find("PatientID"), pattern)
    assert condition is not None
    assert _value_test(condition, False)(value) is found


def as_jpeg_2000(data: bytes) -> pydicom.Dataset:
    """What an archive gives of it."""
    archive = MemoryArchive()
    archive.store([data])
    ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    path = f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    answer = archive.get(path, Accept="application/dicom; transfer-syntax=1.2.840.10008.1.2.4.90")
    assert answer.status_code == 200, answer.text
    made = pydicom.dcmread(io.BytesIO(answer.content))
    assert made.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.90"
    return made


@pytest.mark.parametrize("name", ["MR_small_bigendian.dcm", "emri_small_big_endian.dcm", "MR_small_implicit.dcm"])
def test_jpeg_2000_has_the_pixels_of_what_was_native(name: str) -> None:
    data = _bytes(name)
    assert np.array_equal(as_jpeg_2000(data).pixel_array, pydicom.dcmread(io.BytesIO(data)).pixel_array)


def test_jpeg_2000_has_the_tables_of_a_big_endian_instance() -> None:
    table = np.arange(0, 256, dtype="<u2")
    colours = {f"{c}PaletteColorLookupTable": table for c in ("Red", "Green", "Blue")}
    values: dict[str, Any] = {f"{name}Descriptor": [256, 0, 16] for name in colours}
    ds = pydicom.dcmread(
        io.BytesIO(
            part10(
                "1.2.3.1.1",
                rows=64,
                columns=64,
                PhotometricInterpretation="PALETTE COLOR",
                BitsAllocated=8,
                BitsStored=8,
                HighBit=7,
                pixels=bytes(64 * 64),
                **values,
            )
        )
    )
    for name, lut in colours.items():
        setattr(ds, f"{name}Data", lut.astype(">u2").tobytes())
        ds[f"{name}Data"].VR = "OW"
    pixels = bytes(n % 251 for n in range(64 * 64))
    ds.PixelData = pixels
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    big = io.BytesIO()
    pydicom.dcmwrite(big, ds, implicit_vr=False, little_endian=False)
    made = as_jpeg_2000(big.getvalue())
    assert all(made[f"{name}Data"].value == lut.tobytes() for name, lut in colours.items())
    assert made.pixel_array.tobytes() == pixels


@pytest.mark.parametrize("name", ["SC_rgb_dcmtk_+eb+cy+s2.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm"])
def test_decoded_pixels_are_described_as_they_are(name: str) -> None:
    made = pydicom.dcmread(io.BytesIO(decoding.explicit(_bytes(name))))
    pixels = made.pixel_array
    assert len(made.PixelData) == pixels.size + pixels.size % 2
    assert made.PhotometricInterpretation in ("YBR_FULL", "RGB")
