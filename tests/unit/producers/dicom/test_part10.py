"""File Meta Information, read from every file at hand and from what the field makes of it, and written."""

from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword

from producers.dicom.essentials import essentials
from producers.dicom.part10 import FILE_META_BYTES_MAX, FileMeta, encode_file_meta, parse_file_meta
from producers.dicom.reasons import MARKS, REASONS
from producers.dicom.syntaxes import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from schemas.errors import Invalid
from tests.unit.producers.dicom.samples import FILES, INSTANCES, REFUSED, TEST_FILES, name_of

CT = (TEST_FILES / "CT_small.dcm").read_bytes()
CT_META = parse_file_meta(CT)
CT_DATASET = CT[CT_META.dataset_offset :]


def element(number: int, vr: bytes, value: bytes) -> bytes:
    return b"\x02\x00" + number.to_bytes(2, "little") + vr + len(value).to_bytes(2, "little") + value


@pytest.mark.parametrize("path", INSTANCES, ids=name_of)
def test_agrees_with_pydicom_on_every_file(path: Path) -> None:
    data = path.read_bytes()
    meta = parse_file_meta(data)
    buffer = BytesIO(data)
    theirs = pydicom.dcmread(buffer, force=True, stop_before_pixels=True).file_meta
    said = "guessed-transfer-syntax" not in meta.marks
    assert meta.transfer_syntax == theirs.get("TransferSyntaxUID") if said else "TransferSyntaxUID" not in theirs
    assert meta.sop_class_uid == theirs.get("MediaStorageSOPClassUID", "")
    assert meta.sop_instance_uid == theirs.get("MediaStorageSOPInstanceUID", "")
    assert meta.implementation_class_uid == theirs.get("ImplementationClassUID", "")
    assert meta.implementation_version_name == theirs.get("ImplementationVersionName", "")
    assert meta.source_ae_title == (theirs.get("SourceApplicationEntityTitle") or "")
    assert set(meta.marks) <= MARKS.keys()


def test_the_dataset_begins_where_pydicom_begins_it() -> None:
    for path in INSTANCES:
        data = path.read_bytes()
        first = next(iter(pydicom.dcmread(BytesIO(data), force=True, stop_before_pixels=True)._dict))
        meta = parse_file_meta(data)
        if meta.transfer_syntax in (EXPLICIT_LE, IMPLICIT_LE):
            assert data[meta.dataset_offset :][:4] == (first >> 16).to_bytes(2, "little") + (first & 0xFFFF).to_bytes(
                2, "little"
            ), path


@pytest.mark.parametrize("path", [path for path in FILES if name_of(path) in REFUSED], ids=name_of)
def test_refused_files_say_why(path: Path) -> None:
    data = path.read_bytes()

    def read() -> None:
        meta = parse_file_meta(data)
        essentials(data[meta.dataset_offset :], meta.transfer_syntax)

    with pytest.raises(Invalid) as refusal:
        read()
    assert refusal.value.reason == REFUSED[name_of(path)]
    assert refusal.value.reason in REASONS


def test_the_list_of_refused_files_is_closed() -> None:
    assert REFUSED.keys() <= {name_of(path) for path in FILES}


# ------------------------------------------------------------------------------------------------ tolerance

UIDS = element(2, b"UI", b"1.2\0") + element(3, b"UI", b"1.2.3\0")
SYNTAX = element(0x10, b"UI", b"1.2.840.10008.1.2.1\0")
PREFIX = bytes(128) + b"DICM"


def length_of(elements: bytes) -> bytes:
    return element(0, b"UL", len(elements).to_bytes(4, "little"))


def implicit(elements: bytes) -> bytes:
    """The same elements (all of short form) in Implicit VR."""
    out, pos = b"", 0
    while pos < len(elements):
        length = int.from_bytes(elements[pos + 6 : pos + 8], "little")
        out += elements[pos : pos + 4] + length.to_bytes(4, "little") + elements[pos + 8 : pos + 8 + length]
        pos += 8 + length
    return out


@pytest.mark.parametrize(
    ("head", "marks"),
    [
        (PREFIX + length_of(UIDS + SYNTAX) + UIDS + SYNTAX, ()),
        (b"\xff" * 128 + b"DICM" + length_of(UIDS + SYNTAX) + UIDS + SYNTAX, ()),
        (b"DICM" + length_of(UIDS + SYNTAX) + UIDS + SYNTAX, ("no-preamble",)),
        (length_of(UIDS + SYNTAX) + UIDS + SYNTAX, ("no-preamble",)),
        (PREFIX + UIDS + SYNTAX, ("no-group-length",)),
        (PREFIX + length_of(UIDS) + UIDS + SYNTAX, ("wrong-group-length",)),
        (PREFIX + length_of(UIDS + SYNTAX + b"xx") + UIDS + SYNTAX, ("wrong-group-length",)),
        (PREFIX + length_of(UIDS + SYNTAX) + SYNTAX + UIDS, ()),
        (PREFIX + implicit(UIDS + SYNTAX), ("implicit-file-meta", "no-group-length")),
        (PREFIX + UIDS, ("no-group-length", "guessed-transfer-syntax")),
        (PREFIX + UIDS + element(0x10, b"UI", b""), ("no-group-length", "guessed-transfer-syntax")),
    ],
)
def test_what_the_field_makes_of_it_is_read_and_marked(head: bytes, marks: tuple[str, ...]) -> None:
    meta = parse_file_meta(head + CT_DATASET)
    assert meta == FileMeta(len(head), EXPLICIT_LE, "1.2", "1.2.3", marks=marks)


@pytest.mark.parametrize(
    ("name", "syntax"),
    [("ExplVR_LitEndNoMeta.dcm", EXPLICIT_LE), ("ExplVR_BigEndNoMeta.dcm", EXPLICIT_BE), ("rtstruct.dcm", IMPLICIT_LE)],
)
def test_a_bare_dataset_is_told_by_its_first_element(name: str, syntax: str) -> None:
    meta = parse_file_meta((TEST_FILES / name).read_bytes())
    assert (meta.transfer_syntax, meta.dataset_offset) == (syntax, 0)
    assert meta.marks == ("no-preamble", "no-file-meta", "guessed-transfer-syntax")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not-dicom"),
        (b"DICM", "not-dicom"),
        (PREFIX, "not-dicom"),
        (b"\x08\x00", "not-dicom"),
        (b"PK\x03\x04" + bytes(600), "not-dicom"),
        (b"%PDF-1.7\n" + b"x" * 600, "not-dicom"),
        (b"\x89PNG\r\n\x1a\n" + bytes(600), "not-dicom"),
        (bytes(5000), "not-dicom"),
        (b"\xff" * 5000, "not-dicom"),
        (PREFIX + UIDS, "no-transfer-syntax"),
        (PREFIX + UIDS + SYNTAX[:-3], "truncated"),
        (PREFIX + UIDS + SYNTAX[:6], "truncated"),
        (PREFIX + UIDS + b"\x02\x00\x02\x01OB\0\0", "truncated"),
        (
            PREFIX + UIDS + b"\x02\x00\x02\x01OB\0\0" + (1 << 20).to_bytes(4, "little") + bytes(1 << 20),
            "file-meta-too-long",
        ),
        (PREFIX + UIDS + b"\x02\x00\x02\x01OB\0\0\xff\xff\xff\xff" + bytes(64), "not-dicom"),
        (PREFIX + element(2, b"UI", b"1.2.840.10008.1.3.10") + SYNTAX + CT_DATASET, "dicomdir"),
    ],
)
def test_what_is_no_file_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_file_meta(data)
    assert refusal.value.reason == reason


@given(st.binary(max_size=600) | st.builds(lambda tail: PREFIX + tail, st.binary(max_size=200)))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(Invalid):
        meta = parse_file_meta(data)
        assert 0 <= meta.dataset_offset <= len(data)
        assert set(meta.marks) <= MARKS.keys()


@given(st.integers(0, CT_META.dataset_offset + 100), st.binary(min_size=1, max_size=12))
def test_flipped_bytes_are_read_or_refused(at: int, change: bytes) -> None:
    with suppress(Invalid):
        parse_file_meta(CT[:at] + change + CT[at + len(change) :])


def test_the_bound_is_enough_and_a_memoryview_is_welcome() -> None:
    assert parse_file_meta(memoryview(CT)[:FILE_META_BYTES_MAX]) == CT_META


# ------------------------------------------------------------------------------------------------ writing

uids = st.from_regex(r"[0-9]{1,8}(\.[0-9]{1,8}){0,6}", fullmatch=True)


@given(uids, uids, uids, st.from_regex(r"[A-Z0-9_]{0,16}", fullmatch=True))
def test_what_is_written_is_read_back_by_both(sop_class: str, sop_instance: str, syntax: str, ae_title: str) -> None:
    head = encode_file_meta(
        sop_class_uid=sop_class, sop_instance_uid=sop_instance, transfer_syntax=syntax, source_ae_title=ae_title
    )
    meta = parse_file_meta(head + CT_DATASET)
    assert (meta.dataset_offset, meta.marks) == (len(head), ())
    assert (meta.sop_class_uid, meta.sop_instance_uid) == (sop_class, sop_instance)
    assert (meta.transfer_syntax, meta.source_ae_title) == (syntax, ae_title)
    theirs = pydicom.dcmread(BytesIO(head)).file_meta
    assert theirs.FileMetaInformationGroupLength == len(head) - 144
    assert theirs.FileMetaInformationVersion == b"\x00\x01"
    assert str(theirs.MediaStorageSOPInstanceUID) == sop_instance
    assert theirs.ImplementationVersionName == meta.implementation_version_name
    assert ("SourceApplicationEntityTitle" in theirs) == bool(ae_title)
    assert all(tag_for_keyword(e.keyword) for e in theirs)


@pytest.mark.parametrize("field", ["sop_class_uid", "sop_instance_uid", "transfer_syntax", "source_ae_title"])
@pytest.mark.parametrize("value", ["1" * 65, "سجل", "1.2\n3", "1\\2"])
def test_what_file_meta_cannot_hold_is_refused(field: str, value: str) -> None:
    values = {
        "sop_class_uid": "1.2",
        "sop_instance_uid": "1.2.3",
        "transfer_syntax": EXPLICIT_LE,
        "source_ae_title": "VAN",
    }
    with pytest.raises(Invalid) as refusal:
        encode_file_meta(**(values | {field: value}))
    assert refusal.value.reason == "bad-file-meta-value"


@pytest.mark.parametrize("field", ["sop_class_uid", "sop_instance_uid", "transfer_syntax"])
def test_a_missing_uid_is_refused(field: str) -> None:
    values = {"sop_class_uid": "1.2", "sop_instance_uid": "1.2.3", "transfer_syntax": EXPLICIT_LE}
    with pytest.raises(Invalid):
        encode_file_meta(**(values | {field: ""}))
