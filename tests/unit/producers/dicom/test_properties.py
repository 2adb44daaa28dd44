"""Random datasets and damaged ones: read as pydicom reads them, or refused, never anything else."""

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from producers.dicom.essentials import essentials
from producers.dicom.header import header_json
from producers.dicom.part10 import parse_file_meta
from producers.dicom.reasons import MARKS, REASONS
from producers.dicom.syntaxes import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from schemas.errors import Invalid
from tests.unit.producers.dicom.oracle import DIFFERENCES, differences, ours, theirs
from tests.unit.producers.dicom.samples import DATA_STORE, TEST_FILES

SYNTAXES = [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE]

# ------------------------------------------------------------------------------------------------ random datasets

ascii_text = st.text(st.characters(codec="ascii", min_codepoint=32, exclude_characters="\\="), max_size=20)
arabic_text = st.text(st.sampled_from("ابتثجحخدذرزسشصضطظعغفقكلمنهويأإآةى ^-AbC1"), max_size=16)
uid = st.from_regex(r"[1-9][0-9]{0,6}(\.(0|[1-9][0-9]{0,6})){1,5}", fullmatch=True)
# pydicom has no JSON for a list with an empty name.
names = st.builds("=".join, st.lists(arabic_text.filter(str.strip), min_size=1, max_size=3))


def several(one: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return one | st.lists(one, min_size=2, max_size=4)


def number(low: int, high: int) -> st.SearchStrategy[Any]:
    return several(st.integers(low, high))


BY_TAG: dict[int, st.SearchStrategy[Any]] = {
    0x00080008: several(st.from_regex(r"[A-Z_ ]{1,12}", fullmatch=True)),  # CS
    0x00080020: st.dates().map(lambda date: date.strftime("%Y%m%d")),  # DA
    0x00080030: st.sampled_from(["", "07", "235959.999999", "0730"]),  # TM
    0x0008002A: st.sampled_from(["20240229", "20240229120000.5+0200"]),  # DT
    0x00080054: several(ascii_text.map(lambda text: text[:16])),  # AE
    0x00080119: several(arabic_text),  # UC
    0x00080120: st.just("http://example.test/a?b=c"),  # UR
    0x00081030: arabic_text,  # LO
    0x00081155: several(uid),  # UI
    0x00100010: several(names),  # PN
    0x00101010: st.from_regex(r"[0-9]{3}[DWMY]", fullmatch=True),  # AS
    0x001021B0: arabic_text,  # LT
    0x00181050: several(st.floats(-1e6, 1e6).map(lambda value: f"{value:.6g}")),  # DS
    0x00189073: number(0, 0) | several(st.floats(allow_nan=False)),  # FD
    0x00200013: number(-(1 << 31), (1 << 31) - 1),  # IS
    0x00280010: number(0, (1 << 16) - 1),  # US
    0x00280009: several(st.integers(0, 0xFFFFFFFF)),  # AT
    0x00280106: number(0, 255),  # US or SS
    0x00400009: arabic_text.map(lambda text: text[:8]),  # SH
    0x0040A160: arabic_text,  # UT
    0x00420011: st.binary(max_size=2000),  # OB
    0x00186020: number(-(1 << 31), (1 << 31) - 1),  # SL
    0x00081161: number(0, (1 << 32) - 1),  # UL
    0x00720082: number(-(1 << 63), (1 << 63) - 1),  # SV
    0x00720083: number(0, (1 << 64) - 1),  # UV
    0x00189219: number(-(1 << 15), (1 << 15) - 1),  # SS
    0x7FE00001: st.binary(max_size=64).map(lambda raw: raw[: len(raw) // 8 * 8]),  # OV
    0x00660016: st.binary(max_size=64).map(lambda raw: raw[: len(raw) // 4 * 4]),  # OF
    0x00091001: st.just("7"),  # private, LO
}
SEQUENCES = (0x00081115, 0x00400275)


def dataset_of(values: dict[int, Any], items: dict[int, list[Dataset]], undefined: bool) -> Dataset:
    dataset = Dataset()
    for tag, value in values.items():
        if tag == 0x00091001:
            dataset.add_new(0x00090010, "LO", "SIJIL TEST")
            dataset.add_new(tag, "LO", value)
        elif tag == 0x00280106:
            dataset.add_new(tag, "US", value)
        else:
            dataset.add_new(tag, pydicom.datadict.dictionary_VR(tag), value)
    for tag, content in items.items():
        dataset.add_new(tag, "SQ", Sequence(content))
        dataset[tag].is_undefined_length = undefined
        for item in content:
            item.is_undefined_length_sequence_item = undefined
    return dataset


def datasets(depth: int) -> st.SearchStrategy[Dataset]:
    items = st.lists(datasets(depth - 1), max_size=2) if depth else st.just([])
    return st.builds(
        dataset_of,
        st.sets(st.sampled_from(sorted(BY_TAG)), max_size=8).flatmap(
            lambda chosen: st.fixed_dictionaries({tag: BY_TAG[tag] for tag in chosen})
        ),
        st.dictionaries(st.sampled_from(SEQUENCES), items, max_size=2) if depth else st.just({}),
        st.booleans(),
    )


def file_of(dataset: Dataset, syntax: str, charset: str) -> bytes:
    dataset.SpecificCharacterSet = charset
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.2"), UID("1.2.3")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.file_meta = meta
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", SYNTAXES)
@settings(max_examples=60, deadline=None)
@given(dataset=datasets(2), charset=st.sampled_from(["ISO_IR 192", "ISO_IR 127"]))
def test_what_pydicom_writes_is_read_as_pydicom_reads_it(syntax: str, dataset: Dataset, charset: str) -> None:
    data = file_of(dataset, syntax, charset)
    meta = parse_file_meta(data)
    assert (meta.transfer_syntax, meta.marks) == (syntax, ())
    content = memoryview(data)[meta.dataset_offset :]
    header = header_json(content, syntax)
    surprises = [found for found in differences(ours(header), theirs(data)) if found[1] not in DIFFERENCES]
    assert not surprises
    assert set(header.marks) <= {"bad-number"}
    assert essentials(content, syntax).sop_instance_uid == "1.2.3"


# ------------------------------------------------------------------------------------------------ damage


def load(name: str) -> tuple[bytes, str]:
    path = TEST_FILES / name
    data = (path if path.exists() else DATA_STORE / name).read_bytes()
    meta = parse_file_meta(data)
    return data[meta.dataset_offset :][:20000], meta.transfer_syntax


FILES = [
    load(name)
    for name in (
        "CT_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "test-SR.dcm",
        "rtplan.dcm",
        "reportsi.dcm",
        "SC_rgb_rle_2frame.dcm",
        "liver_1frame.dcm",
        "UN_sequence.dcm",
        "nested_priv_SQ.dcm",
        "image_dfl.dcm",
        "emri_small_jpeg_ls_lossless.dcm",
    )
]


def check(dataset: bytes, syntax: str) -> None:
    """Refused by both with the same reason, or read by both; the JSON is JSON, in order, and agrees."""
    try:
        found = essentials(dataset, syntax)
    except Invalid as refusal:
        with pytest.raises(Invalid) as other:
            header_json(dataset, syntax)
        assert (other.value.reason, refusal.reason in REASONS) == (refusal.reason, True)  # noqa: PT017
        return
    header = header_json(dataset, syntax)
    assert set(header.marks) | set(found.marks) <= MARKS.keys()
    ours(header)
    sop_instance = header.attributes.get("00080018", [""])
    if "UI" in str(json.loads(header.json).get("00080018")):
        assert sop_instance == ["" if not found.sop_instance_uid else value for value in sop_instance]
    for at in range(header.frames.count):
        for start, length in header.frames.span(at)[0]:
            assert start >= 0
            assert length >= 0
    json.loads(header.frames.json())


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
)
def test_flipped_bytes(file: tuple[bytes, str], changes: list[tuple[float, bytes]]) -> None:
    dataset, syntax = bytearray(file[0]), file[1]
    for where, change in changes:
        at = int(where * len(dataset))
        dataset[at : at + len(change)] = change
    check(bytes(dataset), syntax)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FILES), st.floats(0, 1), st.floats(0, 1))
def test_cut_and_missing_bytes(file: tuple[bytes, str], first: float, second: float) -> None:
    dataset, syntax = file
    low, high = sorted((int(first * len(dataset)), int(second * len(dataset))))
    check(dataset[:low], syntax)
    check(dataset[:low] + dataset[high:], syntax)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(FILES),
    st.floats(0, 1),
    st.sampled_from([0, 1, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 0xE000FFFE, 0xE00DFFFE]),
)
def test_lengths_that_lie(file: tuple[bytes, str], where: float, lie: int) -> None:
    dataset, syntax = file
    at = int(where * (len(dataset) - 4))
    for word in (struct.pack("<I", lie), struct.pack(">I", lie)):
        check(dataset[:at] + word + dataset[at + 4 :], syntax)


def word(form: str, numbers: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    return numbers.map(lambda value: struct.pack(form, value))


# Bytes that look like elements, items and delimiters.
TAGS = st.sampled_from(
    [0x00080005, 0x00080018, 0x00081115, 0x00090010, 0x00091001, 0x00280103, 0x00280106, 0x7FE00010, 0]
)
tags: st.SearchStrategy[bytes] = TAGS.map(lambda tag: struct.pack("<HH", tag >> 16, tag & 0xFFFF))
vrs = st.sampled_from(
    [b"SQ\0\0", b"UN\0\0", b"OB\0\0", b"UI\2\0", b"PN\4\0", b"US\2\0", b"ZZ\0\0", b"??\2\0", b"LO\0\0"]
)
pieces = st.one_of(
    tags,
    vrs,
    st.sampled_from([b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\xff\xff\xff\xff", b"\0\0\0\0"]),
    word("<I", st.integers(0, 40)),
    st.binary(max_size=4),
)


@settings(max_examples=800, deadline=None)
@given(st.lists(pieces, max_size=40).map(b"".join), st.sampled_from(SYNTAXES[:3]))
def test_bytes_that_look_like_elements(dataset: bytes, syntax: str) -> None:
    check(dataset, syntax)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([*SYNTAXES, "1.2.3"]))
def test_any_bytes(dataset: bytes, syntax: str) -> None:
    check(dataset, syntax)


def deep(depth: int, end: bytes) -> bytes:
    return b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth + end * depth


@pytest.mark.parametrize("depth", [1, 63, 64, 65, 10000])
@pytest.mark.parametrize("end", [b"", b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"])
def test_depth_is_bounded(depth: int, end: bytes) -> None:
    check(deep(depth, end), EXPLICIT_LE)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: b"\xfe\xff\x00\xe0\0\0\0\0" * n,
        lambda n: (
            b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * n + b"\xfe\xff\xdd\xe0\0\0\0\0"
        ),
        lambda n: b"\x09\x00\x01\x10UN\0\0" + struct.pack("<I", 8 * n) + b"\xfe\xff\x00\xe0\0\0\0\0" * n,
        lambda n: b"".join(b"\x09\x00" + struct.pack("<H", at % 65536) + b"OB\0\0\0\0\0\0" for at in range(n)),
    ],
)
def test_time_grows_with_the_bytes(make: Callable[[int], bytes]) -> None:
    # Nothing here may take longer than the test's own deadline, nor need more memory than a header's bound.
    for count in (10, 60_000):
        with suppress(Invalid):
            header_json(make(count), EXPLICIT_LE)
