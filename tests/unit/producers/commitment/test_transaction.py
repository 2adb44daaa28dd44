"""Storage commitments in both of their forms, and what follows from what is known."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, config
from pydicom.sequence import Sequence

from producers.commitment.judging import Held, judge, wanted
from producers.commitment.transaction import (
    CLASS_CONFLICT,
    CLASS_NOT_SUPPORTED,
    FAILURES_EXIST,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    SUCCESSFUL,
    Outcome,
    Reference,
    Transaction,
    information_of,
    json_of,
    of_information,
    of_json,
)
from schemas.errors import Invalid
from tests.unit.producers.samples import CT

MR = "1.2.840.10008.5.1.4.1.1.4"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
A, B, C = (Reference(CT, f"1.2.{n}") for n in range(3))


def information(uid: str | None, *references: Reference) -> Dataset:
    found = Dataset()
    if uid is not None:
        found[0x00081195] = DataElement(0x00081195, "UI", uid, validation_mode=config.IGNORE)
    items = []
    for r in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = r.sop_class, r.sop_uid
        items.append(item)
    found.ReferencedSOPSequence = Sequence(items)
    return found


def test_a_request_and_its_result_have_the_same_references() -> None:
    uid, references = of_information(information("1.2.3", A, B, A))
    assert (uid, references) == ("1.2.3", (A, B))
    asked = Transaction(transaction_uid=uid, references=references, requested="2025-01-01T00:00:00Z", ae_title="X")
    outcome = Outcome((A,), ((B, NO_SUCH_INSTANCE),))
    told = information_of(asked, outcome, "SIJIL")
    assert (told.TransactionUID, told.RetrieveAETitle, outcome.event_type) == ("1.2.3", "SIJIL", FAILURES_EXIST)
    assert [i.ReferencedSOPInstanceUID for i in told.ReferencedSOPSequence] == [A.sop_uid]
    (failed,) = told.FailedSOPSequence
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == (B.sop_uid, 0x0112)
    all_good = information_of(asked, Outcome((A, B), ()), "SIJIL")
    assert "FailedSOPSequence" not in all_good
    assert Outcome((A, B), ()).event_type == SUCCESSFUL


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (information(None, A), "commitment-transaction-uid"),
        (information("not a uid", A), "commitment-transaction-uid"),
        (information("1.2.3"), "commitment-empty"),
        (information("1.2.3", A, Reference("", "1.2")), "commitment-reference"),
        (information("1.2.3", Reference(CT, "")), "commitment-reference"),
    ],
)
def test_requests_that_are_none(asked: Dataset, reason: str) -> None:
    with pytest.raises(Invalid) as refused:
        of_information(asked)
    assert refused.value.reason == reason


uids = st.sampled_from([f"1.2.{n}" for n in range(5)])
references = st.builds(
    Reference, st.sampled_from([CT, MR]), uids, st.sampled_from(["", "1.7", "1.8"]), st.sampled_from(["1.7.1", "1.7.2"])
).map(lambda r: r if r.study_uid else Reference(r.sop_class, r.sop_uid))


@given(st.lists(references, min_size=1, max_size=12, unique=True), st.data())
def test_the_web_is_answered_in_the_form_it_asked_in(asked: list[Reference], data: st.DataObject) -> None:
    """What a result says is, sequence by sequence, what a request with the same references says."""
    split = data.draw(st.integers(0, len(asked)))
    outcome = Outcome(tuple(asked[:split]), tuple((r, CLASS_CONFLICT) for r in asked[split:]))
    told = json.loads(json_of(outcome))
    assert list(told) == sorted(told)
    renamed = {"00081198": "00081199", "0008119B": "00081110"}
    kept = {k: v for k, v in told.items() if k not in renamed}
    failed = {renamed[k]: v for k, v in told.items() if k in renamed}
    for part, module in ((asked[:split], kept), (asked[split:], failed)):
        if part:
            assert set(of_json("1.2.3", json.dumps([module]).encode())[1]) == set(part)
    assert json.dumps(told).count('"00081197"') == len(asked) - split


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_no_payload_breaks_the_reader(payload: object) -> None:
    with pytest.raises(Invalid):
        of_json("1.2.3", json.dumps({"00081199": payload, "00081110": {"Value": payload}}).encode())


def test_a_payload_that_is_no_json() -> None:
    with pytest.raises(Invalid):
        of_json("1.2.3", b"<NativeDicomModel/>")


# ------------------------------------------------------------------------------------------------ judging

KEPT = Held(frozenset({CT}), pending=False)
PENDING = Held(frozenset({CT}), pending=True)


def reasons(outcome: Outcome | None) -> dict[str, int]:
    assert outcome is not None
    return {r.sop_uid: reason for r, reason in outcome.failed}


def test_all_here_or_in_the_archive() -> None:
    asked = [A, B]
    assert wanted(asked, {A.sop_uid: KEPT}) == [B.sop_uid]
    found = judge(asked, {A.sop_uid: KEPT}, {B.sop_uid: frozenset({CT})}, unknown_is_final=False, late=False)
    assert found.outcome == Outcome((A, B), ())


def test_nothing_is_final_while_a_copy_waits_for_s3_even_if_the_archive_has_another() -> None:
    held, archived = {A.sop_uid: PENDING}, {A.sop_uid: frozenset({CT})}
    assert judge([A, B], held, archived, unknown_is_final=True, late=False).outcome is None
    late = judge([A, B], held, archived, unknown_is_final=False, late=True).outcome
    assert reasons(late) == {A.sop_uid: PROCESSING_FAILURE, B.sop_uid: NO_SUCH_INSTANCE}


def test_never_received_is_said_only_when_it_is_certain() -> None:
    first = judge([A, B], {A.sop_uid: KEPT}, {}, unknown_is_final=False, late=False)
    assert first.outcome is None
    assert first.unknown == {B.sop_uid}
    then = judge([A, B], {A.sop_uid: KEPT}, {}, unknown_is_final=True, late=False)
    assert reasons(then.outcome) == {B.sop_uid: NO_SUCH_INSTANCE}


def test_classes() -> None:
    asked = [Reference(MR, A.sop_uid), B, Reference(FIND, C.sop_uid)]
    held = {A.sop_uid: KEPT, B.sop_uid: KEPT}
    assert wanted(asked, held) == [A.sop_uid]
    found = judge(asked, held, {}, unknown_is_final=True, late=False).outcome
    assert reasons(found) == {A.sop_uid: CLASS_CONFLICT, C.sop_uid: CLASS_NOT_SUPPORTED}
    # Of two copies that conflict even in their class, the one that is asked for is kept.
    both = {A.sop_uid: Held(frozenset({CT, MR}), pending=False)}
    assert judge(asked[:1], both, {}, unknown_is_final=True, late=False).outcome == Outcome((asked[0],), ())


known = st.dictionaries(uids, st.frozensets(st.sampled_from([CT, MR]), min_size=1))


@given(st.lists(references, min_size=1, unique=True), known, st.sets(uids), known, st.booleans(), st.booleans())
def test_each_reference_is_answered_once(
    asked: list[Reference],
    here: dict[str, frozenset[str]],
    waiting: set[str],
    archived: dict[str, frozenset[str]],
    certain: bool,
    late: bool,
) -> None:
    held = {uid: Held(classes, uid in waiting) for uid, classes in here.items()}
    found = judge(asked, held, archived, unknown_is_final=certain, late=late).outcome
    if found is not None:
        assert sorted([*found.committed, *(r for r, _ in found.failed)], key=repr) == sorted(asked, key=repr)
        for r in found.committed:
            assert r.sop_class in here.get(r.sop_uid, frozenset()) | archived.get(r.sop_uid, frozenset())
            assert not (r.sop_uid in held and held[r.sop_uid].pending)
        assert late or not any(reason == PROCESSING_FAILURE for _, reason in found.failed)
