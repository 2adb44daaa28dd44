"""What clients in the field send that few think of, and images that few archives give back right."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from consumers.api import decoding
from consumers.api.accept import parse
from consumers.api.attributes import find
from consumers.api.match import _value_test
from consumers.api.qido import condition_of


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


@pytest.mark.parametrize("name", ["MR_small_bigendian.dcm", "emri_small_big_endian.dcm"])
def test_jpeg_2000_of_a_big_endian_instance_has_its_pixels(name: str) -> None:
    data = _bytes(name)
    made = pydicom.dcmread(io.BytesIO(decoding.jpeg2000(data)))
    assert made.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.90"
    assert np.array_equal(made.pixel_array, pydicom.dcmread(io.BytesIO(data)).pixel_array)


@pytest.mark.parametrize("name", ["SC_rgb_dcmtk_+eb+cy+s2.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm"])
def test_decoded_pixels_are_described_as_they_are(name: str) -> None:
    made = pydicom.dcmread(io.BytesIO(decoding.explicit(_bytes(name))))
    pixels = made.pixel_array
    assert len(made.PixelData) == pixels.size + pixels.size % 2
    assert made.PhotometricInterpretation in ("YBR_FULL", "RGB")
