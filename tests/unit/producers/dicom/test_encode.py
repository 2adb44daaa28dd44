"""DICOM JSON to datasets, against the way back and against pydicom."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_charset_files
from pydicom.filereader import read_dataset

from producers.dicom.encode import Referred, encode
from producers.dicom.header import header_json
from producers.dicom.part10 import parse_file_meta
from producers.dicom.syntaxes import EXPLICIT_LE
from producers.stow.bulk import transfer_syntax
from schemas.errors import Invalid
from tests.unit.consumers.archive import FILES


def whole(dataset: dict[str, Any]) -> bytes:
    (data,) = encode(dataset)
    assert isinstance(data, bytes)
    return data


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm", "rtplan.dcm", "rtdose_1frame.dcm", "reportsi.dcm", "test-SR.dcm",
        "UN_sequence.dcm", "waveform_ecg.dcm", "liver_1frame.dcm", "chrH31.dcm", "chrArab.dcm",
        "chrX1.dcm",
    ],
)  # fmt: skip
def test_headers_survive_the_way_there_and_back(name: str) -> None:
    path = FILES / name
    raw = memoryview(path.read_bytes() if path.exists() else Path(get_charset_files(name)[0]).read_bytes())
    meta = parse_file_meta(raw)
    first = json.loads(header_json(raw[meta.dataset_offset :], meta.transfer_syntax).json)
    pieces = encode(first)
    data = b"".join(p if isinstance(p, bytes) else b"" for p in pieces)
    second = json.loads(header_json(memoryview(data), EXPLICIT_LE).json)
    assert second == _without_bulk(first)


def _without_bulk(value: Any) -> Any:
    """What was left out here is left out there."""
    if isinstance(value, dict):
        return {k: _without_bulk(v) for k, v in value.items() if not (isinstance(v, dict) and "BulkDataURI" in v)}
    return [_without_bulk(v) for v in value] if isinstance(value, list) else value


def test_numbers_and_texts_as_pydicom_reads_them() -> None:
    dataset = {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]},
        "00081030": {"vr": "LO", "Value": ["تصوير", None, "b"]},
        "00180050": {"vr": "DS", "Value": [1.25, "3.5", 1234567.123456789012]},
        "00200013": {"vr": "IS", "Value": [7]},
        "00209165": {"vr": "AT", "Value": ["00181234"]},
        "00089459": {"vr": "FL", "Value": ["NaN", 1.5]},
        "00280106": {"vr": "SS", "Value": [-5]},
        "00420011": {"vr": "OB", "InlineBinary": "AQID"},
        "00081140": {"vr": "SQ"},
        "00081115": {"vr": "SQ", "Value": [{"0020000E": {"vr": "UI", "Value": ["1.2"]}}, {}]},
        "00083002": {"vr": "UI", "Value": ["1.2.840.10008.1.2.1"]},
        "00020010": {"vr": "UI", "Value": ["1.2.840.10008.1.2.1"]},
        "00100010": {"vr": "PN"},
    }
    ds = read_dataset(BytesIO(whole(dataset)), False, True)
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert list(ds.StudyDescription) == ["تصوير", "", "b"]
    assert [float(v) for v in ds.SliceThickness] == [1.25, 3.5, 1234567.12345679]
    assert ds.InstanceNumber == 7
    assert ds[0x00209165].value == 0x00181234
    assert ds[0x00280106].value == -5
    assert ds.EncapsulatedDocument == b"\1\2\3\0"
    assert len(ds.ReferencedSeriesSequence) == 2
    assert "PatientName" in ds
    assert 0x00083002 not in ds
    assert 0x00020010 not in ds


def test_bulk_data_leave_a_place() -> None:
    uri = {"vr": "OW", "BulkDataURI": "a/1"}
    pieces = encode({"00189810": {"vr": "SQ", "Value": [{"00660016": uri}]}, "7FE00010": uri})
    assert [p for p in pieces if isinstance(p, Referred)] == [
        Referred(0x00660016, "OW", "a/1", 1),
        Referred(0x7FE00010, "OW", "a/1", 0),
    ]


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        (5, "metadata-json"),
        ({"vr": "US", "Value": ["x"]}, "metadata-value"),
        ({"vr": "US", "Value": [70000]}, "metadata-value"),
        ({"vr": "US", "Value": 7}, "metadata-json"),
        ({"vr": "LO", "Value": [5]}, "metadata-value"),
        ({"vr": "OB", "InlineBinary": "%%%"}, "metadata-json"),
        ({"vr": "LO", "InlineBinary": "AQID"}, "metadata-json"),
        ({"vr": "XX", "Value": [1]}, "metadata-value"),
        ({"vr": "SQ", "Value": [5]}, "metadata-json"),
        ({"vr": "PN", "Value": [5]}, "metadata-value"),
        ({"vr": "LO", "Value": ["x" * 70000]}, "metadata-length"),
        ({"vr": "SQ", "BulkDataURI": "x"}, None),
        ({"vr": "OB", "BulkDataURI": 7}, "metadata-json"),
    ],
)
def test_what_is_no_element(element: Any, reason: str | None) -> None:
    if reason is None:
        encode({"00081115": element})
        return
    with pytest.raises(Invalid) as error:
        encode({"00080050": element})
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("media_type", "said", "expected"),
    [
        ("application/octet-stream", "", EXPLICIT_LE),
        ("application/octet-stream", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.50"),
        ("image/jpeg", "", "1.2.840.10008.1.2.4.70"),
        ("image/dicom-rle", "", "1.2.840.10008.1.2.5"),
        ("video/h265", "1.2.840.10008.1.2.4.108", "1.2.840.10008.1.2.4.108"),
        ("image/jphc", "", "1.2.840.10008.1.2.4.201"),
        ("text/html", "", ""),
        ("image/jpeg", "1.2.840.10008.1.2.1", ""),
        ("application/octet-stream", "1.2.840.10008.1.2.2", ""),
        ("application/octet-stream", "1.2.3", ""),
    ],
)
def test_transfer_syntax_of_parts(media_type: str, said: str, expected: str) -> None:
    if expected:
        assert transfer_syntax(media_type, said, b"") == expected
    else:
        with pytest.raises(Invalid):
            transfer_syntax(media_type, said, b"")


def test_a_dataset_with_everything_ascii_keeps_its_character_set() -> None:
    data = whole({"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}, "00100010": {"vr": "PN", "Value": ["A^B"]}})
    assert read_dataset(BytesIO(data), False, True).SpecificCharacterSet == "ISO_IR 100"
    assert b"ISO_IR 192" not in data
