"""What is known of a dataset before it is acknowledged."""

from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.dicom.elements import EXPLICIT_LITTLE, elements
from producers.dicom.essentials import Essentials, essentials
from producers.dicom.part10 import parse_file_meta
from producers.dicom.reasons import MARKS, REASONS
from producers.dicom.syntaxes import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from schemas.errors import Invalid
from tests.unit.producers.dicom.samples import INSTANCES, TEST_FILES, name_of

CT = (TEST_FILES / "CT_small.dcm").read_bytes()
CT_META = parse_file_meta(CT)
CT_DATASET = CT[CT_META.dataset_offset :]
CT_ENDS = {stop for _, _, stop, _ in elements(memoryview(CT_DATASET), EXPLICIT_LITTLE, set())}
CT_ESSENTIALS = essentials(CT_DATASET, EXPLICIT_LE)


@pytest.mark.parametrize("path", INSTANCES, ids=name_of)
@pytest.mark.parametrize("whole", [True, False])
def test_agrees_with_pydicom_on_every_file(path: Path, whole: bool) -> None:
    data = path.read_bytes()
    meta = parse_file_meta(data)
    found = essentials(memoryview(data)[meta.dataset_offset :], meta.transfer_syntax, whole=whole)
    theirs = pydicom.dcmread(BytesIO(data), force=True)
    assert found.sop_class_uid == theirs.get("SOPClassUID", "")
    assert found.sop_instance_uid == theirs.get("SOPInstanceUID", "")
    assert found.study_uid == theirs.get("StudyInstanceUID", "")
    assert found.series_uid == theirs.get("SeriesInstanceUID", "")
    assert found.patient_id == (theirs.get("PatientID") or "")
    assert set(found.marks) <= MARKS.keys()


def short(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    head = group.to_bytes(2, "little") + element.to_bytes(2, "little") + vr
    return head + len(value).to_bytes(2, "little") + value


UIDS = {
    0x00080016: short(8, 0x16, b"UI", b"1.2\0"),
    0x00080018: short(8, 0x18, b"UI", b"1.2.3\0"),
    0x00100020: short(0x10, 0x20, b"LO", b" 29 "),
    0x0020000D: short(0x20, 0x0D, b"UI", b"1.4\0"),
    0x0020000E: short(0x20, 0x0E, b"UI", b"1.5\0"),
}
DATASET = b"".join(UIDS.values())
EXPECTED = Essentials("1.2", "1.2.3", "1.4", "1.5", "29")


def test_reading_stops_behind_the_series() -> None:
    cut = DATASET + short(0x28, 0x10, b"US", b"\1\0")[:5]
    assert essentials(cut, EXPLICIT_LE, whole=False) == EXPECTED
    with pytest.raises(Invalid, match="end inside"):
        essentials(cut, EXPLICIT_LE)


def test_out_of_order_is_read_to_the_end_and_the_first_of_two_counts() -> None:
    late = short(0x28, 0x10, b"US", b"\1\0") + DATASET + short(8, 0x18, b"UI", b"9.9\0")
    for whole in (True, False):
        assert essentials(late, EXPLICIT_LE, whole=whole).sop_instance_uid == "1.2.3"
    assert essentials(late, EXPLICIT_LE).marks == ("unordered-tags",)


def test_what_is_missing_is_empty() -> None:
    for tag in UIDS:
        found = essentials(b"".join(value for key, value in UIDS.items() if key != tag), EXPLICIT_LE)
        assert (
            sum(value == "" for value in (found.sop_class_uid, found.sop_instance_uid, found.study_uid))
            + sum(value == "" for value in (found.series_uid, found.patient_id))
            == 1
        )


def test_an_arabic_patient_id_is_decoded() -> None:
    for charset, codec, marks in [
        (b"ISO_IR 127", "iso8859-6", ()),
        (b"ISO_IR 192", "utf-8", ()),
        (b"ISO_IR 192", "cp1256", ("wrong-charset",)),
        (None, "utf-8", ("guessed-charset",)),
        (None, "cp1256", ("guessed-charset",)),
        (b"ISO_IR 999", "utf-8", ("guessed-charset", "unknown-charset")),
    ]:
        dataset = short(8, 5, b"CS", charset) if charset else b""
        dataset += DATASET.replace(
            UIDS[0x00100020], short(0x10, 0x20, b"LO", "رقم ١٢".replace("١٢", "12").encode(codec))
        )
        found = essentials(dataset, EXPLICIT_LE)
        assert (found.patient_id, found.marks) == ("رقم 12", marks)


@pytest.mark.parametrize("said", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE])
@pytest.mark.parametrize("written", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE])
def test_the_wrong_transfer_syntax_is_seen(said: str, written: str) -> None:
    buffer = BytesIO()
    theirs = pydicom.dcmread(BytesIO(CT))
    del theirs.PixelData
    theirs.save_as(
        buffer, implicit_vr=written == IMPLICIT_LE, little_endian=written != EXPLICIT_BE, force_encoding=True
    )
    data = buffer.getvalue()
    found = essentials(data[parse_file_meta(data).dataset_offset :], said)
    assert found.sop_instance_uid == CT_ESSENTIALS.sop_instance_uid
    assert found.marks == (() if said == written else ("wrong-transfer-syntax",))


@pytest.mark.parametrize("padding", [b"\0", b"\0" * 7, b"\0" * 8, b"\0" * 5000])
def test_padding_to_a_block_is_no_element(padding: bytes) -> None:
    found = essentials(CT_DATASET + padding, EXPLICIT_LE)
    assert found.sop_instance_uid == CT_ESSENTIALS.sop_instance_uid
    assert found.marks == ("trailing-bytes",)


@given(st.integers(1, len(CT_DATASET) - 1))
def test_a_cut_is_seen_unless_it_is_between_two_elements(at: int) -> None:
    if at in CT_ENDS:
        essentials(CT_DATASET[:at], EXPLICIT_LE)
    else:
        with pytest.raises(Invalid, match="end inside"):
            essentials(CT_DATASET[:at], EXPLICIT_LE)


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=8), st.booleans())
def test_flipped_bytes_are_read_or_refused(at: int, change: bytes, whole: bool) -> None:
    with suppress(Invalid):
        found = essentials(CT_DATASET[:at] + change + CT_DATASET[at + len(change) :], EXPLICIT_LE, whole=whole)
        assert set(found.marks) <= MARKS.keys()


@given(st.binary(max_size=300), st.sampled_from([EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE, "1.2.3"]))
def test_any_bytes_are_read_or_refused(data: bytes, syntax: str) -> None:
    with suppress(Invalid):
        essentials(data, syntax)


def test_every_reason_has_its_case() -> None:
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    sequence = short(8, 0x1115, b"SQ", b"") + b"\xff\xff\xff\xff"
    cases = {
        b"": "not-dicom",
        DATASET[:-1]: "truncated",
        DATASET + sequence: "truncated",
        DATASET + sequence + item: "truncated",
        DATASET + sequence + DATASET: "damaged-structure",
        DATASET + item: "damaged-structure",
        (sequence + item) * 65: "too-deep",
        UIDS[0x00080016] * 70000: "too-many-elements",
    }
    for data, reason in cases.items():
        with pytest.raises(Invalid) as refusal:
            essentials(data, EXPLICIT_LE)
        assert (refusal.value.reason, refusal.value.reason in REASONS) == (reason, True)
