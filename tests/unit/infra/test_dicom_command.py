"""Our codec of command sets against pynetdicom's."""

from __future__ import annotations

import struct
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode

from infra import dicom_command
from infra.dicom_command import (
    StoreRequest,
    StoreStatus,
    command_field,
    elements,
    message_pdus,
    store_request,
    store_response,
)
from schemas.errors import Invalid

CT = "1.2.840.10008.5.1.4.1.1.2"


def their_request(sop: str = "1.2.3", *, data_set: bool = True) -> bytes:
    primitive = C_STORE()
    primitive.MessageID = 7
    primitive.AffectedSOPClassUID = CT
    primitive.AffectedSOPInstanceUID = sop
    primitive.Priority = 2
    primitive.MoveOriginatorApplicationEntityTitle = "MOVER"
    primitive.MoveOriginatorMessageID = 3
    if data_set:
        primitive.DataSet = BytesIO(b"1234")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    encoded = encode(message.command_set, True, True)
    assert encoded is not None
    return encoded


@pytest.mark.parametrize("sop", ["1.2.3", "1.2.34"])
def test_a_request(sop: str) -> None:
    found = elements(their_request(sop))
    assert command_field(found) == dicom_command.C_STORE_RQ
    assert store_request(found) == StoreRequest(7, CT, sop, has_data_set=True)
    assert not store_request(elements(their_request(data_set=False))).has_data_set


@pytest.mark.parametrize("told", [StoreStatus(0), StoreStatus(0xA900, "no"), StoreStatus(0xC000, "x" * 70)])
def test_a_response(told: StoreStatus) -> None:
    command = store_response(StoreRequest(7, CT, "1.2.3", has_data_set=True), told)
    ds = decode(BytesIO(command), True, True)
    assert ds.CommandGroupLength == len(command) - 12
    assert [e.tag for e in ds] == sorted(e.tag for e in ds)
    message = C_STORE_RSP()
    message.command_set = ds
    primitive = message.message_to_primitive()
    assert isinstance(primitive, C_STORE)
    assert primitive.is_valid_response
    assert (primitive.MessageIDBeingRespondedTo, primitive.Status) == (7, told.status)
    assert (primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID) == (CT, "1.2.3")
    assert (ds.get("ErrorComment") or "") == told.comment[:64]


@given(st.binary(max_size=200))
def test_anything_else_is_invalid(data: bytes) -> None:
    with suppress(Invalid):
        store_request(elements(data))


@given(st.integers(1, len(their_request()) - 1))
def test_a_cut_command(at: int) -> None:
    whole = elements(their_request())
    try:
        found = elements(their_request()[:at])
    except Invalid:
        return
    assert found.items() <= whole.items()  # cut between two elements


@given(
    st.binary(min_size=1, max_size=60),
    st.lists(st.binary(max_size=40), max_size=12),
    st.integers(4, 40).map(lambda n: 6 + n),
)
def test_a_message_in_pdus(command: bytes, pieces: list[bytes], maximum: int) -> None:
    """Whatever pieces a dataset comes in: nothing is lost, no PDU is too long, and fragments are of even length."""
    parts: dict[bool, list[tuple[bytes, int]]] = {True: [], False: []}
    for head, fragment in message_pdus(3, command, pieces, maximum):
        kind, _, length, value, context, control = struct.unpack(">BBIIBB", head)
        assert (kind, length, value, context) == (4, len(fragment) + 6, len(fragment) + 2, 3)
        assert length <= maximum
        parts[bool(control & 1)].append((bytes(fragment), control))
    for is_command, whole in ((True, command), (False, b"".join(pieces))):
        assert b"".join(f for f, _ in parts[is_command]) == whole
        assert [bool(c & 2) for _, c in parts[is_command]] == [False] * (len(parts[is_command]) - 1) + [True]
        assert all(len(f) == (maximum - 6) & ~1 for f, _ in parts[is_command][:-1])
