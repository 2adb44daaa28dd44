"""Which bytes are an instance that is stored, and why others are not."""

from __future__ import annotations

from typing import Any

import pytest

from producers.dicom.part10 import encode_file_meta
from producers.identify import MARK_FILE_META_DIFFERS, Named, Refused, identify_dataset, identify_file
from producers.open_pack import Instance
from producers.refusals import CANNOT_UNDERSTAND, REFUSALS, refusal
from schemas.identity import MARK_LEADING_ZERO
from tests.unit.producers.samples import CT, EXPLICIT_LE, SENDER, STUDY, dataset, dataset_offset, file

SOP = "1.2.3.4"


def by_file(data: bytes, study_uid: str = "") -> Instance:
    return identify_file(memoryview(data), sender=SENDER, study_uid=study_uid)


def by_command(data: bytes, **changes: str) -> Instance:
    command = {"transfer_syntax": EXPLICIT_LE, "sop_class": CT, "sop_uid": SOP, **changes}
    return identify_dataset(memoryview(data), dataset_offset=300, sender=SENDER, **command)


def reason(call: Any, *args: Any, **kwargs: Any) -> tuple[str, Named]:
    with pytest.raises(Refused) as refused:
        call(*args, **kwargs)
    assert refused.value.reason in REFUSALS
    return refused.value.reason, refused.value.named


def test_a_file() -> None:
    data = file(SOP)
    assert by_file(data) == Instance(STUDY, STUDY + ".1", SOP, CT, EXPLICIT_LE, dataset_offset(data), SENDER)
    assert by_file(data, STUDY) == by_file(data)


def test_a_dataset() -> None:
    assert by_command(dataset(SOP)) == Instance(STUDY, STUDY + ".1", SOP, CT, EXPLICIT_LE, 300, SENDER)


def test_leading_zeros_are_stored_and_marked() -> None:
    assert by_file(file("1.2.03")).marks == (MARK_LEADING_ZERO,)
    assert by_command(dataset("1.02.3"), sop_uid="1.02.3").marks == (MARK_LEADING_ZERO,)


def test_the_dataset_counts_where_file_meta_says_something_else() -> None:
    data = file(SOP)
    head = encode_file_meta(sop_class_uid=CT, sop_instance_uid="1.9", transfer_syntax=EXPLICIT_LE)
    found = by_file(head + data[dataset_offset(data) :])
    assert found.sop_uid == SOP
    assert found.marks == (MARK_FILE_META_DIFFERS,)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"study": ""}, "uid-missing"),
        ({"series": ""}, "uid-missing"),
        ({"sop_class": ""}, "uid-missing"),
        ({"study": "1.2.x"}, "uid-invalid"),
        ({"series": "1." * 33}, "uid-invalid"),
        ({"study": "../../etc/passwd"}, "uid-invalid"),
        ({"sop_class": "1.2.840.10008.5.1.4.1.2.2.1"}, "sop-class-not-storage"),
    ],
)
def test_uids_that_cannot_be_keys(options: dict[str, str], expected: str) -> None:
    assert reason(by_file, file(SOP, **options))[0] == expected


def test_a_missing_sop_instance_uid() -> None:
    assert reason(by_file, file(""))[0] == "uid-missing"


def test_another_study_than_the_addresss() -> None:
    assert reason(by_file, file(SOP), "1.2.999") == ("study-mismatch", Named(STUDY, SOP, CT))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"sop_class": CT + ".1"}, "sop-class-mismatch"), ({"sop_uid": "1.2.9"}, "sop-instance-mismatch")],
)
def test_another_instance_than_the_commands(changes: dict[str, str], expected: str) -> None:
    found, named = reason(by_command, dataset(SOP), **changes)
    assert found == expected
    assert named == Named(STUDY, changes.get("sop_uid", SOP), changes.get("sop_class", CT))


def test_transfer_syntaxes_nobody_can_read() -> None:
    data = file(SOP).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0", 1)
    assert reason(by_file, data) == ("transfer-syntax", Named("", SOP, CT))


@pytest.mark.parametrize("data", [b"", b"x", b"<html></html>" * 50, bytes(1000), b"%PDF-1.7\n" + bytes(300)])
def test_what_is_not_dicom(data: bytes) -> None:
    found, named = reason(by_file, data)
    assert found in ("not-dicom", "truncated", "no-transfer-syntax")
    assert named == Named()


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_a_truncated_file_is_refused_with_what_is_known_of_it(cut: int) -> None:
    assert reason(by_file, file(SOP, pixels=bytes(100))[:-cut]) == ("truncated", Named("", SOP, CT))


def test_values_of_the_dataset_are_in_no_message() -> None:
    with pytest.raises(Refused) as refused:
        by_file(file(SOP, study="CANARY"))
    assert "CANARY" not in str(refused.value)
    assert "CANARY" not in repr(refused.value.named)


def test_refusals_are_told_within_the_standards_ranges() -> None:
    for name, told in REFUSALS.items():
        assert told.status in (0x0122,) or told.status >> 8 == 0xA9 or told.status >> 12 == 0xC, name
        assert len(told.text) <= 64
    assert len({r.status for r in REFUSALS.values()}) == len(REFUSALS)
    assert refusal("never-heard-of").status == CANNOT_UNDERSTAND
